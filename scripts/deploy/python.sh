# Sourced by the commands beside it: starts one with this checkout's environment, or else with the active one.
# shellcheck shell=bash

start() {
    local here python
    here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
    python="$here/../../.venv/bin/python"
    [ -x "$python" ] || python=$(command -v python3 || true)
    if [ -z "$python" ] || ! "$python" -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("flwr"))'; then
        echo "error: no environment with Flower: run scripts/quickstart once, or activate one" >&2
        exit 2
    fi
    exec "$python" "$here/start.py" "$@"
}
