# Versions of the tools that `run` installs, in one place. Sourced by bash; holds nothing but assignments.
#
# Each tool lies in "$FAAS_TOOLS/NAME-VERSION", complete or not at all: it is made aside and renamed in.

NODE_VERSION=24.22.3

# The official release, used where it can be reached. SHA-256 of the .tgz.
COREDNS_RELEASE=1.14.6
COREDNS_RELEASE_SHA256_amd64=4402578c8f7b95dac1d8258bfd13e7a9d30f70d7a53f396b02a6d6ca78d56152
COREDNS_RELEASE_SHA256_arm64=a99987b82977a791e232fcb828133cb645130481cc36af6e06fbf938326d2c3e
# What is built otherwise (packaging/coredns/go.mod says the same, go.sum pins every module), and the Go that builds it.
COREDNS_VERSION=1.15.0
COREDNS_OLDEST=1.10.0
GO_VERSION=1.26.8

FAAS_TOOLS=${FAAS_TOOLS_DIR:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/faasd/tools}

case $(uname -m) in
  x86_64) NODE_ARCH=x64 GO_ARCH=amd64 ;;
  aarch64) NODE_ARCH=arm64 GO_ARCH=arm64 ;;
  *) NODE_ARCH=unsupported GO_ARCH=unsupported ;;
esac
