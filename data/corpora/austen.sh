#!/bin/sh
# Jane Austen's six novels as a corpus: TARGET/train.txt (five novels) and TARGET/held_out.txt (Persuasion).
#
#   data/corpora/austen.sh TARGET
#
# Fetches Debian's package r-cran-janeaustenr (1.6 MB) without installing it, so neither root nor R is needed.
# The package is kept in .deps/corpora (TESSERA_CORPORA chooses another folder) and fetched once; a TARGET that is
# complete is left as it is.
set -eu
package=r-cran-janeaustenr
here=$(cd "$(dirname "$0")" && pwd)
cache=${TESSERA_CORPORA:-$here/../../.deps/corpora}
target=${1:-}

die() { echo "austen.sh: $*" >&2; exit 1; }
need() { command -v "$1" >/dev/null 2>&1 || die "$1 is missing. Run: $2"; }

[ -n "$target" ] && [ $# -eq 1 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
if [ -s "$target/train.txt" ] && [ -s "$target/held_out.txt" ] && [ -s "$target/README.md" ]; then
  echo "austen: $target is complete"
  exit 0
fi
need python3 "apt-get install -y python3"
need dpkg-deb "apt-get install -y dpkg"
mkdir -p "$cache" "$target"
cache=$(cd "$cache" && pwd)

scratch=$(mktemp -d "$cache/tmp.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' INT TERM

found=$(find "$cache" -maxdepth 1 -name "${package}_*.deb" | sort | tail -n 1)
if [ -z "$found" ] || ! dpkg-deb --info "$found" >/dev/null 2>&1; then
  need apt-get "this on Debian or Ubuntu, or put ${package}_*.deb into $cache and run it again"
  echo "austen: fetching $package (1.6 MB)"
  if ! (cd "$scratch" && apt-get -q download "$package" >apt.log 2>&1); then
    sed 's/^/  apt-get: /' "$scratch/apt.log" >&2
    die "apt-get could not download $package. If the package lists are old or missing, run: apt-get update
  (as root, or with sudo), then this again. Without a network put ${package}_*.deb into $cache"
  fi
  fetched=$(find "$scratch" -maxdepth 1 -name "${package}_*.deb" | head -n 1)
  [ -n "$fetched" ] || die "apt-get download $package said nothing and brought nothing"
  found=$cache/$(basename "$fetched")
  mv "$fetched" "$found"
fi
dpkg-deb -x "$found" "$scratch/x" || die "$found cannot be unpacked. Remove it and run this again"
python3 "$here/austen_extract.py" "$scratch/x/usr/lib/R/site-library/janeaustenr/data" "$target"
echo "austen: wrote $target/train.txt, held_out.txt and README.md"
