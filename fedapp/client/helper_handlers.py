"""What a helper site does with a message: it is no client, and has no data."""

import logging
from collections.abc import Callable
from functools import lru_cache

from flwr.app import Context, RecordDict

from fedapp.aggregation.protocol import ClientHalf, dispatch, protocol_of
from fedapp.client.build import build_own_parts, only_own_paths
from fedapp.client.storage import simulated_run_directory
from fedapp.common.code_digest import code_digest, code_path
from fedapp.common.errors import FedappError, FederationError, told
from fedapp.common.state_digest import State
from fedapp.config import compose, split_overrides
from fedapp.data.shards import data_version, plays_helper
from fedapp.privacy.limits import HELPER, OwnLimits, is_helper, own_limits
from fedapp.wire.instruction import Instruction
from fedapp.wire.preflight import PreflightReport, pack_preflight
from fedapp.wire.reply import ClientReport

__all__ = ["HELPER_HANDLERS", "is_helper_site"]

log = logging.getLogger("flwr")


def is_helper_site(context: Context) -> bool:
    """By its node-config; in a simulation the last SuperNodes are, as many as the run needs."""
    return is_helper(context.node_config) or plays_helper(
        context.node_config, _helper_sites(str(context.run_config["overrides"]))
    )


@lru_cache(maxsize=4)
def _helper_sites(overrides: str) -> int:
    try:
        return protocol_of(compose(split_overrides(overrides))).helper_sites
    except FedappError:  # whoever opens the run says so
        return 0


@lru_cache(maxsize=4)
def _half(overrides: str, limits: OwnLimits, versions: tuple[str, ...]) -> ClientHalf:
    """Kept for the next message where the process lives on, unless its keys change (`versions`)."""
    config = compose(split_overrides(overrides))
    of_simulation = simulated_run_directory(config) if not limits.of_helper else None
    parent = limits.keep if limits.of_helper else of_simulation
    folder = parent / "helper" if parent is not None else None
    parts = build_own_parts(only_own_paths(config, limits) if limits.of_helper else config, limits)
    return protocol_of(config).helper(config, parts, limits, folder)  # whose digest is the clients', with all paths


def open_helper(context: Context) -> ClientHalf:
    """Raises FedappError for a config or a node-config that cannot work."""
    limits = own_limits(context.node_config)
    versions = tuple(data_version(file) for file in (limits.signing_key, limits.peers))
    return _half(str(context.run_config["overrides"]), limits, versions)


def helper_query(_: RecordDict, context: Context) -> RecordDict:
    """The preflight: a helper site, and whether it can do its part."""
    fault, on_device = "", is_helper(context.node_config)
    try:
        open_helper(context)
    except FedappError as error:
        log.error("this helper takes no part: %s", error)
        fault = told(error, on_device)
    path = "" if on_device else code_path()
    report = PreflightReport(
        code_digest(), path, fault=fault, role=HELPER, site=str(context.node_config.get("site-name", ""))
    )
    return pack_preflight(report)


def helper_stage(content: RecordDict, context: Context) -> RecordDict:
    """One stage of the run's aggregation protocol, as a helper."""

    def train(client: int, instruction: Instruction, model: State) -> tuple[ClientReport, State]:
        raise FederationError("a helper site has no data to train on")

    return dispatch(open_helper(context), content, context.state, train)


HELPER_HANDLERS: dict[str, Callable[[RecordDict, Context], RecordDict]] = {"query": helper_query, "train": helper_stage}
