#!/bin/sh
# The documentation of Perl as a corpus, technical English with code: TARGET/train.txt and TARGET/held_out.txt (four pages).
#
#   data/corpora/perldoc.sh TARGET
#
# Fetches Debian's package perl-doc (7.9 MB) without installing it, so root is not needed. The package is kept in
# .deps/corpora (TESSERA_CORPORA chooses another folder) and fetched once; a TARGET that is complete is left as it is.
set -eu
package=perl-doc
size="7.9 MB"
about=2,7
target=${1:-}
. "$(dirname "$0")/deb_package.sh"
python3 "$here/perldoc_extract.py" "$scratch/x/usr/share/perl" "$target"
echo "perldoc: wrote $target/train.txt, held_out.txt and README.md"
