#!/usr/bin/env bash
# Trains the smallest base, the decoder that experiments/quickstart.cpp and tests start from: 3
# layers x 96, a vocabulary of 1024, 430,752 parameters; for looking at, not for results. Killed at
# any moment it goes on where it was. Needs experiments/run.sh's packages and build, and the data of
# experiments/data/fetch.sh. Minutes on two cores.
#
#   experiments/bases/tiny.sh [FOLDER]
#
# FOLDER is experiments/bases/tiny.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
unset OPENBLAS_CORETYPE
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-2000}

usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }
fail() {
  echo "experiments/bases/tiny.sh: $*" >&2
  exit 1
}

if [[ ${1:-} == -h || ${1:-} == --help ]]; then usage; exit 0; fi
(($# <= 1)) || { usage >&2; exit 2; }
to=${1:-experiments/bases/tiny}
while [[ $to == */ && $to != / ]]; do to=${to%/}; done  # beside it lie TO.new and TO.old
graft=build/cpu/bin/graft
data=${GRAFT_DATA:-${XDG_CACHE_HOME:-$HOME/.cache}/graft/data}
run=${GRAFT_RUNS:-${XDG_CACHE_HOME:-$HOME/.cache}/graft/runs}/tiny
[[ -x $graft ]] || fail "$graft is not built; run experiments/run.sh first"
[[ -e $data/corpus.json ]] || "$graft" corpus  # the last of its files that is written

mkdir -p "$run"
ln -sf "$data/corpus.train.txt" "$run/corpus.train.txt"
[[ -e $run/tokenizer.json ]] || "$graft" tokenizer --data "$run" --vocab 1024
"$graft" pretrain --arch graft-tiny --tokenizer "$run/tokenizer.json" --out "$run" --batch 16 \
  --length 64 --lr 4e-3 --warmup 100 --steps 3000 --cooldown 900 --eval-every 500

mkdir -p "$(dirname "$to")"
rm -rf "$to.new"
cp -r "$run/model" "$to.new"
cp "$run/log.jsonl" "$to.new/pretraining.jsonl"
rm -rf "$to.old"
[[ ! -e $to ]] || mv "$to" "$to.old"
mv "$to.new" "$to"
rm -rf "$to.old"
echo "base: $to"
