"""The clients of a run as they come and go, and who is left out for a while."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from fedapp.privacy.limits import HELPER
from fedapp.server.population.joining import who
from fedapp.server.population.preflight import Population
from fedapp.server.population.spread import spread
from fedapp.wire.preflight import PreflightReport
from fedapp.wire.reply import ClientReport

__all__ = ["Roster"]


class Roster:
    """Where each client lives, how many examples it has, and whether it can be asked now.

    A client that failed `exclude_after` times in a row is not sampled for the next `exclude_rounds` rounds; after that,
    one more failure excludes it again, and one good update clears it. `present` and `busy` are SuperNodes; None for
    `present` means all. `bound`: what a client's count may weigh. `movable`: any SuperNode can do any client's work, as
    in simulations where it keeps nothing. `alone`: a SuperNode is one client, and none is taken in as a second.
    """

    def __init__(
        self,
        population: Population,
        *,
        exclude_after: int | None = None,
        exclude_rounds: int = 10,
        movable: bool = False,
        alone: bool = False,
    ) -> None:
        self.nodes = dict(population.nodes)
        self.num_examples = dict(population.num_examples)
        self.faults = dict(population.faults)
        self.bound, self.names, self._bounded = population.bound, dict(population.names), population.bounded
        self.present: Collection[int] | None = None
        self.busy: Collection[int] = ()
        self._helpers = set(population.helpers)
        self._movable, self._alone = movable, alone
        self._exclude_after, self._exclude_rounds = exclude_after, exclude_rounds
        self._failures: dict[int, int] = {}
        self._excluded: dict[int, int] = {}  # by client, the last round for which it is left out
        self.declined: set[int] = set()  # clients whose privacy budget is spent: never asked again

    @property
    def counted(self) -> dict[int, int]:
        """By client, how many of its examples count."""
        return {c: n if self.bound is None else self.bound.counted(n) for c, n in self.num_examples.items()}

    @property
    def bounded(self) -> dict[str, str]:
        """By name, the clients whose reports count only within bounds, and which."""
        found = [*self._bounded.items()]
        found += self.bound.exceeded(self.num_examples).items() if self.bound is not None else []
        said: dict[str, str] = {}
        for client, why in sorted(found):
            name = self.names.get(client, f"client {client}")
            said[name] = f"{said[name]}; {why}" if name in said else why
        return said

    @property
    def helpers(self) -> tuple[int, ...]:
        """The SuperNodes of helper sites that are there."""
        return tuple(sorted(node for node in self._helpers if self.present is None or node in self.present))

    def left_out(self, server_round: int) -> list[int]:
        """Clients that are excluded in this round."""
        return sorted(client for client, last in self._excluded.items() if last >= server_round)

    def reachable(self) -> list[int]:
        """Clients that could take part: their SuperNode is there, and they have not declined for good."""
        there = {c for c, node in self.nodes.items() if self.present is None or node in self.present}
        return sorted(there - self.declined)

    def available(self, server_round: int, minimum: int) -> list[int]:
        """Whom a round may ask: who is there, not busy and not excluded.

        Where those are fewer than `minimum`, also the busy, then the excluded, those first whose time ends first.
        """
        left_out = set(self.left_out(server_round))
        reachable = self.reachable()
        tiers = [
            [c for c in reachable if c not in left_out and self.nodes[c] not in self.busy],
            [c for c in reachable if c not in left_out and self.nodes[c] in self.busy],
            sorted((c for c in reachable if c in left_out), key=lambda c: (self._excluded[c], c)),
        ]
        found = tiers[0]
        for tier in tiers[1:]:
            found += tier[: max(0, minimum - len(found))]
        return sorted(found)

    def hosts(self, clients: Iterable[int]) -> dict[int, int]:
        """The SuperNode that is asked to do each client's work: where it lives, or, if that does not matter, one that
        has no more to do than the others."""
        homes = {client: self.nodes[client] for client in clients}
        if not self._movable:
            return homes
        free = {node for node in self.nodes.values() if self.present is None or node in self.present} - set(self.busy)
        return spread({client: self.num_examples[client] for client in homes}, free) if free else homes

    def host(self, client: int, at_work: Mapping[int, int]) -> int:
        """The same for one client. `at_work`: by SuperNode, how many examples it has to do already."""
        there = [node for node in self.nodes.values() if self.present is None or node in self.present]
        if not self._movable or not there:
            return self.nodes[client]
        return min(set(there), key=lambda node: (at_work.get(node, 0), node))

    def note(self, server_round: int, reports: Mapping[int, ClientReport]) -> dict[int, int]:
        """Count who failed in a round that is over, and exclude who did so too often in a row: those clients, with the
        last round for which they are left out."""
        excluded = {}
        for client, report in reports.items():
            if report.declined:
                self.declined.add(client)
            if report.rejected is None:
                self._failures.pop(client, None)
                continue
            self._failures[client] = self._failures.get(client, 0) + 1
            if self._exclude_after is not None and self._failures[client] >= self._exclude_after:
                excluded[client] = self._excluded[client] = server_round + self._exclude_rounds
        return excluded

    def admit(self, node: int, report: PreflightReport) -> list[str]:
        """Take in the clients of a SuperNode that joined during the run; why others of it are not."""
        if report.role == HELPER:
            self._helpers.add(node)
        faults = []
        rows: Iterable[tuple[int, int, str]] = zip(report.clients, report.num_examples, report.faults, strict=True)
        for client, count, fault in rows:
            home = self.nodes.get(client)
            if fault or not count:
                faults.append(f"{who(f'client {client}', report)}: {fault or 'no training example'}")
            elif home is not None and home != node and (self.present is None or home in self.present):
                faults.append(f"client {client} of SuperNode {node}: lives on SuperNode {home} already")
            elif self._alone and any(at == node and other != client for other, at in self.nodes.items()):
                faults.append(f"client {client} of SuperNode {node}: it is another client already, and may be one only")
            else:
                self.nodes[client], self.num_examples[client] = node, count
                self.names[client] = who(f"client {client}", report)
                self.faults.pop(who(f"client {client}", report), None)
        return faults

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, as JSON holds it."""
        return {
            "failures": {str(client): count for client, count in sorted(self._failures.items())},
            "excluded": {str(client): last for client, last in sorted(self._excluded.items())},
            "declined": sorted(self.declined),
            "median": None if self.bound is None else self.bound.median,
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self._failures = {int(client): int(count) for client, count in saved["failures"].items()}
        self._excluded = {int(client): int(last) for client, last in saved["excluded"].items()}
        self.declined = {int(client) for client in saved["declined"]}
        if self.bound is not None and saved.get("median") is not None:
            self.bound = replace(self.bound, median=int(saved["median"]))  # the run's, whoever is there today
