#!/bin/bash
# Process 1 of a machine: own cgroups, mounts and addresses, then reaping until the lab ends. Started by lab.ts as
#   unshare --mount --net --pid --uts --ipc --fork --kill-child boot.sh NAME DIRECTORY CHECKOUT TOOLS OPTIONS
# DIRECTORY is the machine's place in the lab's temporary directory; OPTIONS is a list of words: `own-tmp`, `openresolv`,
# `bare` (only cgroups: the machine that is the internet), `kept` (lives on when its maker ends).
# Nothing outside DIRECTORY is written: /etc, /opt, /usr and parts of /var are overlays whose upper layers lie there.
set -euo pipefail
name=$1 dir=$2 checkout=$3 tools=$4 options=" $5 " stage=${6:-cgroups}
lab=$(dirname "$dir")
group=$(basename "$lab")-$name
has() { [[ $options == *" $1 "* ]]; }

# The hierarchies' own options, without those that every mount has: `cpu,cpuacct`, `name=systemd`.
controllers_of() {
  local word out=()
  for word in ${1//,/ }; do
    case $word in rw | ro | relatime | noatime | nosuid | nodev | noexec | xattr | nsdelegate | memory_recursiveprot | release_agent=*) ;; *) out+=("$word") ;; esac
  done
  (IFS=, && echo "${out[*]}")
}

# Stage 1, in the host's cgroup namespace: a group of our own in every hierarchy, which becomes the machine's root.
if [[ $stage == cgroups ]]; then
  mount --make-rprivate /
  # crun refuses a hybrid layout whose unified hierarchy still has a controller: here hugetlb becomes v1.
  if [[ -d /sys/fs/cgroup/unified ]] && ! grep -q '^cgroup .*hugetlb' /proc/self/mounts; then
    mkdir -p "$lab/hugetlb"
    mount -t cgroup -o hugetlb cgroup "$lab/hugetlb" 2>/dev/null || true
  fi
  : >"$dir/hierarchies"
  while read -r _ point type settings _; do
    [[ $type == cgroup || $type == cgroup2 ]] || continue
    controllers=$(controllers_of "$settings")
    # A hierarchy can be mounted twice; its group must not be joined twice.
    grep -qxF "$type $controllers" "$dir/hierarchies" && continue
    mkdir -p "$point/$group"
    for file in cpuset.cpus cpuset.mems; do
      [[ $type == cgroup && -e $point/$group/$file ]] && cat "$point/$file" >"$point/$group/$file"
    done
    if [[ $type == cgroup2 ]]; then
      for controller in $(<"$point/cgroup.controllers"); do
        echo "+$controller" >"$point/cgroup.subtree_control" 2>/dev/null || true
      done
      # The namespace's root must stay empty of processes, or no controller can be enabled below it.
      mkdir -p "$point/$group/init"
    fi
    echo $$ >"$point/$group/cgroup.procs" 2>/dev/null || continue
    echo "$type $controllers" >>"$dir/hierarchies"
  done </proc/self/mounts
  exec unshare --cgroup "$0" "$name" "$dir" "$checkout" "$tools" "$5" mounts
fi

