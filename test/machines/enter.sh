#!/bin/sh
# enter.sh DIRECTORY CWD PROGRAM ARG…: the first thing that runs in a machine's namespaces, for machine.ts.
# Joins the machine's cgroups, because namespaces alone would leave the program in the caller's, then becomes the program,
# which ends when the caller does.
while read -r file; do echo 0 >"$file"; done <"$1/cgroup-procs"
cd "$2" || exit 125
shift 2
exec setpriv --pdeathsig KILL -- "$@"
