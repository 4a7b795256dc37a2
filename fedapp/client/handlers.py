"""What a SuperNode does with each message, in whichever process: one of Flower's, or a warm worker."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from flwr.app import Context, RecordDict

from fedapp.aggregation.conflicts import check_options
from fedapp.aggregation.protocol import AggregationProtocol, ClientHalf, dispatch, protocol_of
from fedapp.client.build import build_site
from fedapp.client.helper_handlers import HELPER_HANDLERS, is_helper_site
from fedapp.client.own_work import begin_training, check_own, use_threads
from fedapp.client.party.party_handlers import PARTY_HANDLERS, has_parties
from fedapp.client.received_models import restored
from fedapp.client.site import Site
from fedapp.client.site_preflight import preflight_of
from fedapp.client.storage import (
    Folder,
    check_disk,
    check_resumable,
    device_ledger,
    open_account,
    open_received,
    open_storage,
    storage_folder,
    store_result,
)
from fedapp.common.code_digest import code_digest, code_path
from fedapp.common.errors import ConfigError, FedappError, FederationError, told
from fedapp.common.state_digest import State
from fedapp.config import Config, compose, split_overrides
from fedapp.data.shards import data_version, hosted_clients, local_data_path, num_partitions
from fedapp.models.shared_state import shared_state
from fedapp.privacy.limits import OwnLimits, own_limits
from fedapp.privacy.option import PrivacyOption, privacy_of
from fedapp.wire.differences import brings_model, pack_has, pack_lacks, refuse_differences
from fedapp.wire.instruction import Instruction, run_of, unpack_instruction
from fedapp.wire.preflight import PreflightReport, pack_preflight
from fedapp.wire.reply import ClientReport, Reply, pack_reply

__all__ = ["handle", "open_run"]

log = logging.getLogger("flwr")

Handler = Callable[[RecordDict, Context], RecordDict]


def handle(kind: str, content: RecordDict, context: Context) -> RecordDict:
    """The content of the reply to a message of `kind`: query, train or evaluate.

    Raises RuntimeError, which names the kind of error and nothing else, for whatever goes wrong: Flower sends an
    exception's text to the server, and it may hold data.
    """
    try:
        if has_parties(context):
            return PARTY_HANDLERS[kind](content, context)
        return (HELPER_HANDLERS if is_helper_site(context) else HANDLERS)[kind](content, context)
    except Exception as error:
        log.error("message failed", exc_info=error)
        raise RuntimeError(f"{type(error).__name__} (see the client's log)") from None


@dataclass(frozen=True)
class SiteRun:
    """This SuperNode's side of a run."""

    config: Config
    site: Site
    protocol: AggregationProtocol
    half: ClientHalf
    privacy: PrivacyOption


@lru_cache(maxsize=4)
def _run(
    overrides: str, data_path: Path | None, limits: OwnLimits, folder: Folder | None, versions: tuple[str, ...]
) -> SiteRun:
    """The run of these settings, kept where the process lives on: a device's data and keys may change (`versions`)."""
    config = compose(split_overrides(overrides))
    protocol, privacy = protocol_of(config), privacy_of(config)
    limits.check(sums=(protocol.individual_updates, protocol.helper_sites), spends=privacy.spends)
    site = build_site(config, data_path, limits, folder, seen=protocol.individual_updates)
    check_options(config, site.parts, protocol, privacy, site.steps)  # a server need not have looked
    return SiteRun(config, site, protocol, protocol.client(config, site.parts, limits), privacy)


def open_run(context: Context) -> SiteRun:
    """Raises FedappError for a config or a node-config that cannot work, and for what the operator does not accept."""
    limits = own_limits(context.node_config)
    given = str(context.run_config["overrides"])
    path = local_data_path(context.node_config)
    versions = tuple(data_version(file) for file in (path, limits.signing_key, limits.peers, limits.helper))
    run = _run(given, path, limits, storage_folder(context.node_config), versions)
    use_threads(run.config.run.threads_per_client, on_device=path is not None)
    run.privacy.check_site(limits, run.config.data)
    return run


