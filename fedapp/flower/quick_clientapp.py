"""Flower's `flwr-clientapp`, which a SuperNode starts for each message, without the imports of its other commands.

Those belong to the SuperNode itself and take half a second. Needs `flwr.supernode.cli.flwr_clientapp` (flwr 1.41, 1.42)
to be a module with a function of that name. Otherwise all commands are imported. Run as a program;
`fedapp.deploy.workers` puts it where the SuperNode finds it.

It imports nothing of fedapp: a message is handled by the fedapp of its run's bundle, and this is the device's own.
"""

import gc
import logging
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
        logging.getLogger("flwr").warning(
            "flwr has no %s.%s as fedapp expects it: each message starts 0.5 s later", COMMANDS, COMMAND
        )
        return getattr(import_module(COMMANDS), COMMAND)


if __name__ == "__main__":
    gc.disable()  # imports leave no garbage
    found = command()
    gc.enable()
    sys.exit(found())
