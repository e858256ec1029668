#!/usr/bin/env bash
# Kills (SIGKILL) an experiment and a training run at random moments, over and over, and compares
# what they end with against runs that were left alone: no finished arm is lost, and the table and
# the weights are the same. The training run writes its checkpoint at every step, so that kills
# fall into the writing and the renaming of files too.
#
#   tests/kill.sh [KILLS]      20 by default; needs the cpu preset built and the data fetched
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset OPENBLAS_CORETYPE
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-2000}
kills=${1:-20}
bin=build/cpu/bin
data=${GRAFT_DATA:-${XDG_CACHE_HOME:-$HOME/.cache}/graft/data}
for needed in "$bin/lora_weight_choice" "$bin/graft" "$data/packages/usr/share/wordnet/data.noun"; do
  [[ -e $needed ]] || {
    echo "tests/kill.sh: $needed is missing; run experiments/run.sh first" >&2
    exit 1
  }
done
[[ -e $data/corpus.json ]] || "$bin/graft" corpus  # written last
[[ -e $data/tokenizer.json ]] || "$bin/graft" tokenizer
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
log=$work/log

"$bin/graft" pretrain --layers 2 --steps 4 --batch 4 --length 32 --warmup 1 --cooldown 1 \
  --eval-every 4 --out "$work/base" > "$log"
experiment=("$bin/lora_weight_choice" --quick --task topic --seeds 1 --model "$work/base/model")
training=("$bin/graft" train --model "$work/base/model" --task topic --train-rows 400
  --dev-rows 50 --test-rows 50 --epochs 2 --batch 8 --state-seconds 0)

fail() {
  echo "tests/kill.sh: $*; what the runs said:" >&2
  tail -n 20 "$log" >&2
  exit 1
}
# Runs a command into the folder $1 alone and prints the seconds it took.
timed() {
  local begun=$EPOCHREALTIME
  "${@:2}" --out "$1" >> "$log" 2>&1
  awk -v a="$begun" -v b="$EPOCHREALTIME" 'BEGIN { print b - a }'
}
# Runs a command into the folder $1 and kills it after a random part of $2 seconds. True if it ended
# by itself, well; any other end but the kill is an error.
survives() {
  local after code=0
  after=$(awk -v most="$2" -v r="$RANDOM" 'BEGIN { print 0.02 + most * r / 32768 }')
  { timeout -s KILL "$after" "${@:3}" --out "$1" || code=$?; } >> "$log" 2>&1
  ((code == 0 || code == 137)) || fail "a run ended with exit code $code"
  return "$code"
}
# What records say, without what a clock says.
table() { cat "$1"/runs.*.jsonl | sed -E 's/"(seconds|peak_bytes)":[0-9.e+-]+//g' | sort; }
lines() { cat "$1"/runs.*.jsonl 2> "$work/none" | wc -l; }
hash() { grep -o '"weights_hash": "[0-9a-f]*"' "$1/run.json"; }
part() { awk -v s="$1" -v n="$kills" 'BEGIN { print 3 * s / n }'; }

seconds=$(timed "$work/alone" "${experiment[@]}")
killed=0 before=0
for ((i = 0; i < kills; ++i)); do
  if survives "$work/often" "$(part "$seconds")" "${experiment[@]}"; then break; fi
  killed=$((killed + 1))
  now=$(lines "$work/often")
  ((now >= before)) || fail "$before arms were recorded, now $now"
  before=$now
done
timed "$work/often" "${experiment[@]}" > "$work/none"
((killed > 0)) || fail "no experiment was killed; give more KILLS"
diff <(table "$work/alone") <(table "$work/often") > "$work/diff" || fail "the tables differ"
echo "experiment: $killed kills, the same $(table "$work/alone" | wc -l) records"

seconds=$(timed "$work/train-alone" "${training[@]}")
state=$work/train-often/state.safetensors
killed=0 resumed=0  # how often a start had a checkpoint to go on from
for ((i = 0; i < kills; ++i)); do
  [[ ! -e $state ]] || resumed=$((resumed + 1))
  if survives "$work/train-often" "$(part "$seconds")" "${training[@]}"; then break; fi
  killed=$((killed + 1))
done
if [[ ! -e $work/train-often/run.json ]]; then
  [[ ! -e $state ]] || resumed=$((resumed + 1))
  timed "$work/train-often" "${training[@]}" > "$work/none"
fi
((killed > 0)) || fail "no training was killed; give more KILLS"
((resumed > 0)) || fail "$killed kills, and never a checkpoint to go on from"
# And it is read: a damaged one is an error.
mkdir "$work/damaged"
echo damaged > "$work/damaged/state.safetensors"
if "${training[@]}" --out "$work/damaged" > "$work/said" 2>&1 ||
  ! grep -q state.safetensors "$work/said"; then
  cat "$work/said" >> "$log"
  fail "a damaged checkpoint is not noticed"
fi
[[ $(hash "$work/train-alone") == $(hash "$work/train-often") ]] || fail "the weights differ"
echo "training: $killed kills, $resumed checkpoints gone on from, the same $(hash "$work/train-alone")"
