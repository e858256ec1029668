#!/usr/bin/env bash
# Installs the packages that are missing, builds the cpu preset and runs all tests: once as they
# are, then the cases about threads again under settings that must not change a result.
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
stage "build cpu"
build cpu cpu

program=build/cpu/bin/graft_tests
stage "tests"
run_tests_in_parts "$program"
for setting in OPENBLAS_CORETYPE=Haswell OMP_NUM_THREADS=1 OMP_NUM_THREADS=2; do
  stage "thread tests, $setting"
  run_tests env "$setting" "$program" --test-case='*thread*'
done