# Stage 2: in our cgroup namespace, so that what is mounted now shows our groups as the root.
ip link set lo up
hostname "$name"
if ! has bare; then
  mkdir -p "$dir"/{upper,work,faasd,home,tmp}
  chmod 1777 "$dir/tmp"
  # What must stay the same files even if an overlay or a tmpfs covers its place: held open until then.
  mkdir -p "$tools"
  exec {lab_fd}<"$lab" {checkout_fd}<"$checkout" {tools_fd}<"$tools"
  for place in etc opt usr srv var/lib var/log; do
    [[ -d /$place ]] || continue
    mkdir -p "$dir/upper/$place" "$dir/work/$place"
    mount -t overlay overlay -o "lowerdir=/$place,upperdir=$dir/upper/$place,workdir=$dir/work/$place" "/$place" || {
      echo "cannot lay an overlay over /$place: is $lab on a file system that can be an overlay's upper layer? (TMPDIR says where)"
      exit 1
    }
  done
  mount -t tmpfs -o mode=755 tmpfs /run
  mkdir -p /run/lock /run/sshd
  if has own-tmp; then mount --bind "$dir/tmp" /tmp; fi
  mount -t proc proc /proc
  mount -t sysfs sysfs /sys
  mount -t tmpfs -o mode=1777 tmpfs /dev/shm
  for pair in "$lab_fd:$lab" "$checkout_fd:$checkout" "$tools_fd:$tools"; do
    mkdir -p "${pair#*:}"
    mount --no-canonicalize --bind "/proc/self/fd/${pair%%:*}" "${pair#*:}"
  done
  exec {lab_fd}<&- {checkout_fd}<&- {tools_fd}<&-
  rm -rf /var/lib/faasd && mkdir -p /var/lib/faasd
  # faasd's layers become the lower layers of overlays, so they cannot lie on one.
  mount --bind "$dir/faasd" /var/lib/faasd

  # What the host has of its own (a real faasd perhaps) does not belong to this machine.
  rm -rf /etc/wireguard /etc/coredns /opt/faas /etc/resolv.conf /usr/local/bin/{node,faas,faasd,coredns}
  echo '# no resolver' >/etc/resolv.conf
  echo "$name" >/etc/hostname
  printf '127.0.0.1 localhost %s\n::1 localhost\n' "$name" >/etc/hosts
  sed -i 's/^hosts:.*/hosts: files dns/' /etc/nsswitch.conf
  sed -i "s|^\(root:[^:]*:[^:]*:[^:]*:[^:]*\):[^:]*:|\1:$dir/home:|" /etc/passwd
  mkdir -p /usr/local/bin
  source "$checkout/packaging/tools/versions.sh"
  ln -s "$tools/node-$NODE_VERSION/bin/node" /usr/local/bin/node
  for directory in "$tools/coredns-$COREDNS_VERSION" "$tools/coredns-$COREDNS_RELEASE"; do
    if [[ -x $directory/coredns ]]; then ln -sf "$directory/coredns" /usr/local/bin/coredns; fi
  done
  for program in faas faasd; do
    # Not a link: sudo hands down no environment that would say where the tools are.
    printf '#!/bin/sh\nexport FAAS_TOOLS_DIR=%q\nexec %q "$@"\n' "$tools" "$checkout/$program" >"/usr/local/bin/$program"
    chmod +x "/usr/local/bin/$program"
  done
  if has openresolv && [[ -d $tools/openresolv ]]; then
    cp -a "$tools/openresolv/etc/resolvconf.conf" /etc/
    cp -a "$tools/openresolv/lib/resolvconf" /usr/lib/
    cp -a "$tools/openresolv/sbin/resolvconf" /usr/sbin/
  fi

  : >"$dir/cgroup-procs"
  unified=/sys/fs/cgroup
  if [[ $(wc -l <"$dir/hierarchies") -gt 1 || $(<"$dir/hierarchies") != cgroup2* ]]; then
    unified=/sys/fs/cgroup/unified
    mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
  fi
  while read -r type controllers; do
    if [[ $type == cgroup2 ]]; then
      mkdir -p "$unified"
      mount -t cgroup2 cgroup2 "$unified"
      echo $$ >"$unified/init/cgroup.procs"
      for controller in $(<"$unified/cgroup.controllers"); do
        echo "+$controller" >"$unified/cgroup.subtree_control" 2>/dev/null || true
      done
      echo "$unified/init/cgroup.procs" >>"$dir/cgroup-procs"
    else
      point=/sys/fs/cgroup/${controllers#name=}
      mkdir -p "$point"
      case $controllers in name=*) mount -t cgroup -o "none,$controllers" cgroup "$point" ;; *) mount -t cgroup -o "$controllers" cgroup "$point" ;; esac
      echo "$point/cgroup.procs" >>"$dir/cgroup-procs"
    fi
  done <"$dir/hierarchies"
fi

echo ready
exec >/dev/null 2>&1
if has kept; then
  exec 9>>"$lab/lock"
  flock --shared 9
  trap 'exit 0' TERM
  # Bash reaps whatever becomes its child while it waits.
  while :; do
    sleep 3600 &
    wait $! || true
  done
fi
# The maker holds the other end of this pipe: when it ends, however it ends, so does the machine.
while read -r _; do :; done
