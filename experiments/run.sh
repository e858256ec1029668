#!/usr/bin/env bash
# The main result, from nothing: packages, build, data, run, report.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source experiments/packages.sh
unset OPENBLAS_CORETYPE

usage() {
  cat << 'END'
usage: experiments/run.sh [--quick] [option]...

Installs the packages that are missing (Debian 12; as root or with sudo), builds the cpu preset,
fetches the data, runs `graft main --out results/main` and says where its report is. A run that was
cut short goes on where it stopped.

  --quick      a small run that shows effects and intervals but gives no verdicts
  -h, --help   this text
  option       any other option is handed to `graft main` (its own: build/cpu/bin/graft main --help)
END
}

out=results/main
options=()
while (($#)); do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --out) out=${2:?experiments/run.sh: --out needs a folder}; shift ;;
    --out=*) out=${1#--out=} ;;
    *) options+=("$1") ;;
  esac
  shift
done

install_packages "${graft_packages[@]}"
cmake --preset cpu
cmake --build --preset cpu --parallel "$(nproc)"
experiments/data/fetch.sh
build/cpu/bin/graft main --out "$out" "${options[@]}"

reports=$(find "$out" -maxdepth 1 -name '*.html' | sort)
echo "report: ${reports:-$out}"
