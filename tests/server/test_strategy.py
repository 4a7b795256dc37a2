"""The strategy against sums done by hand, and against replies that are wrong."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord
from flwr.supercore.task_identity import TaskIdentity
from torch import Tensor

from fedapp.aggregation.exact_sum import WeightedSum
from fedapp.aggregation.plain.server import PlainServer
from fedapp.aggregation.protocol import Aggregate
from fedapp.aggregation.rules import AggregationRule, MultiKrum
from fedapp.aggregation.weighted_mean import WeightedMean
from fedapp.common.state_digest import State
from fedapp.config import compose
from fedapp.data.source import Schema
from fedapp.learning.build import optimizer_factory
from fedapp.learning.tasks.classification import Classification
from fedapp.server.outcome import federated_metrics
from fedapp.server.population.cohort import CohortRule
from fedapp.server.population.count_bound import CountBound, count_bound
from fedapp.server.population.preflight import Population
from fedapp.server.population.roster import Roster
from fedapp.server.server_optimizer import ServerOptimizer
from fedapp.server.strategy import WeightedFedAvg
from fedapp.updates.norm_limit import NormLimit
from fedapp.updates.step import StepState, UpdateRejected, UpdateStep
from fedapp.updates.steps import ENCODED, UpdateSteps, flatten
from fedapp.wire.instruction import Params, unpack_instruction
from fedapp.wire.model import GlobalModel
from fedapp.wire.records import arrays_to_state, state_to_arrays
from fedapp.wire.reply import ClientReport, Reply, pack_reply

STATE = {
    "w": torch.tensor([1.0, -2.0]),
    "running_mean": torch.tensor([0.5]),
    "num_batches_tracked": torch.tensor(7),
}
UPDATES = {
    0: {"w": torch.tensor([1.0, 0.0]), "running_mean": torch.tensor([1.0])},
    1: {"w": torch.tensor([0.0, 2.0]), "running_mean": torch.tensor([3.0])},
    2: {"w": torch.tensor([4.0, 4.0]), "running_mean": torch.tensor([0.0])},
}
COUNTS = {0: 10, 1: 30, 2: 60}
HOSTS = {client: 100 + client for client in COUNTS}
TASK = Classification(Schema((2,), ("a", "b")))


@pytest.fixture(autouse=True)
def identity() -> None:
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1


def make(
    *,
    minimum: int = 1,
    max_update_norm: float | None = None,
    aggregation: Callable[[State], AggregationRule] = WeightedMean,
    server_optimizer: Callable[..., torch.optim.Optimizer] = lambda p: torch.optim.SGD(p, lr=1.0),
    hosts: Mapping[int, int] = HOSTS,
    exclude_after: int | None = None,
    counts: Mapping[int, int] = COUNTS,
    bound: CountBound | None = None,
) -> WeightedFedAvg:
    """A strategy over three clients, each on a SuperNode of its own unless `hosts` says otherwise."""
    steps = UpdateSteps((NormLimit(max_update_norm),) if max_update_norm is not None else ())
    return WeightedFedAvg(
        Roster(Population(hosts, counts, bound=bound), exclude_after=exclude_after),
        CohortRule(seed=0, minimum=minimum),
        PlainServer(aggregation, steps),
        steps,
        ServerOptimizer(["w"], server_optimizer),
        TASK,
    )


def reply_to(message: Message, reply: Reply) -> Message:
    return Message(pack_reply(reply), reply_to=message)


def good_reply(message: Message, **claims: int) -> Message:
    (client,) = unpack_instruction(message.content)[0].clients
    report = ClientReport(client, num_examples=claims.get("num_examples", 1), steps=1, train_loss=0.5)
    return reply_to(message, Reply((report,), {client: UPDATES[client]}))


Answer = Callable[[Message], list[Message]]


def played(strategy: WeightedFedAvg, answer: Answer, server_round: int = 1) -> tuple[State | None, Aggregate]:
    def ask(messages: Iterable[Message], _: float | None) -> Iterator[Message]:
        return (reply for message in messages for reply in answer(message))

    model, aggregate = strategy.train(strategy.choose(server_round, ""), GlobalModel(STATE), ask)
    return (model.state if model is not None else None), aggregate


def one_round(strategy: WeightedFedAvg, answer: Answer, server_round: int = 1) -> State:
    state, _ = played(strategy, answer, server_round)
    assert state is not None
    return state


def faults(aggregate: Aggregate) -> dict[int, str]:
    """By client, what it did wrong."""
    reports = aggregate.replies.reports.values()
    return {report.client: report.rejected for report in reports if report.rejected is not None}


def mean_of(clients: list[int], key: str) -> Tensor:
    total = sum(COUNTS[c] for c in clients)
    return sum((UPDATES[c][key].double() * COUNTS[c] / total for c in clients), torch.zeros(1)).float()


def test_plain_fedavg_moves_by_the_weighted_mean() -> None:
    new = one_round(make(), lambda m: [good_reply(m)])
    assert torch.allclose(new["w"], STATE["w"] + mean_of([0, 1, 2], "w"), atol=1e-7)
    assert torch.allclose(new["running_mean"], STATE["running_mean"] + mean_of([0, 1, 2], "running_mean"), atol=1e-7)


def test_integer_entries_keep_value_and_dtype() -> None:
    new = one_round(make(), lambda m: [good_reply(m)])
    assert new["num_batches_tracked"].dtype == torch.int64
    assert int(new["num_batches_tracked"]) == 7


@pytest.mark.parametrize("claim", [60, 2**53])
def test_a_rejected_client_of_any_claim_costs_the_others_nothing(claim: int) -> None:
    counts = COUNTS | {2: claim}
    strategy = make(counts=counts, bound=count_bound("auto", counts.values(), devices=True))
    new = one_round(strategy, only_third(with_arrays({"w": torch.full((2,), torch.nan)})))
    assert torch.allclose(new["w"], STATE["w"] + mean_of([0, 1], "w"), rtol=1e-7)


def test_weights_are_the_servers_and_not_what_a_client_claims() -> None:
    honest = one_round(make(), lambda m: [good_reply(m)])
    greedy = one_round(make(), lambda m: [good_reply(m, num_examples=10**12)])
    assert torch.equal(honest["w"], greedy["w"])


def test_server_momentum_is_fedavgm() -> None:
    strategy = make(server_optimizer=lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9))
    mean = mean_of([0, 1, 2], "w")
    first = one_round(strategy, lambda m: [good_reply(m)], 1)
    second = one_round(strategy, lambda m: [good_reply(m)], 2)
    assert torch.allclose(first["w"], STATE["w"] + 0.5 * mean, atol=1e-6)
    assert torch.allclose(second["w"], STATE["w"] + 0.5 * (0.9 * mean + mean), atol=1e-6)
    # Statistics are averaged, not stepped by the optimizer.
    assert torch.allclose(first["running_mean"], STATE["running_mean"] + mean_of([0, 1, 2], "running_mean"))


def two_rounds(option: str) -> tuple[Tensor, Tensor, Tensor]:
    """How far the two rounds of a committed strategy move "w", and the mean update of each, all float64."""
    strategy = make(
        server_optimizer=optimizer_factory(
            "server_optimizer", compose([f"strategy={option}"]).strategy.server_optimizer
        )
    )
    first = one_round(strategy, lambda m: [good_reply(m)], 1)
    second = one_round(strategy, lambda m: [good_reply(m)], 2)
    start = STATE["w"].double()
    return first["w"].double() - start, second["w"].double() - start, mean_of([0, 1, 2], "w").double()


def test_fedavgm_by_hand() -> None:
    first, second, mean = two_rounds("fedavgm")
    assert torch.allclose(first, mean, atol=1e-6)
    assert torch.allclose(second, 0.9 * mean + mean, atol=1e-6)


def test_fedadam_by_hand() -> None:
    first, second, mean = two_rounds("fedadam")
    # The same pseudo-gradient twice: bias-corrected, both moments are it and its square, whatever the betas.
    step = 0.01 * mean / (mean.abs() + 0.001)
    assert torch.allclose(first, step, atol=1e-6)
    assert torch.allclose(second, step, atol=1e-6)


def test_fedadagrad_by_hand() -> None:
    first, second, mean = two_rounds("fedadagrad")
    assert torch.allclose(first, 0.01 * mean / (mean.abs() + 0.001), atol=1e-6)
    assert torch.allclose(second, 0.01 * mean / ((2 * mean**2).sqrt() + 0.001), atol=1e-6)


def with_arrays(change: dict[str, Tensor], drop: str = "") -> Answer:
    def answer(message: Message) -> list[Message]:
        (client,) = unpack_instruction(message.content)[0].clients
        if client != 2:
            return [good_reply(message)]
        arrays = {key: value for key, value in {**UPDATES[2], **change}.items() if key != drop}
        return [reply_to(message, Reply((ClientReport(2),), {2: arrays}))]

    return answer


def only_third(bad: Answer) -> Answer:
    def answer(message: Message) -> list[Message]:
        (client,) = unpack_instruction(message.content)[0].clients
        return bad(message) if client == 2 else [good_reply(message)]

    return answer


def spoilt(message: Message) -> list[Message]:
    content = pack_reply(Reply((ClientReport(2),), {2: UPDATES[2]}))
    del content["metrics"]
    return [Message(content, reply_to=message)]


def garbled(data: bytes) -> Answer:
    def answer(message: Message) -> list[Message]:
        content = pack_reply(Reply((ClientReport(2),), {2: UPDATES[2]}))
        content["arrays-2"]["w"].data = data
        return [Message(content, reply_to=message)]

    return only_third(answer)


def metrics(**changed: float) -> Answer:
    """A sound update with impossible metrics beside it."""

    def answer(message: Message) -> list[Message]:
        content = pack_reply(Reply((ClientReport(2),), {2: UPDATES[2]}))
        for name, value in changed.items():
            content["metrics"][name.replace("_", "-")] = [value]
        return [Message(content, reply_to=message)]

    return only_third(answer)


BAD = {
    "NaN": (with_arrays({"w": torch.tensor([float("nan"), 0])}), "non-finite"),
    "infinite": (with_arrays({"w": torch.tensor([float("inf"), 0])}), "non-finite"),
    "shape": (with_arrays({"w": torch.zeros(1, 2)}), "wrong shape"),
    "dtype": (with_arrays({"w": torch.zeros(2, dtype=torch.float64)}), "wrong dtype"),
    "missing key": (with_arrays({}, drop="running_mean"), "wrong keys"),
    "extra key": (with_arrays({"z": torch.zeros(1)}), "wrong keys"),
    "huge norm": (with_arrays({"w": torch.tensor([300.0, 0.0])}), "update norm 300 above 100"),
    "out of range": (with_arrays({"w": torch.tensor([2.0**21, 0.0])}), "out of range"),
    "error reply": (only_third(lambda m: [Message(Error(7, "boom"), reply_to=m)]), "boom"),
    "silence": (only_third(lambda m: []), "no reply in time"),
    "other client": (only_third(lambda m: [reply_to(m, Reply((ClientReport(0),), {0: UPDATES[0]}))]), "bad reply"),
    "no metrics": (only_third(spoilt), "bad reply"),
    "garbled array": (garbled(b"not an array"), "bad reply"),
    "no bytes": (garbled(b""), "bad reply"),
    "a zip file": (garbled(b"PK\x03\x04" + bytes(60)), "bad reply"),
    "infinite count": (metrics(num_examples=float("inf")), "whole number"),
    "negative count": (metrics(val_examples=-5.0), "expected a count"),
    "half a step": (metrics(steps=0.5), "whole number"),
    "sum too large": (
        only_third(
            lambda m: [
                reply_to(
                    m,
                    Reply(
                        (ClientReport(2),),
                        total={"w": torch.full((2,), 2**62), "running_mean": torch.zeros(1, dtype=torch.int64)},
                    ),
                )
            ]
        ),
        "a sum for 1 clients",
    ),
}


def together(change: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda total: total) -> Answer:
    """Clients 0 and 1 live on one SuperNode, which sends their sum as it is after `change`."""

    def answer(message: Message) -> list[Message]:
        instruction, _ = unpack_instruction(message.content)
        if len(instruction.clients) == 1:
            return [good_reply(message)]
        total = WeightedSum(UPDATES[0])
        for client, weight in zip(instruction.clients, instruction.weights, strict=True):
            total.add(UPDATES[client], weight)
        reports = tuple(ClientReport(client) for client in instruction.clients)
        return [reply_to(message, Reply(reports, total=change(dict(total.totals))))]

    return answer


SHARED = {0: 100, 1: 100, 2: 102}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_reply_is_rejected_alone(name: str) -> None:
    answer, reason = BAD[name]
    new, aggregate = played(make(max_update_norm=100.0), answer)
    assert new is not None
    # The good clients' average is exactly what it would have been without the bad one.
    expected = one_round(make(), only_third(lambda m: []))
    assert torch.equal(new["w"], expected["w"])
    assert torch.allclose(new["w"], STATE["w"] + mean_of([0, 1], "w"), atol=1e-7)
    assert list(faults(aggregate)) == [2]
    assert reason in faults(aggregate)[2]
    assert aggregate.survivors == (0, 1)


def test_a_second_reply_and_one_of_another_round_are_dropped() -> None:
    strategy = make()
    late: list[Message] = []

    def twice(message: Message) -> list[Message]:
        late.append(good_reply(message))
        return [good_reply(message), good_reply(message)]

    new, aggregate = played(strategy, twice, 1)
    assert new is not None
    assert torch.allclose(new["w"], STATE["w"] + mean_of([0, 1, 2], "w"), atol=1e-7)
    assert aggregate.replies.strays == [f"SuperNode {node} answered twice" for node in HOSTS.values()]
    assert not faults(aggregate)

    def after_a_late_one(message: Message) -> list[Message]:
        return [late[0], good_reply(message)] if message.metadata.dst_node_id == 100 else [good_reply(message)]

    _, aggregate = played(strategy, after_a_late_one, 2)
    assert aggregate.replies.strays == ["SuperNode 100 replied too late: to round 1"]
    assert not faults(aggregate)


def test_nobody_has_no_mean() -> None:
    """Not even where a round needs nobody."""
    new, aggregate = played(make(minimum=0), lambda m: [])
    assert new is None
    assert (aggregate.total, aggregate.survivors) == (None, ())


def test_too_few_good_replies_change_nothing() -> None:
    new, aggregate = played(make(minimum=3), only_third(lambda m: []))
    assert new is None
    assert (aggregate.total, aggregate.survivors) == (None, ())
    assert aggregate.replies.unused == dict.fromkeys((0, 1), "nothing was aggregated: too few good replies")
    assert played(make(minimum=2), only_third(lambda m: []))[0] is not None


def test_arrays_are_counted_in_bytes() -> None:
    _, aggregate = played(make(), lambda m: [good_reply(m)])
    model = state_to_arrays(STATE)
    update = state_to_arrays(UPDATES[0])
    size: Callable[[ArrayRecord], int] = lambda record: sum(len(array.data) for array in record.values())  # noqa: E731
    assert aggregate.replies.bytes_down == 3 * size(model)
    assert aggregate.replies.bytes_up == 3 * size(update)


def test_the_template_is_not_changed_by_a_round() -> None:
    before = copy.deepcopy(STATE)
    one_round(make(), lambda m: [good_reply(m)])
    assert all(torch.equal(STATE[key], before[key]) for key in STATE)


def test_the_order_of_keys_is_the_models_whatever_a_client_sends() -> None:
    """Krum flattens an update in the order of its keys: another order must not pass for another update."""
    seen: list[list[str]] = []

    class Noting(MultiKrum):
        fewest = 3

        def __init__(self, template: dict[str, Tensor]) -> None:
            super().__init__(template, num_malicious=0)

        def add(self, client: int, update: Mapping[str, Tensor], weight: float, largest: object = None) -> None:
            seen.append(list(update))
            super().add(client, update, weight)

    def turned(message: Message) -> list[Message]:
        (client,) = unpack_instruction(message.content)[0].clients
        return [reply_to(message, Reply((ClientReport(client),), {client: dict(reversed(UPDATES[client].items()))}))]

    one_round(make(aggregation=Noting), only_third(turned))
    assert seen == [["w", "running_mean"]] * 3


# --- updates that travel encoded ---------------------------------------------------------------------------------


class Halved(UpdateStep):
    """Updates travel as float16, and so each by itself."""

    summable = False

    def on_client(self, vector: Tensor, weight: float, params: Params, state: StepState) -> Tensor:
        return vector.half()

    def on_reply(self, vector: Tensor, weight: float, params: Params) -> Tensor:
        return vector.float() + torch.zeros(3)


def halving(hosts: Mapping[int, int] = HOSTS) -> WeightedFedAvg:
    strategy = make(hosts=hosts)
    strategy.steps = UpdateSteps((Halved(),))
    strategy.protocol = PlainServer(WeightedMean, strategy.steps)
    return strategy


def halved(message: Message) -> list[Message]:
    clients = unpack_instruction(message.content)[0].clients
    encoded = {client: {ENCODED: flatten(UPDATES[client], UPDATES[client]).half()} for client in clients}
    return [reply_to(message, Reply(tuple(map(ClientReport, clients)), encoded))]


def test_what_travels_encoded_is_the_same_update() -> None:
    for hosts in (HOSTS, SHARED):
        new, expected = one_round(halving(hosts), halved), one_round(make(), lambda m: [good_reply(m)])
        assert all(torch.equal(new[key], expected[key]) for key in expected)


def test_what_a_step_cannot_turn_back_costs_its_client_alone() -> None:
    def short(message: Message) -> list[Message]:
        return [reply_to(message, Reply((ClientReport(2),), {2: {ENCODED: torch.zeros(5)}}))]

    def answer(message: Message) -> list[Message]:
        return short(message) if 2 in unpack_instruction(message.content)[0].clients else halved(message)

    new, aggregate = played(halving(), answer)
    assert new is not None
    assert torch.allclose(new["w"], STATE["w"] + mean_of([0, 1], "w"), atol=1e-7)
    assert list(faults(aggregate)) == [2]


def test_a_sum_in_place_of_encoded_updates_costs_its_clients_alone() -> None:
    def answer(message: Message) -> list[Message]:
        return halved(message) if len(unpack_instruction(message.content)[0].clients) == 1 else together()(message)

    new, aggregate = played(halving(SHARED), answer)
    assert new is not None
    assert torch.allclose(new["w"], STATE["w"] + UPDATES[2]["w"], atol=1e-7)
    assert list(faults(aggregate)) == [0, 1]
    assert all("single updates" in why for why in faults(aggregate).values())


# --- as Flower's own loop drives it ------------------------------------------------------------------------------


class Answering:
    """What of a Grid a strategy asks."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        return [reply for message in messages for reply in self.answer(message)]


