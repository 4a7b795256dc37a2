"""The ClientApp: what a SuperNode does with each message."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from logging import ERROR
from pathlib import Path

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.common.logger import log

from fedapp.build_client import build_site
from fedapp.code_identity import code_digest, code_path
from fedapp.config import Config, compose, split_overrides
from fedapp.data.shards import hosted_clients, local_data_path, num_partitions
from fedapp.errors import ConfigError, FedappError
from fedapp.federation.site import Site
from fedapp.keeping import Folder, keep_result, open_account, open_kept, own_folder
from fedapp.privacy.limits import OwnLimits, own_limits
from fedapp.privacy.pinned import pin
from fedapp.wire.census import Census, pack_census
from fedapp.wire.instruction import unpack_instruction
from fedapp.wire.reply import pack_reply

__all__ = ["app"]

app = ClientApp()


@lru_cache(maxsize=4)
def _site(overrides: str, data_path: Path | None, limits: OwnLimits, folder: Folder | None) -> tuple[Config, Site]:
    """The site for these settings, kept for the next message where the process lives on, as in simulations."""
    config = compose(split_overrides(overrides))
    torch.set_num_threads(config.run.threads_per_client)
    return config, build_site(config, data_path, limits, folder)


def open_site(context: Context) -> tuple[Config, Site]:
    """This SuperNode's site. Raises FedappError for a config or a node-config that cannot work."""
    limits = own_limits(context.node_config)
    given = str(context.run_config["overrides"])
    config, site = _site(given, local_data_path(context.node_config), limits, own_folder(context.node_config))
    if config.privacy.name == "none":
        if limits.keys:
            raise ConfigError(f"privacy=none: this SuperNode's operator asks for privacy ({', '.join(limits.keys)})")
    elif limits.ledger is not None:
        settings = {key: value for key, value in config.data.items() if key not in ("path", "test_path")}
        pin(limits.ledger.with_name(f"{limits.ledger.name}.data"), settings)
    return config, site


@contextmanager
def only_kind_of_error_leaves() -> Iterator[None]:
    """Flower sends an exception's text to the server. It may hold data: only its kind goes, the rest is logged here."""
    try:
        yield
    except Exception as error:
        log(ERROR, "message failed", exc_info=error)
        raise RuntimeError(f"{type(error).__name__} (see the client's log)") from None


@app.query()
def query(message: Message, context: Context) -> Message:
    """The preflight: who is hosted here, with how much data, running which code."""
    with only_kind_of_error_leaves():
        return _query(message, context)


def _query(message: Message, context: Context) -> Message:
    try:
        config, site = open_site(context)
        open_account(context, config)  # what is wrong with it is said before round 1
        census = site.census(hosted_clients(context.node_config, context.node_id, config.federation.num_clients))
        census = replace(census, num_partitions=num_partitions(context.node_config))
    except FedappError as error:
        census = Census(code_digest(), code_path(), fault=str(error))
    name = str(context.node_config.get("site-name", ""))
    return Message(pack_census(replace(census, site=name)), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Evaluate the global model on each client asked for, train it there, and send back the sum of updates."""
    with only_kind_of_error_leaves():
        instruction, state = unpack_instruction(message.content)
        config, site = open_site(context)
        reply = site.train(instruction, state, open_kept(context, config, instruction.run))
        return Message(pack_reply(reply), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the global model on each client asked for, and keep it on a device if it is the run's result."""
    with only_kind_of_error_leaves():
        instruction, state = unpack_instruction(message.content)
        config, site = open_site(context)
        kept = open_kept(context, config, instruction.run)
        reply = site.evaluate(instruction, state, kept)
        if instruction.deliver and (folder := own_folder(context.node_config)) is not None:
            for client in instruction.clients:  # a device is one
                site.load(client, state, kept, instruction.server_round)
                keep_result(folder, config, instruction.run, site.whole.state_dict())
            reply = replace(reply, reports=tuple(replace(report, delivered=True) for report in reply.reports))
        return Message(pack_reply(reply), reply_to=message)
