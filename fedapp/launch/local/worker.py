"""A worker: a process that does SuperNodes' work, message after message.

As a program (`python -m fedapp.launch.local.worker DESCRIPTOR`), it serves where processes cannot be forked.
"""

import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from flwr.app import Context

from fedapp.client.handlers import open_run
from fedapp.client.party.party_handlers import has_parties
from fedapp.client_app import app
from fedapp.common.errors import FedappError
from fedapp.data.shared_examples import take_shards
from fedapp.flower.hosted_grid import delivered, simulated_nodes
from fedapp.launch.local.channel import receive, send, take_record, write_record
from fedapp.launch.local.processes import begin, can_fork, write_output_to
from fedapp.launch.local.run_log import log_in_worker

__all__ = ["PreparedRun", "prepare", "work"]


class PreparedRun:
    """The SuperNodes of a run, ready for their first message once the data is there. `settings`: `overrides`, a command
    line of them, and `supernodes`, how many there are. Raises FedappError for a config that cannot work."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        torch.set_num_threads(1)  # until the run says what it wants: another thread would be in the way of a fork
        self.contexts = simulated_nodes(settings["supernodes"], settings["overrides"])
        context = next(iter(self.contexts.values()))
        self._run = None if has_parties(context) else open_run(context)  # parties read their own tables

    def keeps(self, context: Context) -> bool:
        """Whether this process has what another one would not have for this SuperNode, or only after a long time."""
        return bool(context.state) or (self._run is not None and self._run.site.features is not None)

    def take_data(self, data: int, log: int) -> None:
        """`data`: a descriptor of what `share_shards` has written. `log`: where all output goes. Both get closed."""
        write_output_to(log)
        log_in_worker()
        if self._run is None:
            os.close(data)
        else:
            take_shards(self._run.site.shards, data)


def prepare(connection: socket.socket, settings: Mapping[str, Any]) -> PreparedRun:
    """What comes before the first worker, or in a spawned worker before its first message. Says on `connection` that
    it is done, or what is wrong with the config (`fault`)."""
    try:
        prepared = PreparedRun(settings)
    except Exception as error:
        fault = str(error) if isinstance(error, FedappError) else f"{type(error).__name__}: {error}"
        send(connection, {"fault": fault, "trace": traceback.format_exc()})
        raise EOFError from None
    _, (data, log) = receive(connection)
    prepared.take_data(data, log)
    send(connection, {})
    return prepared


def work(connection: socket.socket, prepared: PreparedRun) -> None:
    """Handle messages until the other side has gone, which raises EOFError. A reply says whether something is kept here
    for its SuperNode (`keeps`)."""
    while True:
        header, (content,) = receive(connection)
        node = header["node"]
        context = prepared.contexts[node]
        try:
            reply = app(delivered(take_record(content), node, header["kind"]), context)
        except Exception as error:  # the handler has logged it
            send(connection, {"error": str(error), "keeps": prepared.keeps(context)})
            continue
        memory = write_record(reply.content)
        send(connection, {"keeps": prepared.keeps(context)}, [memory])
        os.close(memory)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at the terminal reaches all; the program decides
    if can_fork():
        begin("fedapp-worker", int(sys.argv[3]))
    with socket.socket(fileno=int(sys.argv[1])) as server, suppress(EOFError, ConnectionError):
        work(server, prepare(server, json.loads(sys.argv[2])))
