"""Before round 1: who is there, how much data each client has, and whether everything fits together."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from fedapp.common.errors import FederationError
from fedapp.flower.registered import bound_clients
from fedapp.server.exchange import LONGEST_POLL, Exchange
from fedapp.server.population.count_bound import CountBound, count_bound
from fedapp.server.population.joining import (
    AdmissionRules,
    check_admission,
    check_some_same_code,
    claimed_twice,
    helpers_of,
    partitions_of,
    who,
)
from fedapp.server.population.moments import bounded_moments, merge_moments
from fedapp.wire.preflight import MOMENTS, PreflightReport, unpack_preflight
from fedapp.wire.records import said_of

__all__ = ["Population", "preflight", "query"]


@dataclass(frozen=True)
class Population:
    """All clients: where each lives and how many training examples it has. `faults` are those left out, with why.

    `supernodes` are all that were asked; in a simulation they share the data in `partitions` parts. `mean` and `std`
    are the features' scaling constants over all clients, where the schema asks for them. `bound`: what a client's
    count may weigh. `bounded`: by client, what of its report was bounded. `names`: what log and summary call a client,
    where its operator has named its site. `data`: by client, what shows whether its data is the same as before: the
    number of its examples, and of simulations their digest. `helpers`: SuperNodes of helper sites, not clients.
    """

    nodes: Mapping[int, int]
    num_examples: Mapping[int, int]
    faults: Mapping[str, str] = field(default_factory=dict)
    supernodes: frozenset[int] = frozenset()
    partitions: int = 0
    mean: Tensor | None = None
    std: Tensor | None = None
    bound: CountBound | None = None
    bounded: Mapping[int, str] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)
    data: Mapping[int, str] = field(default_factory=dict)
    helpers: tuple[int, ...] = ()


def preflight(exchange: Exchange, rules: AdmissionRules) -> Population:
    """Ask every SuperNode which clients it hosts. Raises FederationError if too few can take part, or all of them run
    other code."""
    grid, min_supernodes, wait_timeout = exchange.grid, rules.min_supernodes, rules.wait_timeout
    timeout = max(rules.reply_timeout, wait_timeout)  # a first reply includes starting up
    exchange.expect_reports(rules.num_clients, rules.features)
    nodes = wait_for_supernodes(grid, min_supernodes + rules.helpers, wait_timeout)
    reports, faults = _ask(exchange, nodes, timeout)
    # SuperNodes that share a simulation's data know how many they are; some may have come only now. One of them alone
    # cannot have the run wait for more than most say, or than there are clients. Helper sites are not counted.
    declared = min(partitions_of(reports), rules.num_clients)
    wanted = max(declared, min_supernodes) + len(helpers_of(reports))
    if wanted > len(nodes):
        late = [node for node in wait_for_supernodes(grid, wanted, wait_timeout) if node not in nodes]
        more, more_faults = _ask(exchange, late, timeout)
        reports, faults = reports | more, faults | more_faults
        nodes += late
        found = len(nodes) - len(helpers_of(reports))
        if found < min_supernodes:
            raise FederationError(
                f"{found} of {min_supernodes} SuperNodes came within {wait_timeout:g} s. Start the others, lower"
                " federation.min_supernodes, or raise federation.wait_timeout"
            )
        if found < declared:
            faults["other SuperNodes"] = f"{found} of {declared} came within {wait_timeout:g} s"
    check_some_same_code(reports)
    partitions, bound = partitions_of(reports), bound_clients(grid)
    for node, report in list(reports.items()):
        try:
            check_admission(report, rules, partitions, bound.get(node))
        except FederationError as error:
            faults[who(f"SuperNode {node}", report)] = str(error)
            del reports[node]
    helpers_there = helpers_of(reports)
    if len(helpers_there) < rules.helpers:
        reasons = "".join(f"\n  {name}: {why}" for name, why in sorted(faults.items()))
        raise FederationError(
            f"{len(helpers_there)} of {rules.helpers} helper sites are there, which secure_aggregation needs: start a"
            f" SuperNode with role=helper in its node-config (scripts/deploy/supernode --role helper){reasons}"
        )
    clients = {node: report for node, report in reports.items() if node not in helpers_there}
    population = _population(clients, faults, rules, devices=not partitions)
    return replace(population, supernodes=frozenset(nodes), partitions=partitions, helpers=helpers_there)


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
            faults[f"SuperNode {node}"] = f"preflight failed: {said_of(error)}"
    for node in nodes:
        if node not in reports:
            faults.setdefault(f"SuperNode {node}", f"no answer to the preflight within {timeout:g} s")
    return reports, faults


def _population(
    reports: Mapping[int, PreflightReport], faults: dict[str, str], rules: AdmissionRules, *, devices: bool
) -> Population:
    nodes: dict[int, int] = {}
    num_examples: dict[int, int] = {}
    moments: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
    called: dict[int, str] = {}
    data: dict[int, str] = {}
    twice = claimed_twice(reports)
    for client, claimants in twice.items():
        said = " and ".join(map(str, claimants))
        for node in claimants:
            faults[who(f"client {client} of SuperNode {node}", reports[node])] = (
                f"client {client} is claimed by SuperNodes {said}: give each a partition-id of its own"
            )
    for node, report in sorted(reports.items()):
        rows = zip(report.clients, report.num_examples, report.faults, strict=True)
        for position, (client, count, fault) in enumerate(rows):
            if fault or not count:
                faults[who(f"client {client}", report)] = fault or "no training example"
            elif client not in twice:
                nodes[client], num_examples[client] = node, count
                called[client] = who(f"client {client}", report)
                data[client] = f"{count} {report.data[position] if report.data else ''}".strip()
                if report.moments and rules.features:
                    count_, mean, squares = (report.moments[name][position] for name in MOMENTS)
                    moments[client] = count_, mean, squares
    if len(nodes) < rules.min_clients:
        reasons = "".join(f"\n  {', '.join(names)}: {why}" for why, names in _by_reason(faults).items())
        raise FederationError(
            f"{len(nodes)} clients can take part, federation.min_clients={rules.min_clients} are needed{reasons}"
        )
    bound = count_bound(rules.weight_bound, num_examples.values(), devices=devices)
    found = Population(nodes, num_examples, faults, bound=bound, names=called, data=data)
    if not moments:
        return found
    if not devices:  # the data is the server's own, and may be as unevenly spread as the partition has it
        mean, std = merge_moments([moments[client] for client in sorted(moments)])
        return replace(found, mean=mean, std=std)
    parts, bounded = bounded_moments(moments, num_examples, bound, rules.shares)
    mean, std = merge_moments(parts)
    return replace(found, mean=mean, std=std, bounded=bounded)


def _by_reason(faults: Mapping[str, str]) -> dict[str, list[str]]:
    """Who has which fault: SuperNodes of a simulation have the same ones."""
    found: dict[str, list[str]] = {}
    for name, why in sorted(faults.items()):
        found.setdefault(why, []).append(name)
    return found


def wait_for_supernodes(grid: Grid, minimum: int, timeout: float) -> list[int]:
    """Node ids once at least `minimum` SuperNodes are there, or those that came within `timeout` seconds."""
    start = time.monotonic()
    while True:
        nodes = sorted(grid.get_node_ids())
        waited = time.monotonic() - start
        if len(nodes) >= minimum or waited >= timeout:
            return nodes
        time.sleep(min(LONGEST_POLL, timeout - waited))
