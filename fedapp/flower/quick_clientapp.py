"""Flower's `flwr-clientapp`, which a SuperNode starts for each message, without the imports of its other commands.

Those are of the SuperNode itself and take half of the second that a message begins with. Where Flower has changed,
its command starts as it is. Run as a program; `fedapp.deploy.workers` puts it where the SuperNode finds it.

It imports nothing of fedapp, `quick_import` neither: a message is answered by the fedapp of its run's bundle, and this
is the device's.
"""

import gc
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

COMMANDS, COMMAND = "flwr.supernode.cli", "flwr_clientapp"


def command() -> Any:
    """Flower's function."""
    supernode = import_module(COMMANDS.rpartition(".")[0])
    package = sys.modules[COMMANDS] = ModuleType(COMMANDS)  # in place of the one that imports every command
    package.__path__ = [f"{folder}/cli" for folder in supernode.__path__]
    try:
        return getattr(import_module(f"{COMMANDS}.{COMMAND}"), COMMAND)
    except (ImportError, AttributeError):
        del sys.modules[COMMANDS]
        return getattr(import_module(COMMANDS), COMMAND)


if __name__ == "__main__":
    gc.disable()  # nothing of a module is garbage
    found = command()
    gc.enable()
    sys.exit(found())
