#!/usr/bin/env bash
# Installs the packages that are missing, fetches the data, builds the cpu preset and runs all tests:
# once as they are, then the cases about threads again under settings that must not change a result.
# Where NVIDIA's compiler is there, the preset is cuda, and the device's own tests run, too; without a
# device they say that they are skipped.
# Where there is no network, GRAFT_NO_DATA=1 runs the tests without the data, if it is not here yet;
# those that read it then say that they are skipped.
# The last line is "N passed, N failed, N skipped"; a case that is run again is counted again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source experiments/packages.sh
source tests/counting.sh
unset OPENBLAS_CORETYPE
# An idle thread that spins takes the core from the thread it waits for when the machine is busy.
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-2000}

stage "packages"
install_packages "${graft_packages[@]}"
stage "data"
if [[ ${GRAFT_NO_DATA:-} == 1 ]]; then
  echo "nothing is fetched (GRAFT_NO_DATA=1): what reads data that is not here is skipped"
elif ! experiments/data/fetch.sh; then
  failure "the data cannot be fetched; GRAFT_NO_DATA=1 runs the tests without it"
  exit
fi
preset=cpu
if command -v nvcc > /dev/null || [[ -x ${CUDA_HOME:-/usr/local/cuda}/bin/nvcc ]]; then preset=cuda; fi
stage "build $preset"
build $preset $preset

program=build/$preset/bin/graft_tests
stage "tests"
run_tests_in_parts "$program"
for setting in OPENBLAS_CORETYPE=Haswell OMP_NUM_THREADS=1 OMP_NUM_THREADS=2; do
  stage "thread tests, $setting"
  run_tests env "$setting" "$program" --test-case='*thread*'
done
if [[ $preset == cuda ]]; then
  stage "tests on the device"
  run_tests build/cuda/bin/graft_gpu_tests
fi
