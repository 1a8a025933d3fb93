# Sourced by the other scripts: makes .venv with the pinned dependencies when that is needed, and sets $PYTHON.
# POSIX tools only, so that it runs on Linux, on macOS and in WSL. BASE_PYTHON names the Python to make it from.

ROOT=$(cd "$(dirname "$0")/.." && pwd) || exit 1
VENV=$ROOT/.venv
PYTHON=$VENV/bin/python

# What the environment was made from. The stamp is written last: a set-up that was cut short has none.
wanted=$(cat "$ROOT/pyproject.toml" "$ROOT/constraints.txt" | cksum)
if [ "$(cat "$VENV/stamp" 2>/dev/null)" != "$wanted" ]; then
    # One set-up at a time: mkdir succeeds for one process only. A lock whose owner is gone does not count.
    while ! mkdir "$ROOT/.venv.lock" 2>/dev/null; do
        owner=$(cat "$ROOT/.venv.lock/pid" 2>/dev/null)
        if [ -n "$owner" ] && ! kill -0 "$owner" 2>/dev/null; then
            rm -rf "$ROOT/.venv.lock"
        else
            [ -n "$told" ] || echo "Waiting for another set-up to finish (if there is none: rm -r .venv.lock) ..." >&2
            told=yes
            sleep 1
        fi
    done
    echo $$ >"$ROOT/.venv.lock/pid"
    trap 'rm -rf "$ROOT/.venv.lock"; [ -z "$installer" ] || kill "$installer" 2>/dev/null' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
fi
if [ "$(cat "$VENV/stamp" 2>/dev/null)" != "$wanted" ]; then
    if [ ! -f "$VENV/stamp" ]; then
        for candidate in $BASE_PYTHON python3.13 python3.12 python3.11 python3 python; do
            if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
                found=$candidate
                break
            fi
        done
        if [ -z "$found" ]; then
            echo "No Python 3.11, 3.12 or 3.13 was found on PATH. TensorFlow has no wheels for other versions." >&2
            exit 1
        fi
        echo "Setting up .venv with $("$found" --version), once. This takes about two minutes and 2.7 GB." >&2
        if ! "$found" -m venv --clear "$VENV"; then
            echo "The virtual environment could not be made (on Debian and Ubuntu: apt install python3-venv)." >&2
            exit 1
        fi
    else
        echo "pyproject.toml or constraints.txt has changed: updating .venv." >&2
        rm "$VENV/stamp"
    fi
    "$PYTHON" -m pip install --disable-pip-version-check --no-input -c "$ROOT/constraints.txt" -e "$ROOT[dev]" \
        >"$VENV/setup.log" 2>&1 &
    installer=$!
    seconds=0
    while kill -0 "$installer" 2>/dev/null; do
        sleep 1
        seconds=$((seconds + 1))
        if [ $((seconds % 10)) -eq 0 ]; then
            doing=$(grep -oE '^(Collecting|Installing|  Downloading)' "$VENV/setup.log" | tail -n 1)
            echo "  $seconds s: ${doing:-Starting}, .venv holds $(du -sm "$VENV" | cut -f 1) MB" >&2
        fi
    done
    wait "$installer"
    status=$?
    installer=
    if [ $status -ne 0 ]; then
        echo "The installation failed. The end of $VENV/setup.log:" >&2
        tail -n 15 "$VENV/setup.log" >&2
        exit 1
    fi
    echo "$wanted" >"$VENV/stamp"
fi
if [ -d "$ROOT/.venv.lock" ] && [ "$(cat "$ROOT/.venv.lock/pid" 2>/dev/null)" = $$ ]; then
    rm -rf "$ROOT/.venv.lock"
    trap - EXIT INT TERM
fi
