#!/bin/sh
# Make a virtual environment and install this project into it: deploy/venv.sh FOLDER REQUIREMENT
# Needs a Python >= 3.11; gets python3-venv by apt where it is missing and may.
set -eu
folder=$1
requirement=$2

for python in "${PYTHON:-python3}" python3 python3.14 python3.13 python3.12 python3.11; do
    if command -v "$python" >/dev/null && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        break
    fi
    python=
done
if [ -z "$python" ]; then
    echo "fedge needs Python 3.11 or newer; install it and run this again" >&2
    exit 1
fi

"$python" -c 'import ensurepip' 2>/dev/null || "$(dirname "$0")/need.sh" "python3-venv"
[ -x "$folder/bin/pip" ] || "$python" -m venv "$folder"
"$folder/bin/pip" install --disable-pip-version-check -q -c constraints.txt -e "$requirement"
