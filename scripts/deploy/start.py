"""Starts one of the deployment commands: `start.py NAME ARGUMENTS`. The files beside it call it."""

import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout, whatever else is installed

from fedapp.deploy.terminal import run_command

if __name__ == "__main__":
    sys.exit(run_command(import_module(f"fedapp.deploy.{sys.argv[1]}").main, sys.argv[2:]))
