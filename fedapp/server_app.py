"""The ServerApp: the server's side of a run.

It imports little: in a simulation Ray's processes start while the rest is imported.
"""

import time

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedapp.common.quick_import import quick_import

__all__ = ["app"]

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the federation that the run-config describes."""
    start = time.perf_counter()
    with quick_import():
        from fedapp.server.run import run_context

    run_context(grid, context, start)
