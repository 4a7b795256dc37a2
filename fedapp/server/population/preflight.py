"""Before round 1: who is there, how much data each client has, and whether everything fits together."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from flwr.app import Message, MessageType, RecordDict
from torch import Tensor

from fedapp.common.code_digest import code_digest, code_path
from fedapp.common.errors import FederationError
from fedapp.server.exchange import Exchange, wait_for_supernodes
from fedapp.wire.preflight import PreflightReport, unpack_preflight
from fedapp.wire.records import text

__all__ = [
    "AdmissionRules",
    "Population",
    "check_backbone",
    "check_claim",
    "check_same_code",
    "merge_moments",
    "preflight",
    "query",
    "who",
]


@dataclass(frozen=True)
class Population:
    """All clients: where each lives and how many training examples it has. `faults` are those left out, with why.

    `supernodes` are all that were asked; in a simulation they share the data in `partitions` parts. `mean` and `std`
    are the features' scaling constants over all clients, where the schema asks for them.
    """

    nodes: Mapping[int, int]
    num_examples: Mapping[int, int]
    faults: Mapping[str, str] = field(default_factory=dict)
    supernodes: frozenset[int] = frozenset()
    partitions: int = 0
    mean: Tensor | None = None
    std: Tensor | None = None


@dataclass(frozen=True)
class AdmissionRules:
    """Who may take part. `num_clients`: how many a simulation has. `backbone`: the digest of what of the server's model
    is frozen. `min_supernodes` and `min_clients` are waited for, up to `wait_timeout` seconds, and a reply for up to
    `reply_timeout`."""

    num_clients: int
    min_clients: int = 1
    min_supernodes: int = 1
    wait_timeout: float = 60.0
    reply_timeout: float = 600.0
    backbone: str = ""


def preflight(exchange: Exchange, rules: AdmissionRules) -> Population:
    """Ask every SuperNode which clients it hosts. Raises FederationError if too few can take part, or code differs."""
    grid, min_supernodes, wait_timeout = exchange.grid, rules.min_supernodes, rules.wait_timeout
    timeout = max(rules.reply_timeout, wait_timeout)  # a first reply includes starting up
    nodes = wait_for_supernodes(grid, min_supernodes, wait_timeout)
    if len(nodes) < min_supernodes:
        raise FederationError(
            f"{len(nodes)} of {min_supernodes} SuperNodes came within {wait_timeout:g} s. Start the others, lower"
            " federation.min_supernodes, or raise federation.wait_timeout"
        )
    reports, faults = _ask(exchange, nodes, timeout)
    # SuperNodes that share a simulation's data know how many they are; some may have come only now.
    declared = max((report.num_partitions for report in reports.values()), default=0)
    if declared > len(nodes):
        late = [node for node in wait_for_supernodes(grid, declared, wait_timeout) if node not in nodes]
        more, more_faults = _ask(exchange, late, timeout)
        reports, faults = reports | more, faults | more_faults
        nodes += late
        if len(nodes) < declared:
            faults["other SuperNodes"] = f"{len(nodes)} of {declared} came within {wait_timeout:g} s"
    check_same_code(reports)
    partitions = _partitions(reports)
    for node, report in list(reports.items()):
        try:
            check_claim(report, partitions, rules.num_clients)
            check_backbone(report, rules.backbone)
        except FederationError as error:
            faults[who(f"SuperNode {node}", report)] = str(error)
            del reports[node]
    population = _population(reports, faults, rules.min_clients)
    return replace(population, supernodes=frozenset(nodes), partitions=partitions)


def _partitions(reports: Mapping[int, PreflightReport]) -> int:
    """Over how many SuperNodes a simulation's data is split, by what most of them say; 0 for devices."""
    said = Counter(report.num_partitions for report in reports.values() if not report.fault)
    return min(said, key=lambda number: (-said[number], number)) if said else 0


def check_claim(report: PreflightReport, partitions: int, num_clients: int) -> None:
    """Refuse a SuperNode that says it is more clients than it can be: each has a vote, and weight.

    A device is one client. In a simulation over `partitions` SuperNodes it hosts those of `num_clients` that leave the
    same rest. Raises FederationError.
    """
    if report.fault or not report.clients:
        return
    if report.num_partitions != partitions:
        raise FederationError(
            f"its node-config says num-partitions={report.num_partitions or 'nothing'}, most others"
            f" {partitions or 'have data of their own'}; all must be alike"
        )
    if not partitions:
        if len(report.clients) > 1:
            raise FederationError(f"a device is one client, and it says that it is {len(report.clients)}")
        return
    rest = report.clients[0] % partitions
    if not set(report.clients) <= set(range(rest, num_clients, partitions)):
        raise FederationError(f"it says that it hosts clients which are not its own: {list(report.clients)[:10]}")


