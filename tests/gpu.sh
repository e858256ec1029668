#!/usr/bin/env bash
# Everything that only a CUDA device can show: builds, runs the device's tests, looks for wrong
# accesses and races in them, measures steps of training, and prints one table. Needs CUDA, CMake 3.23
# and a C++20 compiler, and a device; of libraries no more than what --pack has put aside.
#
#   tests/gpu.sh [option]...   everything; every part has a limit, with the build it is an hour or so
#                              at most
#     --parts A,B              these of tests, steps, contract, pytorch, memcheck, racecheck; what is
#                              built already is not built again
#     --quick                  without the last three, which take longest
#     --logs FOLDER            where logs go (build/gpu-logs), and the table, row by row: what was
#                              shown stays where a run is cut off
#   tests/gpu.sh --pack        on a machine with Debian's packages: puts the libraries' headers and
#                              static archives (3 MB) into build/gpu-pack, which may then travel with
#                              the source to a machine that has none of them
#
# The part `pytorch` needs $PYTHON (python3) with torch for CUDA, transformers and peft. The last line
# is "N passed, N failed, N skipped".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
pack=build/gpu-pack

usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }

put_aside() {
  # shellcheck source=experiments/packages.sh
  source experiments/packages.sh
  install_packages "${graft_packages[@]}"
  local libraries
  libraries=$(pkg-config --variable=libdir libutf8proc)
  rm -rf "$pack.new"
  mkdir -p "$pack.new/include" "$pack.new/lib"
  cp -r /usr/include/{fmt,nlohmann,CLI,doctest} "$pack.new/include"
  cp /usr/include/{utf8proc,zlib,zconf}.h "$pack.new/include"
  cp "$libraries"/{libutf8proc,libz}.a "$pack.new/lib"
  rm -rf "$pack"
  mv "$pack.new" "$pack"
  du -sh "$pack"
}

wrong() { echo "tests/gpu.sh: $*; see --help" >&2; exit 2; }

all=(tests steps contract pytorch memcheck racecheck)
logs=build/gpu-logs parts=("${all[@]}")
while (($#)); do
  case $1 in
    --pack) put_aside; exit ;;
    --quick) parts=(tests steps contract) ;;
    --parts) IFS=, read -ra parts <<< "${2:?--parts needs names}"; shift ;;
    --logs) logs=${2:?--logs needs a folder}; shift ;;
    -h | --help) usage; exit ;;
    *) wrong "unknown option '$1'" ;;
  esac
  shift
done
for part in "${parts[@]}"; do
  [[ " ${all[*]} " == *" $part "* ]] || wrong "part '$part' is unknown; there are ${all[*]}"
done
wanted() { [[ " ${parts[*]} " == *" $1 "* ]]; }

source tests/counting.sh
mkdir -p "$logs"
: > "$logs/table"
# row NAME RESULT: a line of the table.
row() { printf '%-52s %s\n' "$1" "$2" | tee -a "$logs/table"; }

stage "device"
if ! nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader; then
  failure "nvidia-smi finds no device: this script is for a machine with one"
  exit
fi

stage "build"
options=(-DCMAKE_BUILD_TYPE=Release -DGRAFT_CUDA=ON -DGRAFT_UNITY=ON)
# For this device alone: half of what there is to compile.
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)
[[ ! $capability =~ ^[0-9]+$ ]] || options+=("-DCMAKE_CUDA_ARCHITECTURES=$capability")
[[ ! -d $pack ]] || options+=("-DGRAFT_PACK=$PWD/$pack")
if command -v ninja > /dev/null; then options+=(-G Ninja); fi
cmake -S . -B build/gpu "${options[@]}"
cmake --build build/gpu --parallel "$(nproc)" --target graft_gpu_tests bench_device bench_train graft
bin=build/gpu/bin
contract='methods keep the contract*'

if wanted tests; then
  stage "tests on the device"
  run_tests timeout 240 "$bin/graft_gpu_tests" -d -tce="$contract" > >(tee "$logs/tests")
  row "kernels, ops, gradients, runs" "$passed passed, $failed failed, $skipped skipped"
  if ((skipped > 0)); then failure "tests are skipped though there is a device"; fi
fi

