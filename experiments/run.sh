#!/usr/bin/env bash
# The main result, from nothing: packages, data, build, run, report.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source experiments/packages.sh
unset OPENBLAS_CORETYPE
# An idle thread that spins takes the core from the thread it waits for when the machine is busy.
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-2000}

usage() {
  cat << 'END'
usage: experiments/run.sh [--quick] [option]...

Installs the packages that are missing (Debian 12; as root or with sudo), fetches the data, builds
the programs of the cpu preset (not its tests), runs `graft main --out results/main` and says where
its report is. A run that was cut short goes on where it stopped.

  --quick      a small run that shows effects and intervals but gives no verdicts
  -h, --help   this text
  option       any other option is handed to `graft main` (its own: build/cpu/bin/graft main --help)
END
}

out=results/main
asked=''  # minutes
options=()
while (($#)); do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --out) out=${2:?experiments/run.sh: --out needs a folder}; shift ;;
    --out=*) out=${1#--out=} ;;
    --minutes) asked=${2:?experiments/run.sh: --minutes needs a number}; shift ;;
    --minutes=*) asked=${1#--minutes=} ;;
    *) options+=("$1") ;;
  esac
  shift
done

[[ -z $asked || $asked =~ ^([0-9]+[.]?[0-9]*|[.][0-9]+)$ ]] || {
  echo "experiments/run.sh: --minutes '$asked' is no number" >&2
  exit 2
}

install_packages "${graft_packages[@]}"
experiments/data/fetch.sh  # without a network this fails, and a build takes minutes
cmake --preset cpu
cmake --build --preset programs --parallel "$(nproc)"

# An option that `graft main` does not have is said before a base is trained for it.
known=$(build/cpu/bin/graft main --help)
for option in "${options[@]}"; do
  if [[ $option == -* ]] && ! grep -qE -- "(^|[ ,])${option%%=*}([ ,=]|\$)" <<< "$known"; then
    echo "experiments/run.sh: graft main has no option '${option%%=*}'; see" \
      "build/cpu/bin/graft main --help" >&2
    exit 2
  fi
done

# Until a base trained to the end comes with the source, a stand-in is trained here for a few
# minutes. It is weak, the page says which base it was, and claims are then outside their regime.
minutes=28
if [[ ! -e experiments/bases/encoder/config.json ]]; then
  export GRAFT_BASES=${GRAFT_BASES:-$PWD/results/bases}
  if [[ ! -e $GRAFT_BASES/encoder/config.json ]]; then
    echo "no trained base: training a stand-in (300 steps, some minutes; resumes if cut short)"
    data=${GRAFT_DATA:-${XDG_CACHE_HOME:-$HOME/.cache}/graft/data}
    [[ -e $data/corpus.json ]] || build/cpu/bin/graft corpus  # written last
    [[ -e $data/tokenizer.json ]] || build/cpu/bin/graft tokenizer
    build/cpu/bin/graft pretrain --arch graft-encoder --out results/pretrain-stand-in --steps 300 \
      --lr 1e-3 --masking 0.2 --warmup 50 --cooldown 100 --eval-every 50 --save-minutes 1
    mkdir -p "$GRAFT_BASES"
    rm -rf "$GRAFT_BASES/.encoder"
    cp -r results/pretrain-stand-in/model "$GRAFT_BASES/.encoder"
    mv "$GRAFT_BASES/.encoder" "$GRAFT_BASES/encoder"
    minutes=20
  fi
fi
build/cpu/bin/graft main --out "$out" --minutes "${asked:-$minutes}" "${options[@]}"

reports=$(find "$out" -maxdepth 1 -name '*.html' | sort)
echo "report: ${reports:-$out}"
