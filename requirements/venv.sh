#!/bin/sh
# Creates the virtual environment $1 with the first Python >= 3.11 that is found (or the one named by $PYTHON).
set -eu
venv=$1

suits() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

python=
for candidate in ${PYTHON:-python3.11 python3 python3.12 python3.13 python3.14 python}; do
    if suits "$candidate"; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "No Python >= 3.11 was found${PYTHON:+ under the name $PYTHON}. Install one (Debian 12: apt-get install python3 python3-venv)," >&2
    echo "or name it: make PYTHON=/path/to/python3.12 ..." >&2
    exit 1
fi

# Debian keeps the standard library's venv and ensurepip in a package of their own.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing $package with apt-get"
        export DEBIAN_FRONTEND=noninteractive
        apt-get install -y -qq "$package" >/dev/null 2>&1 ||
            { apt-get update -qq && apt-get install -y -qq "$package" >/dev/null; }
    else
        echo "$python has no venv module. Install it, then run make again: sudo apt-get install $package" >&2
        exit 1
    fi
fi

echo "creating $venv with $("$python" --version)"
"$python" -m venv --clear "$venv"
