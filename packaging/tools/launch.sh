# launch SOURCE ARG…: replaces this shell by the pinned Node on a source of the checkout. Sourced by the launchers, with
# `root` set. The CoreDNS that `run` installed comes last on PATH, so that an installed one is preferred.
source "$root/packaging/tools/versions.sh"

launch() {
  local source=$root/$1 node=$FAAS_TOOLS/node-$NODE_VERSION/bin/node
  shift
  if [[ ! -x $node ]]; then
    node=$(command -v node || true)
    if [[ -z $node || $("$node" -p 'Number(process.versions.node.split(".")[0]) >= 24') != true ]]; then
      echo "$(basename "$0"): Node 24 is not installed yet: run $root/run setup" >&2
      exit 1
    fi
  fi
  PATH=$PATH:$FAAS_TOOLS/coredns-$COREDNS_VERSION:$FAAS_TOOLS/coredns-$COREDNS_RELEASE exec "$node" "$source" "$@"
}
