# What the corpus scripts share; read by them with `.`, after they have set package, size (for people), about (first and
# last line of their head comment to show as help) and target=${1:-}. It leaves the unpacked package in $scratch/x, or ends
# the script: with 0 when the target is complete, with a sentence when something is missing.
script=$(basename "$0")
corpus=${script%.sh}
here=$(cd "$(dirname "$0")" && pwd)
cache=${TESSERA_CORPORA:-$here/../../.deps/corpora}

die() { echo "$script: $*" >&2; exit 1; }
need() { command -v "$1" >/dev/null 2>&1 || die "$1 is missing. Run: $2"; }

[ -n "$target" ] && [ $# -eq 1 ] || { sed -n "${about}s/^# \{0,1\}//p" "$0" >&2; exit 2; }
if [ -s "$target/train.txt" ] && [ -s "$target/held_out.txt" ] && [ -s "$target/README.md" ]; then
  echo "$corpus: $target is complete"
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
  echo "$corpus: fetching $package ($size)"
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
