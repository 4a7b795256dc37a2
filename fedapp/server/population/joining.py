"""What a SuperNode's preflight report must be for it to take part. One that fails costs the others nothing."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from fedapp.common.code_digest import code_digest, code_path
from fedapp.common.errors import FederationError
from fedapp.privacy.limits import HELPER
from fedapp.server.population.moments import are_shares
from fedapp.wire.preflight import PreflightReport

__all__ = [
    "AdmissionRules",
    "check_admission",
    "check_some_same_code",
    "claimed_twice",
    "helpers_of",
    "partitions_of",
    "who",
]


@dataclass(frozen=True)
class AdmissionRules:
    """Who may take part. `num_clients`: how many a simulation has. `backbone`: the digest of what of the server's model
    is frozen. `features`: of how many features moments are wanted; `shares`: which of them are shares of classes.
    `weight_bound`: as strategy.weight_bound. `helpers`: how many helper sites the run needs. `says_numbers`: the log
    may tell who joins, and how many are there. `min_supernodes` and `min_clients` are waited for, up to `wait_timeout`
    seconds, and a reply for up to `reply_timeout`."""

    num_clients: int
    min_clients: int = 1
    min_supernodes: int = 1
    wait_timeout: float = 60.0
    reply_timeout: float = 600.0
    backbone: str = ""
    features: int = 0
    shares: tuple[slice, ...] = ()
    weight_bound: float | str | None = None
    helpers: int = 0
    says_numbers: bool = True


def check_admission(report: PreflightReport, rules: AdmissionRules, partitions: int, bound: int | None = None) -> None:
    """Raises FederationError for a SuperNode that must not take part: other code, another's clients, another backbone,
    or moments of another form. `bound`: the client to whose number its registered key is bound."""
    if report.code != code_digest():
        raise FederationError(
            f"it runs other code than this ServerApp (SHA-256 {report.code[:12]}..., the server's"
            f" {code_digest()[:12]}...): give it the same version"
        )
    if report.fault:
        raise FederationError(report.fault)
    _check_claim(report, partitions, rules.num_clients)
    if not partitions and bound is not None and report.clients not in ((), (bound,)):
        raise FederationError(
            f"it says that it is client {report.clients[0]}, and its key is registered for client {bound}: its"
            f" node-config needs partition-id={bound}"
        )
    if report.clients and report.backbone != rules.backbone:  # an average would mean nothing
        raise FederationError(
            f"its frozen part of the model is another one (SHA-256 {report.backbone[:12]}..., the server's"
            f" {rules.backbone[:12]}...): give it the same weights (model.pretrained), and for text the same tokens"
            " (data.tokenizer)"
        )
    if rules.features and report.moments and report.moments["count"].shape[1] != rules.features:
        found = report.moments["count"].shape[1]
        raise FederationError(f"its moments are of {found} features, the data has {rules.features}")
    if report.moments and rules.features and not are_shares(report, rules.shares):
        raise FederationError("its counts by class are none that examples can have")


def _check_claim(report: PreflightReport, partitions: int, num_clients: int) -> None:
    """Refuse a SuperNode that says it is more clients than it can be: each has a vote, and weight.

    A device is one client. In a simulation over `partitions` SuperNodes it hosts those of `num_clients` that leave the
    same rest. Raises FederationError.
    """
    if not report.clients:
        return
    if report.role == HELPER:
        raise FederationError("a helper site is no client, and it says that it is one")
    if report.num_partitions != partitions:
        raise FederationError(
            f"its node-config says num-partitions={report.num_partitions or 'nothing'}, most others"
            f" {partitions or 'have data of their own'}; all must be alike"
        )
    if len(set(report.clients)) < len(report.clients):
        raise FederationError("it names a client twice")
    if not partitions:
        if len(report.clients) > 1:
            raise FederationError(f"a device is one client, and it says that it is {len(report.clients)}")
        return
    rest = report.clients[0] % partitions
    if not set(report.clients) <= set(range(rest, num_clients, partitions)):
        raise FederationError(f"it says that it hosts clients which are not its own: {list(report.clients)[:10]}")


def partitions_of(reports: Mapping[int, PreflightReport]) -> int:
    """Over how many SuperNodes a simulation's data is split, by what most of them say; 0 for devices."""
    voters = [r for r in reports.values() if not r.fault and r.code == code_digest() and r.role != HELPER]
    said = Counter(report.num_partitions for report in voters)
    return min(said, key=lambda number: (-said[number], number)) if said else 0


def helpers_of(reports: Mapping[int, PreflightReport]) -> tuple[int, ...]:
    """The SuperNodes that say they are helper sites. Clients decide whom of them they trust."""
    return tuple(sorted(node for node, report in reports.items() if report.role == HELPER))


def check_some_same_code(reports: Mapping[int, PreflightReport]) -> None:
    """Raises FederationError where every SuperNode runs other code than the server: no one of them is to blame."""
    if reports and all(report.code != code_digest() for report in reports.values()):
        node, report = next(iter(reports.items()))
        raise FederationError(
            f"SuperNode {node} runs other code than this ServerApp: it imported fedapp from"
            f" {report.code_path or 'elsewhere'}, the server from {code_path()}. In a simulation this happens when"
            " a local SuperLink that was started in another checkout is still running: end it (pkill -f"
            " flower-superlink) and run again, or use scripts/run.py, which starts its own"
        )


def claimed_twice(reports: Mapping[int, PreflightReport]) -> dict[int, list[int]]:
    """By client that several SuperNodes say they are, with examples to train on: those SuperNodes. Nothing tells which
    of them is right, so none is."""
    claims: dict[int, list[int]] = {}
    for node, report in sorted(reports.items()):
        for client, count, fault in zip(report.clients, report.num_examples, report.faults, strict=True):
            if count and not fault:
                claims.setdefault(client, []).append(node)
    return {client: nodes for client, nodes in claims.items() if len(nodes) > 1}


def who(what: str, report: PreflightReport) -> str:
    """A SuperNode or a client of it, with the name that its operator gave it, if there is one."""
    return f"{what} ({report.site})" if report.site else what
