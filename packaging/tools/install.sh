# Makes sure of the programs that `run` needs: Debian packages, the pinned Node, node_modules, CoreDNS.
#
# Sourced by bash (`set -euo pipefail`), after versions.sh, with `root` set to the checkout. Every function is idempotent,
# says nothing when there is nothing to do, tells what it does on stderr otherwise, and ends the script when it cannot.
# Safe with two at once: one lock, and tools are made aside and renamed in.

say() { printf '%s\n' "$*" >&2; }
fail() {
  say "run: $*"
  exit 1
}

# attempt LABEL COMMAND…: runs a command with its output kept aside; prints the label, the time it takes, and its last lines
# if it fails. `set -e` holds inside COMMAND only where attempt is not part of a condition.
attempt() {
  local label=$1 log begin=$SECONDS pid beat=15 code=0
  shift
  log=$(mktemp)
  say "[setup] $label …"
  # A process group of its own, so that Ctrl-C ends all of it.
  set -m
  "$@" >"$log" 2>&1 </dev/null &
  set +m
  pid=$!
  trap "kill -TERM -- -$pid 2>/dev/null; rm -f '$log'" EXIT
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.2
    if ((SECONDS - begin >= beat)); then
      say "[setup]   $((SECONDS - begin)) s: $(tail -n 1 "$log" | cut -c 1-120)"
      beat=$((beat + 15))
    fi
  done
  wait "$pid" || code=$?
  trap - EXIT
  if ((code != 0)); then
    tail -n 20 "$log" >&2
    rm -f "$log"
    say "[setup] $label: failed with exit code $code"
    return "$code"
  fi
  rm -f "$log"
  say "[setup]   done in $((SECONDS - begin)) s"
}

# step LABEL COMMAND…: an attempt that ends the script when it fails (by `set -e`).
step() { attempt "$@"; }

# One installation at a time. The descriptor stays open until the script ends or calls unlock_tools.
lock_tools() {
  mkdir -p "$FAAS_TOOLS"
  exec 9>"$FAAS_TOOLS/.lock"
  flock -n 9 || {
    say '[setup] waiting for another installation to end …'
    flock 9
  }
  # What an installation that was ended left aside.
  rm -rf "$FAAS_TOOLS"/.new-{node,coredns,openresolv}-*
}
unlock_tools() { exec 9>&-; }

