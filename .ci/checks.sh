#!/usr/bin/env bash
# House checks that need no build. Each prints what breaks it; the last line is
# "N passed, N failed, N skipped".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tests/counting.sh

rooms=(tensor autograd nn peft experiments)  # each may include itself and the rooms to its left
most_lines=400

# Files in peft/ that are no method, and methods whose name is an ordinary word below peft/ too.
ordinary_words=(
  adapter adapters attach bank combine common config contract features files folder full generator
  head low_rank merge method methods modules none norm norms own param peft prefix prompt routed save
  selective site spec table top values virtual_rows where
)

# code_files FOLDER...: the C++ and CUDA files in them.
code_files() {
  find "$@" -type f \( -name '*.h' -o -name '*.cpp' -o -name '*.inc' -o -name '*.cu' \
    -o -name '*.cuh' \) | sort
}

# Prints the lines that it reads, if any, and then fails.
no_lines() {
  if grep .; then return 1; fi
}

includes_point_left() {
  local room allowed='' lines=''
  for room in "${rooms[@]}"; do
    allowed+=${allowed:+|}$room
    lines+=$(code_files "$room" | xargs -r -d '\n' grep -nHE '^ *# *include *"' |
      grep -vE "include *\"($allowed)/" || true)$'\n'
  done
  no_lines <<< "$lines"
}

# A name counts wherever no letter touches it: in lora_A and "LoRA", not in floral.
nn_names_no_method() {
  local file name lines=''
  for file in peft/*.cpp; do
    [[ -e $file ]] || continue
    name=$(basename "$file" .cpp)
    if [[ " ${ordinary_words[*]} " == *" $name "* ]]; then continue; fi
    name=${name//_/[_ -]?}
    lines+=$(grep -rniIE "(^|[^a-z])$name([^a-z]|\$)" nn || true)$'\n'
    lines+=$(find nn -type f | grep -iE "(^|[^a-z])$name([^a-z]|\$)" || true)$'\n'
  done
  no_lines <<< "$lines"
}

# A longer file gives its reason in its first five lines: "long: why it is better whole".
files_are_short() {
  local file count lines=''
  while IFS= read -r file; do
    count=$(wc -l < "$file")
    if ((count <= most_lines)) || head -n 5 "$file" | grep -qE 'long: *[^ ]'; then continue; fi
    lines+="$file: $count lines; need $most_lines at most, or a line 'long: why' at its top"$'\n'
  done < <(
    code_files "${rooms[@]}" tests
    find "${rooms[@]}" tests .ci -type f \( -name '*.sh' -o -name '*.py' -o -path .ci/run \)
  )
  no_lines <<< "$lines"
}

code_is_formatted() {
  local lines
  command -v clang-format-14 > /dev/null || { echo "clang-format-14 is not installed"; return 1; }
  lines=$(code_files "${rooms[@]}" tests |
    xargs -r -d '\n' clang-format-14 --dry-run -Werror 2>&1 |
    sed -nE 's/^([^ :]+):[0-9]+:[0-9]+: error: .*/clang-format-14 -i \1/p' | sort -u)
  no_lines <<< "$lines"
}

rooms_have_readmes() {
  local room lines=''
  for room in "${rooms[@]}" tests; do
    [[ -s $room/README.md ]] || lines+="$room/README.md is missing or empty"$'\n'
  done
  no_lines <<< "$lines"
}

for check in includes_point_left nn_names_no_method files_are_short code_is_formatted \
  rooms_have_readmes; do
  if $check; then
    echo "ok: ${check//_/ }"
    passed=$((passed + 1))
  else
    failure "${check//_/ }"
  fi
done
