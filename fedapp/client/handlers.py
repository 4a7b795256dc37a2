"""What a SuperNode does with each message, in whichever process: one of Flower's, or a warm worker."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from logging import ERROR
from pathlib import Path

import torch
from flwr.app import Context, RecordDict
from flwr.common.logger import log

from fedapp.aggregation.secaggplus.build import build_secure_site
from fedapp.aggregation.secaggplus.client import SecureSite
from fedapp.client.build import build_site
from fedapp.client.site import Site
from fedapp.client.storage import Folder, keep_result, open_account, open_kept, own_folder
from fedapp.common.code_digest import code_digest, code_path
from fedapp.common.errors import ConfigError, FedappError, FederationError
from fedapp.config import Config, compose, split_overrides
from fedapp.data.shards import data_version, hosted_clients, local_data_path, num_partitions
from fedapp.privacy.ledger import FileLedger
from fedapp.privacy.limits import OwnLimits, own_limits
from fedapp.privacy.pinned import pin
from fedapp.wire.instruction import unpack_instruction
from fedapp.wire.preflight import PreflightReport, pack_preflight
from fedapp.wire.reply import ClientReport, Reply, pack_reply

__all__ = ["answer", "open_site"]


def answer(kind: str, content: RecordDict, context: Context) -> RecordDict:
    """The content of the reply to a message of `kind`: query, train (or one of its stages) or evaluate.

    Raises RuntimeError, which names the kind of error and nothing else, for whatever goes wrong."""
    with only_kind_of_error_leaves():
        return KINDS[kind](content, context)


@lru_cache(maxsize=4)
def _site(
    overrides: str, data_path: Path | None, limits: OwnLimits, folder: Folder | None, data_version: str
) -> tuple[Config, Site]:
    """The site for these settings, kept for the next message where the process lives on: in simulations, and in a warm
    worker on a device, whose data may change meanwhile."""
    config = compose(split_overrides(overrides))
    return config, build_site(config, data_path, limits, folder)


def open_site(context: Context) -> tuple[Config, Site]:
    """This SuperNode's site. Raises FedappError for a config or a node-config that cannot work."""
    limits = own_limits(context.node_config)
    given = str(context.run_config["overrides"])
    path = local_data_path(context.node_config)
    config, site = _site(given, path, limits, own_folder(context.node_config), data_version(path))
    torch.set_num_threads(config.run.threads_per_client)  # another run's may have been other
    if limits.asks_for_secure_aggregation and config.secure_aggregation.name == "none":
        raise ConfigError(
            "secure_aggregation=none: this SuperNode's operator asks for secure aggregation (node-config min-cohort or"
            " peers)"
        )
    if config.privacy.name == "none":
        if limits.keys:
            raise ConfigError(f"privacy=none: this SuperNode's operator asks for privacy ({', '.join(limits.keys)})")
    elif limits.ledger is not None:
        settings = {key: value for key, value in config.data.items() if key not in ("path", "test_path")}
        with only_that_the_ledger_fails_leaves():
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


@contextmanager
def only_that_the_ledger_fails_leaves() -> Iterator[None]:
    """Why it does stays in the client's log."""
    try:
        yield
    except (OSError, FederationError) as error:
        log(ERROR, "node-config ledger-path: %s", error)
        raise ConfigError("ledger-path: the ledger cannot be read or written (see the client's log)") from None


def check_ledger(path: Path | None) -> None:
    """Raises ConfigError for a device's ledger into which no training could be written."""
    if path is not None:
        with only_that_the_ledger_fails_leaves():
            FileLedger(path).check()


def _query(_: RecordDict, context: Context) -> RecordDict:
    """The preflight: who is hosted here, with how much data, running which code."""
    try:
        config, site = open_site(context)
        if config.secure_aggregation.name != "none":
            build_secure_site(config, site, own_limits(context.node_config))  # what is wrong with its keys is said now
        open_account(context, config)  # what is wrong with it is said before round 1
        check_ledger(own_limits(context.node_config).ledger)
        census = site.census(hosted_clients(context.node_config, context.node_id, config.federation.num_clients))
        census = replace(census, num_partitions=num_partitions(context.node_config))
    except FedappError as error:
        census = PreflightReport(code_digest(), code_path(), fault=str(error))
    name = str(context.node_config.get("site-name", ""))
    return pack_preflight(replace(census, site=name))


def _train(content: RecordDict, context: Context) -> RecordDict:
    """Evaluate the global model on each client asked for, train it there, and send back the sum of updates."""
    instruction, state = unpack_instruction(content)
    config, site = open_site(context)
    if config.secure_aggregation.name != "none":
        raise ConfigError("secure_aggregation: in this run nothing is sent that was not masked")
    return pack_reply(site.train(instruction, state, open_kept(context, config, instruction.run)))


def _evaluate(content: RecordDict, context: Context) -> RecordDict:
    """Evaluate the global model on each client asked for, and keep it on a device if it is the run's result."""
    instruction, state = unpack_instruction(content)
    config, site = open_site(context)
    kept = open_kept(context, config, instruction.run)
    reply = site.evaluate(instruction, state, kept)
    if config.secure_aggregation.name != "none":  # no single client's figures
        reply = Reply(tuple(ClientReport(report.client, report.rejected) for report in reply.reports))
    if instruction.deliver and (folder := own_folder(context.node_config)) is not None:
        for client in instruction.clients:  # a device is one
            site.load(client, state, kept, instruction.server_round)
            keep_result(folder, config, instruction.run, site.whole.state_dict())
        reply = replace(reply, reports=tuple(replace(report, delivered=True) for report in reply.reports))
    return pack_reply(reply)


def _secure_site(context: Context) -> tuple[Config, SecureSite]:
    """Raises ConfigError where this run has no secure aggregation."""
    config, site = open_site(context)
    if config.secure_aggregation.name == "none":
        raise ConfigError("secure_aggregation=none: there are no stages in this run")
    return config, build_secure_site(config, site, own_limits(context.node_config))


def _keys(content: RecordDict, context: Context) -> RecordDict:
    return _secure_site(context)[1].keys(content, context.state)


def _shares(content: RecordDict, context: Context) -> RecordDict:
    return _secure_site(context)[1].shares(content, context.state)


def _masked(content: RecordDict, context: Context) -> RecordDict:
    """Train, and send back the sum of masked updates."""
    config, site = _secure_site(context)
    kept = open_kept(context, config, unpack_instruction(content)[0].run)
    return site.masked(content, context.state, kept)


def _unmask(content: RecordDict, context: Context) -> RecordDict:
    return _secure_site(context)[1].unmask(content, context.state)


KINDS: dict[str, Callable[[RecordDict, Context], RecordDict]] = {
    "query": _query,
    "train": _train,
    "train.keys": _keys,
    "train.shares": _shares,
    "train.masked": _masked,
    "train.unmask": _unmask,
    "evaluate": _evaluate,
}
