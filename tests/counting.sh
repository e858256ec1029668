# Sourced, not run: builds a preset, runs test programs, times the stages and counts the outcome.
# However the sourcing script ends, its last line is "N passed, N failed, N skipped", and it exits
# non-zero when something failed.
# shellcheck shell=bash

passed=0 failed=0 skipped=0
skip_lines=''  # every line that said SKIPPED
stage_name='' stage_start=0

# stage NAME: ends the stage before, saying how long it took, and begins the next.
stage() {
  end_stage
  stage_name=$1 stage_start=$SECONDS
  echo "== $stage_name"
}

end_stage() {
  [[ -z $stage_name ]] || echo "== $stage_name took $((SECONDS - stage_start)) s"
  stage_name=''
}

finish() {
  local status=$?
  trap - EXIT
  end_stage
  # A script that stopped half-way (a build that broke, an interrupt) has failed, too.
  if ((status != 0 && failed == 0)); then failed=1; fi
  echo "$passed passed, $failed failed, $skipped skipped"
  exit $((failed > 0))
}
trap finish EXIT
# Without these a killed script would reach finish() as if all had gone well.
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

failure() {
  echo "FAILED: $1"
  failed=$((failed + 1))
}

# build CONFIGURE-PRESET [BUILD-PRESET...]
build() {
  local preset
  cmake --preset "$1" || return
  for preset in "${@:2}"; do cmake --build --preset "$preset" --parallel "$(nproc)" || return; done
}

# note_skips LOG: keeps the lines about skipped cases.
note_skips() {
  skip_lines+=$(grep -a SKIPPED "$1" || true)$'\n'
}

# only_skips 'MOST REASON'...: fails for each of those lines whose reason begins like none of these,
# and where more than MOST cases were skipped for one; a case that is run again is counted again.
only_skips() {
  local rule most reason count line rest=$skip_lines
  for rule in "$@"; do
    most=${rule%% *} reason=${rule#* }
    count=$(grep -acF "SKIPPED: $reason" <<< "$rest") || true
    if ((count > most)); then failure "$count cases are skipped ($reason); need $most at most"; fi
    rest=$(grep -avF "SKIPPED: $reason" <<< "$rest") || true
  done
  while IFS= read -r line; do
    if [[ -n $line ]]; then failure "this may not be skipped here: $line"; fi
  done < <(sort -u <<< "$rest")
}

# run_tests COMMAND...: runs a doctest program and counts its test cases, by count_cases.
run_tests() {
  local log status=0
  log=$(mktemp)
  "$@" 2>&1 | tee "$log" || status=$?
  count_cases "$log" "$status" "$*"
}

# run_tests_in_parts COMMAND...: the same, with the cases in parts that run side by side, one for
# each core at a time.
run_tests_in_parts() {
  local cores all parts i folder status cases
  cores=$(nproc)
  all=$("$@" --count | sed -n 's/^\[doctest\] unskipped test cases passing the current filters: //p')
  [[ -n $all ]] || { failure "$* --count"; return; }
  parts=$((12 * cores))
  folder=$(mktemp -d)
  for ((i = 0; i < parts; ++i)); do echo "$i"; done |
    xargs -P "$cores" -I{} bash -c '
      i=$1 parts=$2 all=$3 folder=$4
      shift 4
      first=$((i * all / parts + 1)) last=$(((i + 1) * all / parts))
      ((first <= last)) || exit 0
      status=0
      "$@" --first="$first" --last="$last" > "$folder/$i.log" 2>&1 || status=$?
      echo "$status $((last - first + 1))" > "$folder/$i.status"
      echo "tests $first to $last of $all: exit status $status"' _ {} "$parts" "$all" "$folder" "$@"
  for ((i = 0; i < parts; ++i)); do
    [[ -e $folder/$i.status ]] || continue
    cat "$folder/$i.log"
    read -r status cases < "$folder/$i.status"
    count_cases "$folder/$i.log" "$status" "$*, part $((i + 1)) of $parts" "$cases"
  done
  rm -rf "$folder"
}

# count_cases LOG STATUS NAME [CASES]: adds up what a doctest program printed, and removes the log.
# A case that printed SKIPPED counts as skipped, not as passed. A run that matches no case has
# failed, and so has one that fails outside its cases: a crash, or a leak found at the end. CASES: of
# a part, whose summary counts the cases of all parts.
count_cases() {
  local log=$1 status=$2 ok=0 bad=0 skips summary
  summary=$(grep -a '^\[doctest\] test cases:' "$log" | tail -n 1) || true
  skips=$(grep -a -c SKIPPED "$log") || true
  note_skips "$log"
  rm -f "$log"
  if [[ $summary =~ \|\ *([0-9]+)\ passed\ *\|\ *([0-9]+)\ failed ]]; then
    ok=${BASH_REMATCH[1]} bad=${BASH_REMATCH[2]}
    if (($# > 3)); then ok=$(($4 - bad)); fi
  fi
  passed=$((passed + (ok > skips ? ok - skips : 0)))
  failed=$((failed + bad))
  skipped=$((skipped + skips))
  if ((bad == 0 && status != 0)); then failure "$3 (exit status $status)"; fi
  if ((ok + bad == 0 && status == 0)); then failure "$3 ran no test case"; fi
}

# run_script COMMAND...: runs a script that ends with such a last line and adds its counts.
run_script() {
  local log last status=0
  log=$(mktemp)
  "$@" 2>&1 | tee "$log" || status=$?
  last=$(tail -n 1 "$log")
  note_skips "$log"
  rm -f "$log"
  if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
    passed=$((passed + BASH_REMATCH[1]))
    failed=$((failed + BASH_REMATCH[2]))
    skipped=$((skipped + BASH_REMATCH[3]))
    if ((status == 0 || BASH_REMATCH[2] > 0)); then return; fi
  fi
  failure "$* (exit status $status)"
}
