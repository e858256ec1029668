#!/usr/bin/env bash
# Fuzzes the readers of files that come from elsewhere, with libFuzzer and the address and
# undefined-behaviour sanitizers: installs clang and builds the asan preset's fuzzers, then runs
# each target of tests/fuzz/targets.h for some seconds, one on each core at a time.
#
#   tests/fuzz.sh [SECONDS] [TARGET...]     6 seconds and all targets by default
#
# What was learned stays in build/fuzz/corpus and is gone on from. An input that breaks a contract
# lies in build/fuzz/found then; made small, it goes to tests/fuzz/regressions/TARGET, which the
# ordinary tests read. JOBS=1 takes one core; SEED=N draws other inputs (1; 0: new ones each time).
# The last line is "N passed, N failed, N skipped".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source experiments/packages.sh
source tests/counting.sh
seconds=${1:-6}
[[ $seconds =~ ^[1-9][0-9]*$ ]] || {
  echo "tests/fuzz.sh: '$seconds' is no number of seconds" >&2
  exit 2
}
shift || true

stage "fuzzers: packages"
install_packages "${graft_packages[@]}" "${clang_packages[@]}"
stage "fuzzers: build"
build asan fuzz
work=build/fuzz bin=build/asan/bin
mkdir -p "$work"
rm -rf "$work/seeds"
tests/fuzz/seeds.sh "$work/seeds"
mkdir -p "$work/found"

# fuzz TARGET: runs it; prints one line; keeps what it said in build/fuzz/TARGET.log.
fuzz() {
  local target=$1 log=$work/$1.log found=$work/found/$1- status=0 said
  local folders=("$work/corpus/$1" "$work/seeds/$1")
  [[ ! -d tests/fuzz/regressions/$1 ]] || folders+=("tests/fuzz/regressions/$1")
  mkdir -p "${folders[0]}"
  "$bin/fuzz_$target" -seed="${SEED:-1}" -max_total_time="$seconds" -timeout=60 \
    -report_slow_units=30 -max_len=65536 \
    -rss_limit_mb=2048 -malloc_limit_mb=256 -dict="$work/seeds/words.dict" \
    -artifact_prefix="$found" -print_final_stats=1 "${folders[@]}" > "$log" 2>&1 || status=$?
  said=$(awk '/^stat::number_of_executed_units/ { n = $2 } / cov: / { c = $4 }
    END { print n + 0, "inputs,", c + 0, "edges" }' "$log")
  if ((status == 0)); then
    echo "ok: fuzz_$target, $seconds s: $said"
  else
    echo "FAILED: fuzz_$target: $(grep -aE 'contract broken|ERROR:|runtime error' "$log" |
      head -n 1 | cut -c 1-200); the input: $(grep -ao "$found[^ ]*" "$log" | tail -n 1); see $log"
  fi
}

stage "fuzzers: run"
targets=("$@")
((${#targets[@]})) || mapfile -t targets < <(printf '%s\n' "$bin"/fuzz_* | sed 's/.*fuzz_//')
for target in "${targets[@]}"; do
  [[ -x $bin/fuzz_$target ]] || {
    echo "tests/fuzz.sh: there is no target '$target'" >&2
    exit 2
  }
done
export -f fuzz
export work bin seconds OMP_NUM_THREADS=1 UBSAN_OPTIONS=print_stacktrace=1
export ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1:allocator_may_return_null=0
lines=$(printf '%s\n' "${targets[@]}" | xargs -P "${JOBS:-$(nproc)}" -I{} bash -c 'fuzz "$1"' _ {})
echo "$lines"
passed=$(grep -c '^ok: ' <<< "$lines") || true
failed=$((${#targets[@]} - passed))
