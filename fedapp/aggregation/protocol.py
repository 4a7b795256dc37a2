"""How a cohort's updates become one sum: what every aggregation protocol is to the server and to a client.

A protocol is an option of the group `secure_aggregation`: a frozen dataclass that a YAML file names, which makes two
halves. The server half asks a cohort, in one or several stages, and gives the sum. The client half answers each stage
by a handler of that name. Neither knows the strategy or the site: what they need of them is handed in.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Protocol

from flwr.app import Message, MessageType, RecordDict

from fedapp.aggregation.groups import alone
from fedapp.aggregation.helper_part import ClientHalf, Handler, HelperPart, Train
from fedapp.aggregation.reply_log import ReplyLog
from fedapp.common.errors import FederationError
from fedapp.common.state_digest import State
from fedapp.config import Config, option
from fedapp.wire.instruction import Instruction, Params, pack_instruction, stage_of, with_stage
from fedapp.wire.model import GlobalModel

if TYPE_CHECKING:
    from fedapp.aggregation.plain.update_buffer import UpdateBuffer
    from fedapp.learning.build import Parts
    from fedapp.privacy.limits import OwnLimits
    from fedapp.updates.steps import UpdateSteps

__all__ = [
    "Aggregate",
    "AggregationProtocol",
    "Ask",
    "ClientHalf",
    "Cohort",
    "Handler",
    "ServerHalf",
    "Train",
    "by_supernode",
    "dispatch",
    "protocol_of",
    "train_messages",
]

Ask = Callable[[Iterable[Message], float | None], Iterable[Message]]  # replies as they come, within so many seconds


@dataclass(frozen=True)
class Cohort:
    """Who is asked in a round, and for what.

    `instruction` names all clients of the cohort with their weights, which sum to one or less. `hosts`: by client, the
    SuperNode that does its work. With `needed` updates a round that asked more clients goes on; with fewer than
    `minimum` it changes nothing. A message lives for `message_ttl` seconds. `helpers`: the SuperNodes of helper sites.
    """

    instruction: Instruction
    hosts: Mapping[int, int]
    needed: int
    minimum: int
    message_ttl: float
    helpers: tuple[int, ...] = ()

    @cached_property
    def weights(self) -> dict[int, float]:
        return dict(zip(self.instruction.clients, self.instruction.weights, strict=True))

    def weighted_by(self, weights: Mapping[int, float]) -> "Cohort":
        """The same clients with other weights."""
        own = tuple(weights[client] for client in self.instruction.clients)
        return replace(self, instruction=replace(self.instruction, weights=own))

    @property
    def shares(self) -> dict[int, float]:
        """Weights that sum to one over those asked; empty where they have none."""
        weights = self.weights
        total = sum(weights[client] for client in sorted(weights))
        return {client: weight / total for client, weight in weights.items()} if total > 0 else {}

    def has_enough(self, replies: ReplyLog) -> bool:
        """Whether a round that asked more clients than it needs can do without the rest."""
        return len(self.hosts) > self.needed and len(replies.good) >= self.needed


@dataclass(frozen=True)
class Aggregate:
    """What came of a cohort: `total`, the sum of weight times update over `survivors` in float64, and the `weight` that
    it is to be divided by; or another mean of theirs, with a weight of 1. None and 0 where nothing could be aggregated.

    `scalars`: means over the survivors that were aggregated along with the updates; None where each client reports its
    own. `rounding`: by which L2 distance rounding may have moved the total. `replies` says what became of each client.
    `warnings`: by kind. `revealed`: with whom alone an unchanged model may be trained again. `next_model`: of a sum for
    the clients, what they begin with next. `plan`: the steps' public values, where the updates are of an earlier round.
    """

    total: State | None
    weight: float
    survivors: tuple[int, ...]
    replies: ReplyLog
    scalars: Mapping[str, float | None] | None = None
    rounding: float = 0.0
    warnings: Mapping[str, str] = field(default_factory=dict)
    revealed: tuple[int, ...] = ()
    next_model: State | None = None
    plan: Mapping[str, Params] | None = None


class ServerHalf(Protocol):
    def run(self, cohort: Cohort, model: GlobalModel, ask: Ask) -> Aggregate:
        """One round with `cohort`, whose clients begin with `model`."""

    def describe(self, cohort_size: int) -> None:
        """Log, before round 1, what it will do with cohorts of this size."""


class AggregationProtocol(HelperPart, ABC):
    """`individual_updates`: the server sees each client's update, so that robust rules work, and clients may report
    their own metrics. `exact`: the sum is the same bit for bit in whatever order replies arrive; summary.json says so.
    `keeps_state`: clients keep something between messages, so that a client's work stays on its own SuperNode.
    `takes_noised_integers`: it sums the whole numbers of a privacy option whose noise is the clients' own, in place of
    its own rounding, and holds to that option's least number of clients. `free_keys`: settings that may change where a
    run is resumed, since they do not change what it computes."""

    individual_updates: ClassVar[bool]
    exact: ClassVar[bool]
    keeps_state: ClassVar[bool]
    takes_noised_integers: ClassVar[bool] = False
    free_keys: ClassVar[frozenset[str]] = frozenset()

    def conflicts(self, config: "Config", parts: "Parts") -> None:
        """Raise ConfigError for a config or parts that do not go with this protocol."""

    def groups(self, clients: Collection[int]) -> list[tuple[int, ...]]:
        """Which of these clients are asked together or not at all (`Groups`)."""
        return alone(clients)

    def check_cohort(self, config: Config, parts: "Parts", needed: int, asked: int, clients: int) -> None:
        """Raise ConfigError for what cannot work with rounds that need so many updates and ask so many clients, of
        `clients` that are in complete groups."""

    @abstractmethod
    def server(self, config: "Config", parts: "Parts", steps: "UpdateSteps") -> ServerHalf:
        """`steps`: what is done to updates in this run."""

    def buffer(self, config: "Config", steps: "UpdateSteps") -> "UpdateBuffer | None":
        """What takes updates of several rounds into one sum; None where a sum is bound to one cohort and one model."""
        return None

    @abstractmethod
    def client(self, config: "Config", parts: "Parts", limits: "OwnLimits") -> ClientHalf:
        """`limits`: what the SuperNode's operator asks for. Raises ConfigError where this protocol cannot give that."""