# need_programs PROGRAM:PACKAGE…: installs the Debian packages of the programs that are missing.
need_programs() {
  local pair missing=()
  for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
  done
  if ((${#missing[@]} > 0)); then install_packages "${missing[@]}"; fi
}

install_packages() {
  command -v apt-get >/dev/null || fail "install these first (there is no apt-get here to do it): $*"
  ((EUID == 0)) || fail "run this as root, or install these first: $*"
  step "installing Debian packages: $*" apt_install "$@"
}

apt_install() {
  local options=(-y -q --no-install-recommends -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0)
  export DEBIAN_FRONTEND=noninteractive
  apt-get install "${options[@]}" "$@" || { apt-get update -q && apt-get install "${options[@]}" "$@"; }
}

# WireGuard of the kernel, or wireguard-go. The kernel is asked in a network namespace that goes at once.
need_wireguard() {
  command -v wireguard-go >/dev/null && return
  ((EUID == 0)) && unshare --net ip link add faasd-probe type wireguard 2>/dev/null && return
  install_packages wireguard-go
}

need_node() {
  local target=$FAAS_TOOLS/node-$NODE_VERSION
  PATH=$target/bin:$PATH
  [[ -x $target/bin/node ]] && return
  [[ $NODE_ARCH != unsupported ]] || fail "no pinned Node for $(uname -m)"
  lock_tools
  if [[ ! -x $target/bin/node ]]; then
    need_programs npm:npm
    step "installing Node $NODE_VERSION" install_node "$target"
  fi
  unlock_tools
  hash -r
}

install_node() {
  local aside
  aside=$(mktemp -d "$FAAS_TOOLS/.new-node-XXXXXX")
  cp "$root/packaging/node/$NODE_ARCH"/package*.json "$aside"
  (cd "$aside" && npm ci --ignore-scripts --no-audit --no-fund)
  "$aside/node_modules/node-linux-$NODE_ARCH/bin/node" --version
  mv -T "$aside/node_modules/node-linux-$NODE_ARCH" "$1"
  rm -rf "$aside"
}

# node_modules at the state of package-lock.json.
need_modules() {
  node "$root/packaging/tools/modules-state.ts" "$root" && return
  lock_tools
  if ! node "$root/packaging/tools/modules-state.ts" "$root"; then
    need_programs npm:npm
    step 'installing the npm packages of package-lock.json' install_modules
  fi
  unlock_tools
}

install_modules() { (cd "$root" && npm ci --ignore-scripts --no-audit --no-fund); }

# CoreDNS: an installed one, else one made earlier, else the official release, else built. Puts its directory on PATH.
need_coredns() {
  local directory
  if command -v coredns >/dev/null && at_least "$(coredns_version coredns)" "$COREDNS_OLDEST"; then return; fi
  for directory in "$FAAS_TOOLS/coredns-$COREDNS_VERSION" "$FAAS_TOOLS/coredns-$COREDNS_RELEASE"; do
    [[ -x $directory/coredns ]] && {
      PATH=$directory:$PATH
      return
    }
  done
  lock_tools
  if [[ ! -x $FAAS_TOOLS/coredns-$COREDNS_VERSION/coredns && ! -x $FAAS_TOOLS/coredns-$COREDNS_RELEASE/coredns ]]; then
    if ! attempt "fetching the CoreDNS $COREDNS_RELEASE release" fetch_coredns; then
      say '[setup] the release cannot be had from here; building CoreDNS from its Go module instead'
      need_go
      step "building CoreDNS $COREDNS_VERSION (the Go modules it needs are fetched first)" build_coredns
    fi
  fi
  unlock_tools
  need_coredns
}

coredns_version() { "$1" -version 2>/dev/null | sed -n 's/^CoreDNS-//p'; }
at_least() { [[ -n $1 && $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]; }

fetch_coredns() {
  local aside expected=COREDNS_RELEASE_SHA256_$GO_ARCH
  local name=coredns_${COREDNS_RELEASE}_linux_$GO_ARCH.tgz
  aside=$(mktemp -d "$FAAS_TOOLS/.new-coredns-XXXXXX")
  if curl --fail --silent --show-error --location --connect-timeout 4 --max-time 180 --output "$aside/$name" \
    "https://github.com/coredns/coredns/releases/download/v$COREDNS_RELEASE/$name" &&
    printf '%s  %s\n' "${!expected}" "$aside/$name" | sha256sum --check --strict &&
    tar -xzf "$aside/$name" -C "$aside" coredns; then
    rm "$aside/$name"
    mv -T "$aside" "$FAAS_TOOLS/coredns-$COREDNS_RELEASE"
  else
    rm -rf "$aside"
    return 1
  fi
}

# A Go that can become GO_VERSION by itself (1.21 and newer), or any older one, which fetches it as a module.
need_go() { need_programs go:golang-go; }

build_coredns() (
  set -e
  aside=$(mktemp -d "$FAAS_TOOLS/.new-coredns-XXXXXX")
  trap 'rm -rf "$aside"' EXIT
  export GOPATH=$aside/gopath GOCACHE=$aside/gocache GOFLAGS='-modcacherw -buildvcs=false' CGO_ENABLED=0
  mkdir "$aside/out"
  go=go
  if at_least "$(go env GOVERSION | sed 's/^go//')" "$GO_VERSION"; then
    export GOTOOLCHAIN=local
  elif at_least "$(go env GOVERSION | sed 's/^go//')" 1.21; then
    export GOTOOLCHAIN=go$GO_VERSION
  else
    echo "fetching Go $GO_VERSION as a module"
    goroot=$(cd "$aside" && go mod download -json "golang.org/toolchain@v0.0.1-go$GO_VERSION.linux-$GO_ARCH" |
      sed -n 's/^\t"Dir": "\(.*\)",\{0,1\}$/\1/p')
    # A module's files come without their executable bits.
    chmod +x "$goroot"/bin/* "$goroot"/pkg/tool/*/* 2>/dev/null || true
    export GOROOT=$goroot GOTOOLCHAIN=local
    go=$goroot/bin/go
  fi
  "$go" version
  cd "$root/packaging/coredns"
  "$go" mod download -x
  echo compiling
  "$go" build -mod=readonly -trimpath -ldflags '-s -w' -o "$aside/out/coredns" .
  [[ $(coredns_version "$aside/out/coredns") == "$COREDNS_VERSION" ]]
  mv -T "$aside/out" "$FAAS_TOOLS/coredns-$COREDNS_VERSION"
)

# openresolv for the *device* machine alone, unpacked and not installed, because installing it would take over this host's
# /etc/resolv.conf. Without it a device is told to configure DNS by hand.
need_openresolv() {
  [[ -d $FAAS_TOOLS/openresolv ]] && return
  command -v apt-get >/dev/null || return 0
  lock_tools
  if [[ ! -d $FAAS_TOOLS/openresolv ]]; then step 'fetching openresolv for the device' fetch_openresolv; fi
  unlock_tools
}

fetch_openresolv() (
  set -e
  aside=$(mktemp -d "$FAAS_TOOLS/.new-openresolv-XXXXXX")
  trap 'rm -rf "$aside"' EXIT
  cd "$aside"
  apt-get download -q openresolv || { apt-get update -q && apt-get download -q openresolv; }
  dpkg-deb -x openresolv_*.deb tree
  # Where /usr is not merged in the package (Debian 12 and older) or is (newer): one form.
  for place in lib sbin; do [[ -e tree/$place/resolvconf ]] || cp -a "tree/usr/$place" tree/; done
  mv -T tree "$FAAS_TOOLS/openresolv"
)
