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

cache=${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/graft
python=${PYTHON:-$cache/compare-venv/bin/python}
if [[ -z ${PYTHON:-} && ! -e $cache/compare-venv/ready ]]; then
  echo "making a virtual environment with torch, transformers and peft in $cache/compare-venv"
  python3 -m venv "$cache/compare-venv"
  # The build for the CPU is far smaller; where its index is out of reach, PyPI's will do.
  "$python" -m pip install -q torch==2.15.0 --index-url https://download.pytorch.org/whl/cpu ||
    "$python" -m pip install -q torch==2.15.0
  "$python" -m pip install -q transformers==5.23.0 peft==0.21.2 safetensors==0.8.0
  touch "$cache/compare-venv/ready"
fi
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