def _query(_: RecordDict, context: Context) -> RecordDict:
    """The preflight: who is hosted here, with how much data, running which code."""
    try:
        run = open_run(context)
        open_account(context, run.config, run.site)  # what is wrong with it is said before round 1
        check_disk(context, run.config, run.site)
        if run.site.steps.keeps_state:
            check_resumable(context, run.config)
        _check_ledger(context, run.site.protection.unit)
        helpers, node = run.protocol.helper_sites, context.node_config
        clients = hosted_clients(node, context.node_id, run.config.federation.num_clients, helpers)
        report = replace(preflight_of(run.site, clients), num_partitions=num_partitions(node, helpers))
    except FedappError as error:
        log.error("this SuperNode takes no part: %s", error)
        on_device = "data-path" in context.node_config
        path = "" if on_device else code_path()
        report = PreflightReport(code_digest(), path, fault=told(error, on_device))
    return pack_preflight(replace(report, site=str(context.node_config.get("site-name", ""))))


def _train(content: RecordDict, context: Context) -> RecordDict:
    """One stage of the run's aggregation protocol; in one of them the clients train."""
    run = open_run(context)

    def train(client: int, instruction: Instruction, model: State) -> tuple[ClientReport, State]:
        begin_training(instruction, context)
        storage = open_storage(context, run.config, run.site, instruction.run)
        report, update = run.site.train(client, instruction, model, storage)
        folder = storage_folder(context.node_config)
        if update and instruction.run and folder is not None:
            folder.runs.note_training(instruction.run)
        return report, update

    return dispatch(run.half, content, context.state, train)


def _evaluate(content: RecordDict, context: Context) -> RecordDict:
    """Evaluate the global model on each client asked for, and store it on a device if it is the run's result."""
    instruction, model = unpack_instruction(content)
    check_own(instruction, context)
    run = open_run(context)
    model = run.half.opened(instruction, model, context.state)
    storage = open_storage(context, run.config, run.site, instruction.run)
    if instruction.candidate and run.protocol.individual_updates:  # else no client's own figures leave it
        return pack_reply(run.site.judge(instruction, model, storage))
    # A training like any other: the operator's limits hold.
    if (own := run.site.own) is not None and own.will_train(instruction, storage.heads):
        begin_training(replace(instruction, server_round=instruction.server_round + 1), context)
    reply = run.site.evaluate(instruction, model, storage)
    if not run.protocol.individual_updates:  # nor single clients' metrics
        reply = Reply(tuple(ClientReport(report.client, report.rejected) for report in reply.reports))
    if instruction.deliver and instruction.run and (folder := storage_folder(context.node_config)) is not None:
        for client in instruction.clients:  # a device is one
            run.site.load_result(client, model, storage, instruction.server_round)
            store_result(folder, run.config, instruction.run, run.site.whole.state_dict())
        reply = replace(reply, reports=tuple(replace(report, delivered=True) for report in reply.reports))
    return pack_reply(reply)


def _check_ledger(context: Context, unit: str) -> None:
    """Raises ConfigError for a device's ledger into which no training could be written. Why stays in its log."""
    path = own_limits(context.node_config).ledger
    try:
        if path is not None:
            device_ledger(context.node_config, path, unit).check()
    except (OSError, FederationError) as error:
        log.error("node-config ledger-path: %s", error)
        raise ConfigError("ledger-path: the ledger cannot be read or written (see the client's log)") from None


def _with_whole_model(handler: Handler) -> Handler:
    """A handler of messages that bring the model, or differences from one that this SuperNode has: it gets the whole,
    which is then stored, so that the next message may bring differences."""

    def handled(content: RecordDict, context: Context) -> RecordDict:
        run = open_run(context)
        if (codec := run.site.codec) is None or not brings_model(content):
            refuse_differences(content)
            return handler(content, context)
        store = open_received(context, run.config, run.site, run_of(content))
        found = restored(content, store, codec, list(shared_state(run.site.model)))
        if found is None:
            return pack_lacks()
        reply = handler(found.content, context)
        try:
            store.keep(found.sha256, found.model)
        except (OSError, FedappError) as error:
            log.warning("the model is not stored, so that the next one comes whole: %s", error)
        else:
            pack_has(reply, found.sha256)
        return reply

    return handled


HANDLERS: dict[str, Handler] = {
    "query": _query,
    "train": _with_whole_model(_train),
    "evaluate": _with_whole_model(_evaluate),
}
