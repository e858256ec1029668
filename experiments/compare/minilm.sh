#!/usr/bin/env bash
# MiniLM here against transformers, PyTorch and PEFT: the embeddings of 100 sentences, and LoRA on
# SST-2 from the same adapter file, batches and rates, step by step and over five seeds.
#
#   experiments/compare/minilm.sh SST2_FOLDER [--out FOLDER] [option of sst2_minilm.py]...
#
# SST2_FOLDER is GLUE's SST-2 as published (train.tsv, dev.tsv), which its licence keeps out of this
# tree. FOLDER is results/compare-minilm. Needs the build of experiments/run.sh. $PYTHON, or else a
# virtual environment made in the user's cache folder, has torch (for the CPU), transformers and
# peft. Some ten minutes on two cores; a seed that is done is not run again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
unset OPENBLAS_CORETYPE
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-2000}

usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }
fail() {
  echo "experiments/compare/minilm.sh: $*" >&2
  exit 1
}

case ${1:-} in
  -h | --help) usage; exit 0 ;;
  '') usage >&2; exit 2 ;;
esac
data=$1 out=results/compare-minilm
shift
if [[ ${1:-} == --out ]]; then out=${2:?--out needs a folder}; shift 2; fi
[[ -e $data/train.tsv && -e $data/dev.tsv ]] || fail "$data has no train.tsv and dev.tsv"
graft=build/cpu/bin/graft
[[ -x $graft ]] || fail "$graft is not built; run experiments/run.sh first"

source experiments/compare/python.sh
comparing_python
cache=${XDG_CACHE_HOME:-$HOME/.cache}/graft
base=${GRAFT_BASES:-$cache/bases}/minilm
experiments/bases/minilm.sh "$base"

mkdir -p "$out"
sentences=tests/fixtures/embed/sentences.txt
"$graft" embed --model "$base" --text "$sentences" --out "$out/mean.safetensors"
"$graft" embed --model "$base" --text "$sentences" --normalize --out "$out/normalized.safetensors"
"$python" tests/fixtures/embed/make_embeddings.py compare "$base" "$sentences" \
  "$out/mean.safetensors" "$out/normalized.safetensors"
"$python" experiments/compare/sst2_minilm.py --graft "$graft" --model "$base" --data "$data" \
  --out "$out/sst2" "$@"
