# Sourced, not run: the Debian 12 packages that graft is built from, and how to get them.
# (ccache is used when it is there, but nothing needs it.)
# shellcheck shell=bash

# shellcheck disable=SC2034  # used by the scripts that source this file
graft_packages=(
  cmake g++ ninja-build pkg-config
  libopenblas-openmp-dev libfmt-dev nlohmann-json3-dev libcli11-dev libutf8proc-dev zlib1g-dev
  doctest-dev libbenchmark-dev gnuplot-nox
)
# For the sanitizers and the fuzzers.
# shellcheck disable=SC2034
clang_packages=(clang-14 libclang-rt-14-dev libomp-14-dev)

# Runs a command as root: directly, or through sudo.
as_root() {
  if ((EUID == 0)); then
    "$@"
  elif command -v sudo > /dev/null; then
    sudo "$@"
  else
    echo "packages: root is needed and sudo is not installed; run this as root: $*" >&2
    return 1
  fi
}

# install_packages NAME...: installs those that are missing; touches nothing when none is.
install_packages() {
  local name missing=()
  if ! command -v dpkg-query > /dev/null || ! command -v apt-get > /dev/null; then
    echo "packages: this is no Debian system; install the counterparts of these yourself: $*" >&2
    return 0
  fi
  for name in "$@"; do
    # "ii": wanted and installed. A removed package whose settings remain is "rc".
    [[ $(dpkg-query -W -f='${db:Status-Abbrev}' "$name" 2> /dev/null) == ii* ]] ||
      missing+=("$name")
  done
  ((${#missing[@]})) || return 0
  echo "packages: installing ${missing[*]}"
  as_root apt-get update -q || return
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -q -y --no-install-recommends "${missing[@]}"
}
