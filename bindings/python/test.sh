#!/usr/bin/env bash
# Tests of the Python binding: builds the library with a computer inside, generates its Python, runs test_phone.py.
# Exit code 77 and a line "SKIPPED: reason" if that cannot be done here.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${POCKETCARD_PYTHON:-/usr/bin/python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "SKIPPED: the Python binding: no $python of version 3.11 or newer"
    exit 77
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
bash "$here/../generate.sh" python "$folder"
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$folder:$here" timeout 300 "$python" -m unittest "$@" -v test_phone
