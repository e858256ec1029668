#!/usr/bin/env bash
# Everything that only a CUDA device can show: builds, runs the device's tests, looks for wrong
# accesses and races in them, measures steps of training, and prints one table. Needs CUDA, CMake 3.23
# and a C++20 compiler, and a device; of libraries no more than what --pack has put aside.
#
#   tests/gpu.sh [--quick]     everything; --quick leaves out compute-sanitizer, the longest part.
#                              Every part has a limit of some minutes.
#   tests/gpu.sh --pack        on a machine with Debian's packages: puts the libraries' headers and
#                              static archives (3 MB) into build/gpu-pack, which may then travel with
#                              the source to a machine that has none of them
#
# The last line is "N passed, N failed, N skipped"; logs are kept in build/gpu-logs.
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

quick=no
case ${1:-} in
  --pack) put_aside; exit ;;
  --quick) quick=yes ;;
  -h | --help) usage; exit ;;
  '') ;;
  *) echo "tests/gpu.sh: unknown option '$1'; see --help" >&2; exit 2 ;;
esac

source tests/counting.sh
logs=build/gpu-logs
mkdir -p "$logs"
table=''
# row NAME RESULT: a line of the table at the end.
row() { table+=$(printf '%-52s %s' "$1" "$2")$'\n'; }

stage "device"
if ! nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader; then
  failure "nvidia-smi finds no device: this script is for a machine with one"
  exit
fi

stage "build"
options=(-DCMAKE_BUILD_TYPE=Release -DGRAFT_CUDA=ON -DGRAFT_UNITY=ON)
[[ ! -d $pack ]] || options+=("-DGRAFT_PACK=$PWD/$pack")
if command -v ninja > /dev/null; then options+=(-G Ninja); fi
cmake -S . -B build/gpu "${options[@]}"
cmake --build build/gpu --parallel "$(nproc)" --target graft_gpu_tests bench_device graft
bin=build/gpu/bin

stage "tests on the device"
contract='methods keep the contract*'
run_tests timeout 240 "$bin/graft_gpu_tests" -d -tce="$contract" > >(tee "$logs/tests")
row "kernels, ops, gradients, runs" "$passed passed, $failed failed, $skipped skipped"
if ((skipped > 0)); then failure "tests are skipped though there is a device"; fi

stage "steps of training, GPT-2 small's shape"
if timeout 200 "$bin/bench_device" 20 gpt2 --host | tee "$logs/gpt2"; then
  row "two steps' losses, device and host" "within 1e-3"
else
  failure "bench_device gpt2"
fi
stage "the same in bf16"
if timeout 200 "$bin/bench_device" 20 gpt2 --bf16 --host | tee "$logs/gpt2-bf16"; then
  row "two steps' losses, bf16 on the device, f32 on the host" "within 1e-2"
else
  failure "bench_device gpt2 --bf16"
fi
stage "steps of training, LLaMA's shape, 2048 tokens a sequence"
timeout 100 "$bin/bench_device" 10 llama | tee "$logs/llama" || failure "bench_device llama"
timeout 100 "$bin/bench_device" 10 llama --bf16 | tee "$logs/llama-bf16" ||
  failure "bench_device llama --bf16"
stage "steps of training, LLaMA's shape with 1 G parameters, 4 x 2048 tokens, bf16"
timeout 200 "$bin/bench_device" 10 llama-1b lora-qv,lora-all --bf16 | tee "$logs/llama-1b" ||
  failure "bench_device llama-1b --bf16"

stage "the contract of every method"
before=$failed
run_tests timeout 400 "$bin/graft_gpu_tests" -d -tc="$contract" > >(tee "$logs/contract")
row "contract of every method, three bodies" "$((failed - before)) failed"

if [[ $quick == no ]]; then
  tool=$(command -v compute-sanitizer || echo "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer")
  for check in memcheck racecheck; do
    stage "$check"
    if timeout 400 "$tool" --tool "$check" --kernel-name kns=graft --error-exitcode 9 \
      "$bin/graft_gpu_tests" --source-file='*ops_test*,*kernels_test*' \
      -tce='in half precision*' > "$logs/$check" 2>&1 &&
      ! grep -qa SKIPPED "$logs/$check" && grep -qaE 'SUMMARY: 0 (errors|hazards)' "$logs/$check"; then
      row "compute-sanitizer $check" clean
    else
      row "compute-sanitizer $check" "FAILED: $logs/$check"
      tail -n 20 "$logs/$check"
      failure "compute-sanitizer $check"
    fi
  done
fi

end_stage
echo
printf '%s' "$table"
cat "$logs"/{gpt2,gpt2-bf16,llama,llama-bf16,llama-1b}
