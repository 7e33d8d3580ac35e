#!/bin/sh
# Run the arguments with a Python that the locks are for: $PYTHON, else the first of the usual names that is one.
check='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))'
for candidate in ${PYTHON:-python3.11 python3.12 python3}; do
    if "$candidate" -c "$check" 2>/dev/null; then
        exec "$candidate" "$@"
    fi
done
if [ -n "$PYTHON" ]; then
    found="PYTHON=$PYTHON is $("$PYTHON" --version 2>&1 | head -n 1)"
else
    found="python3 is $(python3 --version 2>&1 | head -n 1)"
fi
echo "Hotswap needs Python 3.11 or 3.12; $found." >&2
echo "Install one (Debian, Ubuntu: apt-get install python3 python3-venv) or name it: make PYTHON=/path/to/python3.11" >&2
exit 1