# steps NAME LIMIT OPTION...: bench_device, its table in the log NAME.
steps() {
  stage "steps of training: $1"
  if timeout "$2" "$bin/bench_device" "${@:3}" | tee "$logs/$1"; then
    row "steps of training, $1" "measured"
  else
    row "steps of training, $1" "FAILED"
    failure "bench_device ${*:3}"
  fi
}
if wanted steps; then
  # What says most first, where the device is lent for minutes. With --host two steps' losses are
  # compared with the host's, within 1e-3, in bf16 within 1e-2.
  steps llama-1b 200 10 llama-1b lora-qv,lora-all --bf16
  steps gpt2-bf16 200 20 gpt2 --bf16 --host
  steps gpt2 200 20 gpt2 --host
  steps llama-bf16 100 10 llama --bf16
  steps llama 100 10 llama
fi

if wanted contract; then
  stage "the contract of every method"
  before=$failed before_skipped=$skipped
  run_tests timeout 400 "$bin/graft_gpu_tests" -d -tc="$contract" > >(tee "$logs/contract")
  if ((skipped > before_skipped)); then failure "the contract is skipped though there is a device"; fi
  row "contract of every method, three bodies" "$((failed - before)) failed"
fi

# beside NAME LIMIT OPTION...: steps in turns with PyTorch's.
beside() {
  stage "beside PyTorch: $1"
  if PYTHON=$python timeout "$2" experiments/bench/against_pytorch.sh --build build/gpu \
    --out "$logs/pytorch-$1" --device cuda "${@:3}" | tee "$logs/pytorch-$1.log"; then
    row "beside PyTorch, $1" "losses and gradients agree"
  else
    row "beside PyTorch, $1" "FAILED"
    failure "against_pytorch.sh --device cuda ${*:3}"
  fi
}
if wanted pytorch; then
  python=${PYTHON:-python3}
  if "$python" -c 'import peft, torch, transformers; assert torch.cuda.is_available()'; then
    beside gpt2 240 --workloads gpt2 --methods lora-qv,lora-all,houlsby,prefix
    beside gpt2-bf16 240 --workloads gpt2 --methods lora-qv,lora-all,houlsby,prefix --compute bf16
    beside llama-1b 240 --workloads llama-1b --methods lora-qv,lora-all --compute bf16 --steps 8
    beside llama-1b-compiled 300 --workloads llama-1b --methods lora-qv --compute bf16 --compile \
      --steps 8
  else
    row "beside PyTorch" "FAILED: no torch for CUDA, transformers and peft"
    failure "beside PyTorch: $python has no torch for CUDA, transformers and peft; name one in PYTHON"
  fi
fi

# sanitized TOOL LOG TEST-OPTION...: compute-sanitizer on our kernels.
sanitized() {
  local tool
  tool=$(command -v compute-sanitizer || echo "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer")
  timeout 400 "$tool" --tool "$1" --kernel-name kns=graft --error-exitcode 9 \
    "$bin/graft_gpu_tests" "${@:3}" > "$logs/$2" 2>&1
}
# Some drivers, and machines that stand in for one, do not let it look.
looks=yes
if wanted memcheck || wanted racecheck; then
  sanitized memcheck probe -tc='memory of the device is counted*' || true
  if ! grep -qa 'ERROR SUMMARY' "$logs/probe"; then
    looks=no
    why=$(grep -aiE -m 1 'not supported|unable to|failed to' "$logs/probe" || tail -n 1 "$logs/probe")
    row "compute-sanitizer" "not run: $why"
    skipped=$((skipped + 1))
  fi
fi
if [[ $looks == yes ]] && wanted memcheck; then
  stage "memcheck finds a wrong read that is made on purpose"
  GRAFT_WILD_READ=1 sanitized memcheck wild-read -tc='a wild read*' || true  # the test fails with it
  if grep -qaE 'Invalid __global__ read' "$logs/wild-read"; then
    row "compute-sanitizer memcheck, a wild read" "found"
  else
    row "compute-sanitizer memcheck, a wild read" "FAILED: not found; $logs/wild-read"
    failure "compute-sanitizer does not look at our kernels"
  fi
fi
for check in memcheck racecheck; do
  if [[ $looks == no ]] || ! wanted "$check"; then continue; fi
  stage "$check"
  if sanitized "$check" "$check" --source-file='*ops_test*,*kernels_test*' -tce='in half precision*' &&
    ! grep -qa SKIPPED "$logs/$check" && grep -qaE 'SUMMARY: 0 (errors|hazards)' "$logs/$check"; then
    row "compute-sanitizer $check" clean
  else
    row "compute-sanitizer $check" "FAILED: $logs/$check"
    tail -n 20 "$logs/$check"
    failure "compute-sanitizer $check"
  fi
done

end_stage
echo
cat "$logs/table"
! wanted steps || cat "$logs"/{gpt2,gpt2-bf16,llama,llama-bf16,llama-1b}