def check_backbone(report: PreflightReport, backbone: str) -> None:
    """Refuse a SuperNode whose frozen part of the model is another one: an average would mean nothing."""
    if not report.fault and report.backbone != backbone:
        raise FederationError(
            f"its frozen part of the model is another one (SHA-256 {report.backbone[:12]}..., the server's"
            f" {backbone[:12]}...): give it the same weights (model.pretrained)"
        )


def who(what: str, report: PreflightReport) -> str:
    """A SuperNode or a client of it, with the name that its operator gave it, if there is one."""
    return f"{what} ({report.site})" if report.site else what


def query(node: int, timeout: float) -> Message:
    """The question of the preflight."""
    return Message(RecordDict(), node, MessageType.QUERY, ttl=timeout)


def _ask(exchange: Exchange, nodes: list[int], timeout: float) -> tuple[dict[int, PreflightReport], dict[str, str]]:
    """The report of every SuperNode that gives one, and what is wrong with the others."""
    reports: dict[int, PreflightReport] = {}
    faults: dict[str, str] = {}
    for reply in exchange([query(node, timeout) for node in nodes], timeout):
        node = reply.metadata.src_node_id
        try:
            if reply.has_error():
                raise ValueError(reply.error.reason)
            reports[node] = unpack_preflight(reply.content)
        except Exception as error:  # whatever a SuperNode sends must cost no more than its own part in the run
            faults[f"SuperNode {node}"] = f"preflight failed: {text(error) or type(error).__name__}"
    for node in nodes:
        if node not in reports:
            faults.setdefault(f"SuperNode {node}", f"no answer to the preflight within {timeout:g} s")
    return reports, faults


def check_same_code(reports: Mapping[int, PreflightReport]) -> None:
    """Refuse SuperNodes that run other code than the server: another checkout, or an older bundle."""
    for node, report in reports.items():
        if report.code != code_digest():
            raise FederationError(
                f"SuperNode {node} runs other code than this ServerApp: it imported fedapp from"
                f" {report.code_path or 'elsewhere'}, the server from {code_path()}. In a simulation this happens when"
                " a local SuperLink that was started in another checkout is still running: end it (pkill -f"
                " flower-superlink) and run again, or use scripts/run.py, which starts its own"
            )


def _population(reports: Mapping[int, PreflightReport], faults: dict[str, str], min_clients: int) -> Population:
    nodes: dict[int, int] = {}
    num_examples: dict[int, int] = {}
    moments: dict[int, tuple[Tensor, ...]] = {}
    for node, report in sorted(reports.items()):
        if report.fault:
            faults[who(f"SuperNode {node}", report)] = report.fault
        rows = zip(report.clients, report.num_examples, report.faults, strict=True)
        for position, (client, count, fault) in enumerate(rows):
            if client in nodes:
                raise FederationError(
                    f"client {client} is claimed by SuperNodes {nodes[client]} and {node}: give each a partition-id of"
                    " its own"
                )
            if fault or not count:
                faults[who(f"client {client}", report)] = fault or "no training example"
                continue
            nodes[client], num_examples[client] = node, count
            if report.moments:
                moments[client] = tuple(report.moments[name][position] for name in ("count", "mean", "squares"))
    if len(nodes) < min_clients:
        reasons = "".join(f"\n  {', '.join(who)}: {why}" for why, who in _by_reason(faults).items())
        raise FederationError(
            f"{len(nodes)} clients can take part, federation.min_clients={min_clients} are needed{reasons}"
        )
    mean, std = merge_moments([moments[client] for client in sorted(moments)]) if moments else (None, None)
    return Population(nodes, num_examples, faults, mean=mean, std=std)


def _by_reason(faults: Mapping[str, str]) -> dict[str, list[str]]:
    """Who has which fault: SuperNodes of a simulation have the same ones."""
    found: dict[str, list[str]] = {}
    for who, why in sorted(faults.items()):
        found.setdefault(why, []).append(who)
    return found


def merge_moments(parts: list[tuple[Tensor, ...]]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature over all clients, from (count, mean, squares) of each.

    Pairwise update of Chan, Golub and LeVeque (1983); numerically sound where summing squares is not.
    """
    count, mean, squares = (part.double().clone() for part in parts[0])
    for other_count, other_mean, other_squares in parts[1:]:
        total = count + other_count
        share = torch.where(total > 0, other_count / total.clamp(min=1), 0.0)
        delta = other_mean - mean
        mean = mean + delta * share
        squares = squares + other_squares + delta.square() * count * share
        count = total
    return mean, (squares / count.clamp(min=1)).sqrt()
