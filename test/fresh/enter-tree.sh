#!/bin/bash
# enter-tree.sh TREE PROGRAM ARG…: becomes PROGRAM in a Debian tree as its root, with the host's network and devices. Started as
#   unshare --mount --pid --fork --kill-child enter-tree.sh …
# The tree is made the root by pivot_root and not by chroot, so that the demo's own mount namespaces work as on a machine.
set -euo pipefail
tree=$1
shift
mount --make-rprivate /
mount --bind "$tree" "$tree"
mount --rbind /sys "$tree/sys"
mount --rbind /dev "$tree/dev"
mount -t proc proc "$tree/proc"
mount -t tmpfs tmpfs "$tree/run"
cd "$tree"
pivot_root . mnt
umount --lazy /mnt
cd /root/faasd
exec "$@"
