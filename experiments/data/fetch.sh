#!/usr/bin/env bash
# Fetches and unpacks the Debian packages that the corpus and the tasks are made from. Nothing is
# installed: packages are unpacked into DIR/packages. Root is needed, or sudo, only where apt's lists
# of packages are missing or stale.
set -euo pipefail
# shellcheck source=experiments/packages.sh
source "$(dirname "${BASH_SOURCE[0]}")/../packages.sh"

usage() {
  cat << 'END'
usage: experiments/data/fetch.sh [DIR]

Downloads WordNet 3.0 and the texts of the pretraining corpus as Debian 12 packages (about 33 MB) and
unpacks them into DIR/packages. DIR is $GRAFT_DATA, or else graft/data in the user's cache folder.
What is already there is not fetched again.
END
}

die() {
  echo "fetch: $*" >&2
  exit 1
}

if [[ ${1:-} == -h || ${1:-} == --help ]]; then usage; exit 0; fi
(($# <= 1)) || { usage >&2; exit 2; }
dir=${1:-${GRAFT_DATA:-${XDG_CACHE_HOME:-${HOME:?fetch: HOME is not set; name a folder}/.cache}/graft/data}}
packages=$dir/packages

# package: a file it must hold
files=(
  wordnet-base:usr/share/wordnet/data.noun
  wordnet-base:usr/share/wordnet/data.verb
  wordnet-base:usr/share/wordnet/data.adj
  wordnet-base:usr/share/wordnet/data.adv
  dict-gcide:usr/share/dictd/gcide.dict.dz
  dict-gcide:usr/share/dictd/gcide.index
  dict-foldoc:usr/share/dictd/foldoc.dict.dz
  dict-foldoc:usr/share/dictd/foldoc.index
  dict-jargon:usr/share/dictd/jargon.dict.dz
  dict-jargon:usr/share/dictd/jargon.index
  dict-devil:usr/share/dictd/devil.dict.dz
  dict-devil:usr/share/dictd/devil.index
  fortunes:usr/share/games/fortunes/people
  fortunes-min:usr/share/games/fortunes/literature
  bible-kjv-text:usr/lib/bible.data
  sword-text-web:usr/share/sword/modules/texts/ztext/engWEB2015eb/ot.bzz
  sword-text-web:usr/share/sword/modules/texts/ztext/engWEB2015eb/nt.bzz
  r-cran-janeaustenr:usr/lib/R/site-library/janeaustenr/data/Rdata.rdb
)

# The packages of which a file is missing or empty, each once.
missing() {
  local entry
  for entry in "${files[@]}"; do
    [[ -s $packages/${entry#*:} ]] || echo "${entry%%:*}"
  done | sort -u
}

mkdir -p "$packages" || die "cannot write $dir; name a folder as the argument or in GRAFT_DATA"
mapfile -t wanted < <(missing)
if ((${#wanted[@]} == 0)); then
  echo "fetch: everything is in $packages"
  exit 0
fi
for tool in apt-get dpkg; do
  command -v "$tool" > /dev/null || die "$tool is not here; on another system unpack these Debian 12" \
    "packages into $packages yourself: ${wanted[*]}"
done

# Stale or empty package lists are refreshed once.
download() {
  (cd "$download" && apt-get -q download "$1" > log 2>&1) && return
  [[ ! -e $download/updated ]] || return
  touch "$download/updated"
  echo "fetch: $1 cannot be downloaded by the package lists that are here: refreshing them"
  as_root apt-get -q update > "$download/log" 2>&1 &&
    (cd "$download" && apt-get -q download "$1" > log 2>&1)
}

# unpack PACKAGE: aside and then file by file into place, so that a file in $packages is a whole one
# however this script ends. The files that missing() looks for come last: where they are, all are.
unpack() {
  local file when turn unpacked
  rm -rf "$download/unpacked"
  mkdir "$download/unpacked"
  dpkg -x "$download/$1"_*.deb "$download/unpacked" || return
  find "$download/unpacked" -type f -exec sync {} + || return
  mapfile -d '' -t unpacked < <(find "$download/unpacked" ! -type d -printf '%P\0')
  for when in first last; do
    for file in "${unpacked[@]}"; do
      turn=first
      [[ " ${files[*]} " != *" $1:$file "* ]] || turn=last
      [[ $turn == "$when" ]] || continue
      mkdir -p "$packages/$(dirname "$file")" || return
      mv -fT "$download/unpacked/$file" "$packages/$file" || return
    done
  done
}

download=$(mktemp -d "$dir/download.XXXXXX")
trap 'rm -rf "$download"' EXIT
for package in "${wanted[@]}"; do
  echo "fetch: $package"
  # apt warns when it cannot change to its own user for the download; only a failure matters.
  download "$package" || {
    cat "$download/log" >&2
    die "cannot download $package; is there a network, and are the package lists up to date" \
      "(apt-get update, as root)?"
  }
  unpack "$package" || die "cannot unpack $package into $packages"
done

mapfile -t still < <(missing)
((${#still[@]} == 0)) || die "these packages lack files that they have in Debian 12: ${still[*]}"
echo "fetch: everything is in $packages"
