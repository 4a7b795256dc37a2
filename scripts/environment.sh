# Sourced by the scripts beside it: makes .venv with what pyproject.toml asks for, once, and sets Flower's switches.
# shellcheck shell=bash

# Flower's telemetry and update check are off, and runs use this environment instead of a fresh one each time.
export FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1
export RAY_USAGE_STATS_ENABLED=0

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.13 python3.12 python3.11 python3 python; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 \
            && "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "error: Python 3.11, 3.12 or 3.13 is needed; install one, or name it: PYTHON=/path/to/python $0" >&2
    return 1
}

# ensure_environment EXTRA: installs `.[EXTRA]` (`.` for an empty EXTRA) unless exactly that has been done already.
ensure_environment() {
    local extra=$1 python stamp target=.
    [ -z "$extra" ] || target=".[$extra]"
    stamp="$(cksum <pyproject.toml) $PWD"
    if [ -f .venv/installed ] && [ "$(sed -n 1p .venv/installed)" = "$stamp" ] \
        && { [ -z "$extra" ] || grep -qx "extra $extra" .venv/installed; }; then
        return
    fi
    python=$(find_python)
    echo "setting up .venv (about 6 GB with PyTorch's standard build; takes minutes the first time)"
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -e "$target"
    if [ "$(sed -n 1p .venv/installed 2>/dev/null)" != "$stamp" ]; then echo "$stamp" >.venv/installed; fi
    [ -z "$extra" ] || echo "extra $extra" >>.venv/installed
}
