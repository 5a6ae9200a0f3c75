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
size="1.6 MB"
about=2,8
target=${1:-}
. "$(dirname "$0")/deb_package.sh"
python3 "$here/austen_extract.py" "$scratch/x/usr/lib/R/site-library/janeaustenr/data" "$target"
echo "austen: wrote $target/train.txt, held_out.txt and README.md"
