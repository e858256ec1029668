#!/usr/bin/env bash
# The same training steps here and in PyTorch + Hugging Face PEFT: time, peak memory, start.
#
#   experiments/bench/against_pytorch.sh [option]...
#
#   --workloads A,B   gpt2, bert, encoder-8, encoder-32, llama; on a device llama-1b, too; all
#   --methods A,B     full, lora-qv, lora-all, houlsby, prefix, prompt, llama-adapter, bitfit; all
#   --steps N         turns of each cell (20); one cell of them takes a minute or some
#   --threads N       on both sides; as many as there are cores
#   --starts N        how often both programs are started (1)
#   --batches N       different ones (40)
#   --device cuda     both on the device, ours by the cuda preset; memory is then the device's
#   --compute bf16    there: what is frozen in bf16, what trains in f32
#   --compile         PyTorch's side by torch.compile, which is eager otherwise
#   --build FOLDER    where bench_train is built (build/cpu; with --device cuda build/cuda)
#   --sst2 FOLDER     GLUE's SST-2 as published: bert's texts are as long as its sentences, and
#   --tokenizer FOLDER  BERT's, which says how long; without them the sentences of our own task
#                     acceptability_wn, and the shipped encoder's tokenizer
#   --out FOLDER      results/against-pytorch, with the device, type and "compiled" behind it where
#                     they are others: models, cells, against_pytorch.json, figures
#
# Both sides open the same folders: weights, the adapter's first values, tokens. A cell whose losses
# or gradients differ is void, and then the exit status is 1. A cell that is run again takes the
# place of its earlier run in the file. Needs the preset built, and for `encoder-*`, and for `bert`
# without --sst2, the data of experiments/run.sh. $PYTHON, or else a virtual environment made in the
# user's cache folder, has torch, transformers and peft; for a device torch must be built for CUDA.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
unset OPENBLAS_CORETYPE

usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }
fail() {
  echo "experiments/bench/against_pytorch.sh: $*" >&2
  exit 1
}

out='' build='' where='' compiled='' options=() preset=cpu
while (($#)); do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --build) build=${2:?--build needs a folder}; shift 2 ;;
    --out) out=${2:?--out needs a folder}; shift 2 ;;
    --device)
      [[ ${2:?--device needs cpu or cuda} == cpu ]] || preset=cuda where=-cuda$where
      options+=("$1" "$2"); shift 2 ;;
    --compute)
      [[ ${2:?--compute needs f32 or bf16} == f32 ]] || where+=-$2
      options+=("$1" "$2"); shift 2 ;;
    --workloads | --methods | --steps | --threads | --starts | --batches | --sst2 | --tokenizer)
      options+=("$1" "${2:?$1 needs a value}"); shift 2 ;;
    --compile) options+=("$1") compiled=-compiled; shift ;;
    *) fail "unknown option $1; --help lists them" ;;
  esac
done
out=${out:-results/against-pytorch$where$compiled}
bench=${build:-build/$preset}/bin/bench_train
how="cmake --preset $preset && cmake --build --preset $preset"
[[ -z $build ]] || how="--build says where"
[[ -x $bench ]] || fail "$bench is not built; $how"
source experiments/compare/python.sh
comparing_python

mkdir -p "$out"
status=0
"$python" experiments/bench/against_pytorch.py --bench-train "$bench" --out "$out" --work "$out" \
  "${options[@]}" || status=$?
if [[ -e $out/against_pytorch.json ]]; then
  "$bench" draw "$out/against_pytorch.json" "$out/against_pytorch"
fi
exit "$status"
