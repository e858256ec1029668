#!/usr/bin/env bash
# Trains a base for graft, from the corpus to experiments/bases/NAME, in stages: 3 layers, then 6
# that start as these twice over, then 12; t5 is done with 3 and 6 in each of its two stacks. Killed
# at any moment it goes on where it was. Needs experiments/run.sh's packages and build, and the data
# of experiments/data/fetch.sh.
#
#   experiments/bases/make.sh encoder|decoder|t5 [--seed N] [--steps N] [--to FOLDER]
#
#   --seed N     another start and another order of the text: a sister, for checking that a finding
#                is not one base's accident (0)
#   --steps N    of the last stage, 1024 tokens each; the rate falls to 0 over the last tenth (24000).
#                More than it was made with make it longer
#   --to FOLDER  where the base goes (experiments/bases/NAME; a sister's: experiments/bases/NAME-N)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
unset OPENBLAS_CORETYPE
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-2000}

usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }
fail() {
  echo "experiments/bases/make.sh: $*" >&2
  exit 1
}

name=${1:-}
case $name in
  encoder | decoder | t5) shift ;;
  -h | --help) usage; exit 0 ;;
  *) fail "the base is '$name'; need encoder, decoder or t5" ;;
esac
seed=0 steps=24000 to=''
while (($#)); do
  case $1 in
    --seed) seed=${2:?} ;;
    --steps) steps=${2:?} ;;
    --to) to=${2:?} ;;
    *) fail "unknown option '$1'; see --help" ;;
  esac
  shift 2
done
[[ $seed =~ ^[0-9]+$ && $steps =~ ^[1-9][0-9]*$ ]] ||
  fail "seed '$seed', steps '$steps'; need whole numbers"
seed=$((10#$seed))
if [[ -z $to ]]; then
  to=experiments/bases/$name
  # The base that comes with the source is no sister's to replace.
  ((seed == 0)) || to+=-$seed
fi
while [[ $to == */ && $to != / ]]; do to=${to%/}; done  # beside it lie TO.new and TO.old
mkdir -p "$(dirname "$to")" || fail "cannot write $(dirname "$to"); name another folder with --to"

graft=build/cpu/bin/graft
data=${GRAFT_DATA:-${XDG_CACHE_HOME:-$HOME/.cache}/graft/data}
runs=${GRAFT_RUNS:-${XDG_CACHE_HOME:-$HOME/.cache}/graft/runs}
[[ -x $graft ]] || fail "$graft is not built; run experiments/run.sh first"
[[ -e $data/corpus.json ]] || "$graft" corpus  # the last of its files that is written
[[ -e $data/tokenizer.json ]] || "$graft" tokenizer

masking=0.2
[[ $name != t5 ]] || masking=0.15  # Raffel et al. 2020, section 3.3.3

# stage LAYERS STEPS [option]...: one run, up to STEPS.
stage() {
  local layers=$1 until=$2
  "$graft" pretrain --arch "graft-$name" --layers "$layers" --seed "$seed" --batch 8 --length 128 \
    --lr 1.5e-3 --masking "$masking" --warmup 300 --eval-every 500 --stop-after "$until" \
    --out "$runs/$name-$seed-$layers" "${@:3}"
}
# last LAYERS FROM: the stage that ends as the base.
last() {
  stage "$1" "$steps" --steps "$steps" --cooldown "$((steps / 10))" \
    --start-from "$runs/$name-$seed-$2/model"
}
stage 3 6500 --steps 1000000
if [[ $name == t5 ]]; then
  depths=(3 6)
else
  depths=(3 6 12)
  stage 6 5500 --steps 1000000 --start-from "$runs/$name-$seed-3/model"
fi
depth=${depths[-1]}
last "$depth" "$((depth / 2))"

rm -rf "$to.new"
cp -r "$runs/$name-$seed-$depth/model" "$to.new"
for layers in "${depths[@]}"; do
  sed "s/^{/{\"layers\":$layers,/" "$runs/$name-$seed-$layers/log.jsonl"
done > "$to.new/pretraining.jsonl"
# What the pages of its results say of it.
tokens=0
for layers in "${depths[@]}"; do
  last_of=$(grep "\"layers\":$layers," "$to.new/pretraining.jsonl" | tail -n 1)
  tokens=$((tokens + $(grep -o '"tokens":[0-9]*' <<< "$last_of" | cut -d: -f2)))
done
loss=$(grep -o '"heldout_loss":[0-9.]*' <<< "$last_of" | cut -d: -f2)
LC_ALL=C printf 'trained from nothing on %d million tokens (experiments/bases/make.sh); held-out loss %.2f\n' \
  "$(((tokens + 500000) / 1000000))" "$loss" > "$to.new/about.txt"
rm -rf "$to.old"
[[ ! -e $to ]] || mv "$to" "$to.old"
mv "$to.new" "$to"
rm -rf "$to.old"
echo "base: $to"