def protocol_of(config: Config) -> AggregationProtocol:
    """Raises ConfigError."""
    return option("secure_aggregation", config.secure_aggregation, AggregationProtocol)


def dispatch(half: ClientHalf, content: RecordDict, state: RecordDict, train: Train) -> RecordDict:
    """The reply to a message of whichever stage. `state`: the SuperNode's, from message to message. Raises
    FederationError for a stage that the run's protocol does not have."""
    stage = stage_of(content)
    handler = half.stages.get(stage)
    if handler is None:
        raise FederationError(f"this run's aggregation protocol has no stage {stage}")
    return handler(content, state, train)


def by_supernode(clients: Iterable[int], hosts: Mapping[int, int]) -> dict[int, list[int]]:
    """By SuperNode, its clients in ascending order."""
    found: dict[int, list[int]] = defaultdict(list)
    for client in sorted(clients):
        found[hosts[client]].append(client)
    return found


def train_messages(cohort: Cohort, model: GlobalModel, stage: str, replies: ReplyLog) -> list[Message]:
    """The instruction to train, one message for each SuperNode that hosts clients of the cohort."""
    weights, messages = cohort.weights, []
    for node, clients in by_supernode(weights, cohort.hosts).items():
        own = replace(cohort.instruction, clients=tuple(clients), weights=tuple(weights[client] for client in clients))
        content = with_stage(pack_instruction(own, model), stage)
        replies.sent(content)
        group = str(cohort.instruction.server_round)
        messages.append(Message(content, node, MessageType.TRAIN, ttl=cohort.message_ttl, group_id=group))
    return messages
