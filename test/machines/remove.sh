#!/bin/bash
# Removes a lab: its processes, its cgroups, its directory. Started as
#   remove.sh LAB now     removes it
#   remove.sh LAB wait    removes it when stdin ends, that is when whoever holds the other end ends, however it ends
# Knows the lab by its directory's name alone. Links and namespaces go with the processes. Safe to repeat.
set -uo pipefail
lab=$1
id=$(basename "$lab")
[[ $id == faasd-lab-* ]] || exit 2
if [[ $2 == wait ]]; then
  exec 9>>"$lab/lock"
  flock --shared 9
  # Ctrl-C on a terminal is for the maker; the removal goes through.
  trap '' INT TERM HUP
  echo ready
  exec >/dev/null 2>&1
  while read -r _; do :; done
fi

# In a mount namespace of our own, because hugetlb as v1 (see boot.sh) is mounted in the machines' only.
exec unshare --mount --propagation private /bin/bash -s -- "$lab" "$id" <<'INNER'
set -uo pipefail
lab=$1 id=$2
if grep -q hugetlb /proc/self/cgroup && ! grep -q 'cgroup .*hugetlb' /proc/self/mounts; then
  mkdir -p "$lab/hugetlb"
  mount -t cgroup -o hugetlb cgroup "$lab/hugetlb"
fi
points=$(while read -r _ point type _; do [[ $type == cgroup || $type == cgroup2 ]] && echo "$point"; done </proc/self/mounts)
for attempt in {1..200}; do
  pids=$(for point in $points; do find "$point"/"$id"-* -name cgroup.procs -exec cat {} + 2>/dev/null; done | sort -un | grep -vx 0)
  [[ -n $pids ]] || break
  for state in $(for point in $points; do find "$point"/"$id"-* \( -name freezer.state -o -name cgroup.freeze \) 2>/dev/null; done); do
    case $state in *freezer.state) echo THAWED ;; *) echo 0 ;; esac >"$state" 2>/dev/null
  done
  kill -KILL $pids 2>/dev/null
  sleep 0.02
done
for attempt in {1..500}; do
  left=
  for point in $points; do
    find "$point"/"$id"-* -depth -type d -exec rmdir {} + 2>/dev/null
    compgen -G "$point/$id-*" >/dev/null && left=1
  done
  [[ -n $left ]] || break
  sleep 0.02
done
umount "$lab/hugetlb" 2>/dev/null
rm -rf --one-file-system "$lab"
[[ ! -e $lab && -z $left ]]
INNER
