#!/bin/sh
# Make the virtual environment from the locks: install.sh PYTHON VENV
#
# Hashes are checked either way. uv is used when its wheel can be had, because it takes seconds where pip takes
# a minute and a half; pip alone gives the same packages.
set -eu
python=$1
venv=$2

"$python" - <<'CHECK' || exit 1
import sys
if sys.version_info < (3, 11):
    sys.exit(f"set-up: Python 3.11 or newer is needed, {sys.executable} is {sys.version.split()[0]}; set PYTHON=...")
CHECK

if ! [ -x "$venv/bin/python" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    echo "set-up: making $venv"
    "$python" -m venv --clear "$venv" || {
        echo "set-up: this Python cannot make virtual environments; on Debian: apt-get install python3-venv"
        exit 1
    }
fi

pip() { "$venv/bin/python" -m pip --quiet --disable-pip-version-check --no-input "$@"; }

if pip install --require-hashes --no-deps -r requirements/uv.txt; then
    echo "set-up: installing the locked packages with uv"
    "$venv/bin/uv" pip sync --quiet --compile-bytecode --python "$venv/bin/python" --require-hashes requirements/dev.txt
    "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --no-deps --no-build-isolation --editable .
else
    echo "set-up: no uv for this machine, installing the locked packages with pip (a minute or two)"
    # The lock holds uv itself; where it cannot be installed, everything else must be.
    awk '/^uv==/ { skip = 1; next } /^[^ ]/ { skip = 0 } !skip' requirements/dev.txt >"$venv/dev-without-uv.txt"
    pip install --require-hashes -r "$venv/dev-without-uv.txt"
    pip install --no-deps --no-build-isolation --editable .
fi
echo "set-up: done"
