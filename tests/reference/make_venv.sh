#!/bin/sh
# Makes a virtual environment with full PyTorch (about 5 GB, 1-3 minutes) to remake the stored vectors of tests/golden/.
# Not part of CI: CI compares against the stored vectors. Usage: make_venv.sh [FOLDER]   (default /tmp/torch-venv)
set -eu
folder=${1:-/tmp/torch-venv}
python=${PYTHON:-python3.11}
if [ ! -x "$folder/bin/python" ]; then
  "$python" -m venv "$folder"
fi
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.11.0 numpy safetensors xxhash
"$folder/bin/python" -c 'import torch; print("PyTorch", torch.__version__, "is in", torch.__path__[0])'
echo "Remake the vectors with: $folder/bin/python $(dirname "$0")/gpt_reference.py"