def driven(strategy: WeightedFedAvg, answer: Answer) -> tuple[ArrayRecord | None, MetricRecord | None]:
    grid, arrays = Answering(answer), state_to_arrays(STATE)
    messages = list(strategy.configure_train(1, arrays, ConfigRecord(), grid))  # type: ignore[arg-type]
    assert messages == []  # all is done, and nothing is left for Flower to send
    return strategy.aggregate_train(1, [])


def test_a_round_that_flower_drives_is_the_same_round() -> None:
    arrays, metrics = driven(make(), lambda m: [good_reply(m)])
    assert arrays is not None
    found, expected = arrays_to_state(arrays), one_round(make(), lambda m: [good_reply(m)])
    assert list(found) == list(expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert metrics == MetricRecord({"clients": 3.0, "train-loss": 0.5})
    assert driven(make(minimum=3), only_third(lambda m: [])) == (None, None)


def test_who_fails_is_left_out_where_flower_drives_too() -> None:
    strategy = make(exclude_after=1)
    driven(strategy, only_third(lambda m: []))
    assert strategy.roster.left_out(2) == [2]
    assert list(strategy.choose(2, "").weights) == [0, 1]


@pytest.mark.parametrize(("examples", "expected"), [(10, 0.25), (0, None)])
def test_an_evaluation_that_flower_drives(examples: int, expected: float | None) -> None:
    def judging(message: Message) -> list[Message]:
        (client,) = unpack_instruction(message.content)[0].clients
        report = ClientReport(client, val_examples=examples, val_loss=1.0, val_metrics={"accuracy": 0.25})
        return [reply_to(message, Reply((report,)))]

    strategy, grid = make(), Answering(judging)
    assert list(strategy.configure_evaluate(1, state_to_arrays(STATE), ConfigRecord(), grid)) == []  # type: ignore[arg-type]
    found = strategy.aggregate_evaluate(1, [])
    assert (None if found is None else found["val_accuracy"]) == expected


# --- the limit on norms ------------------------------------------------------------------------------------------


def test_an_update_above_the_norm_limit_is_named() -> None:
    limit = NormLimit(5.0)
    assert torch.equal(limit.on_client(torch.ones(7), 0.1, {}, {}), torch.ones(7))
    with pytest.raises(UpdateRejected, match=r"^update norm 24.49 above 5$"):
        limit.on_client(torch.full((6,), 10.0), 0.1, {}, {})
    with pytest.raises(UpdateRejected, match=r"^update norm 24.49 above 5$"):
        limit.on_reply(torch.full((6,), 10.0), 1.0, {})


def norm_of_both() -> float:
    """Of the weighted mean of the updates of clients 0 and 1."""
    return math.sqrt(sum(float(mean_of([0, 1], key).double().square().sum()) for key in UPDATES[0]))


def test_a_sum_is_held_to_the_norm_limit_times_its_weight() -> None:
    """Client 2, whose update is longer than that, is rejected beside it."""
    new, aggregate = played(make(max_update_norm=1.001 * norm_of_both(), hosts=SHARED), together())
    assert new is not None
    assert torch.allclose(new["w"], STATE["w"] + mean_of([0, 1], "w"), atol=1e-7)
    assert list(faults(aggregate)) == [2]
    new, aggregate = played(make(max_update_norm=0.999 * norm_of_both(), hosts=SHARED), together())
    assert new is None
    assert list(faults(aggregate)) == [0, 1, 2]
    for client in (0, 1):
        assert "above" in faults(aggregate)[client]
        assert "times its weight 0.4" in faults(aggregate)[client]


def test_a_sum_of_wrong_form_costs_its_own_clients_alone() -> None:
    for change, reason in (
        (lambda total: {"w": total["w"]}, "wrong keys in a partial sum"),
        (lambda total: total | {"w": torch.full((2,), 2**61)}, "value out of range in the partial sum of w"),
        (lambda total: total | {"w": total["w"].float()}, "wrong dtype or shape"),
    ):
        new, aggregate = played(make(hosts=SHARED), together(change))  # type: ignore[arg-type]
        assert new is not None
        assert torch.allclose(new["w"], STATE["w"] + UPDATES[2]["w"], atol=1e-7)
        assert list(faults(aggregate)) == [0, 1]
        assert all(reason in why for why in faults(aggregate).values())


@pytest.mark.parametrize("claimed", [1e99, 60.0, 1e-99, 0.0])
@pytest.mark.parametrize("honest", [2, 3, 8])
def test_no_sites_loss_decides_alone(claimed: float, honest: int) -> None:
    """As on devices: a loss counts between a tenth of the median and ten times it."""
    reports = [ClientReport(c, val_examples=10, val_loss=2.0 + c / 10, val_metrics={}) for c in range(honest)]
    made_up = ClientReport(honest, val_examples=10, val_loss=claimed, val_metrics={})
    counts = dict.fromkeys(range(honest + 1), 10)
    true = federated_metrics(reports, TASK, counts)["val_loss"]
    assert federated_metrics(reports, TASK, counts, CountBound(10.0, 10))["val_loss"] == true
    found = federated_metrics([*reports, made_up], TASK, counts, CountBound(10.0, 10))["val_loss"]
    assert true is not None
    assert found is not None
    assert abs(found - true) <= 10 * 3 / (honest + 1)
    if claimed == 1e99:
        assert federated_metrics([*reports, made_up], TASK, counts)["val_loss"] > 1e90  # type: ignore[operator]


@pytest.mark.parametrize(
    "claims",
    [
        {"val_examples": 2**53, "val_metrics": {"accuracy": 1.0}, "val_loss": 0.0},
        {"val_examples": 5, "val_metrics": {"accuracy": 7.0}, "val_loss": 0.1},
        {"val_examples": 5, "val_metrics": {"accuracy": 0.9}, "val_loss": -1e99},
        {"val_examples": 5, "val_metrics": {"accuracy": -1.0}, "val_loss": 0.1},
    ],
)
def test_no_client_decides_the_federated_metrics(claims: dict[str, float]) -> None:
    honest = [ClientReport(c, val_examples=10, val_loss=2.0, val_metrics={"accuracy": 0.5}) for c in (0, 1)]
    made_up = ClientReport(2, **claims)  # type: ignore[arg-type]
    found = federated_metrics([*honest, made_up], TASK, {0: 10, 1: 10, 2: 10})
    assert found["val_loss"] is not None
    assert found["val_accuracy"] is not None
    assert found["val_loss"] >= 2.0 * 20 / 30
    assert 0.5 <= found["val_accuracy"] <= 0.5 * 20 / 30 + 10 / 30
