"""What client-level DP costs: of a plain round what clipping, noise and bookkeeping add; of a client's round of secure
aggregation, whole numbers with noise against the protocol's own rounding."""

import statistics
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.client_dp_rounds import rounds_of
from benchmarks.models import MODELS, examples, sgd
from benchmarks.result import Point, Result, Table
from benchmarks.timing import Timed, alternate
from fedapp.aggregation.exact_sum import WeightedSum, examine
from fedapp.aggregation.secaggplus import member as protocol
from fedapp.aggregation.secaggplus.collector import Collector
from fedapp.aggregation.secaggplus.kept import Secrets
from fedapp.aggregation.secaggplus.settings import Settings
from fedapp.aggregation.whole_numbers.quantise import fit, quantise
from fedapp.common.state_digest import State
from fedapp.data.source import Examples
from fedapp.learning.training import LocalTraining
from fedapp.privacy.accounting import Spending
from fedapp.privacy.budget import Budget
from fedapp.privacy.client_level.central_step import CentralNoise, CentralStep
from fedapp.privacy.client_level.skellam_noise import SkellamNoise, Sums
from fedapp.privacy.ledger import FileLedger
from fedapp.privacy.noise import make_noise
from fedapp.privacy.server_budget import ServerBudget
from fedapp.updates.steps import UpdateSteps, flatten
from fedapp.updates.vectors import difference

COHORT, EXAMPLES, BATCH = 100, 100, 10
UNIT, POPULATION = 2.0**-11, 1000
WHOLE = {"without": "", "with": "privacy=client_dp"}
RUN, MODEL = "0123456789abcdef", "0" * 64


def run(options: Namespace) -> Result:
    """`options.repetitions` rounds of the 2NN with a cohort of 100, the arms in turn; one epoch of 100 examples in
    batches of 10 for each client. A whole round is one of a run, with a SuperNode's sum for its virtual clients."""
    title = f"the 2NN, cohort {COHORT}, one epoch of {EXAMPLES} examples in batches of {BATCH}; CPU time"
    table = Table("what", "without, ms", "with client-level DP, ms", "ratio", title=title)
    rows, points = [], []
    whole = rounds_of(WHOLE, options.repetitions)
    measured = {"a whole round": {name: Timed(tuple(seconds)) for name, seconds in whole.items()}}
    with tempfile.TemporaryDirectory() as folder:
        parts = {"its updates, seen one by one": _central(Path(folder)), "a client of a secure round": _secure()}
        for name, arms in parts.items():
            measured[name] = alternate(arms, options.repetitions, time.process_time)
    for name, found in measured.items():
        without, private = found["without"], found["with"]
        pairs = zip(private.seconds, without.seconds, strict=True)
        ratio = statistics.median(with_ / plain for with_, plain in pairs)
        rows.append({"what": name, "without": without.seconds, "with": private.seconds, "ratio": ratio})
        points += [Point(name, arm, timed.seconds) for arm, timed in found.items()]
        table.add_row(name, without.text, private.text, f"{ratio:.3f}")
    return Result(rows, table, points, "seconds")


def _trained(model: nn.Module, start: State, training: LocalTraining, data: Examples) -> dict[str, Tensor]:
    model.load_state_dict(dict(start))
    training(model, data, seed=(0,))
    return difference(model.state_dict(), start)


def _work() -> tuple[dict[str, Tensor], Callable[[], dict[str, Tensor]]]:
    """The model, and a client's training of it, which gives an update."""
    model = MODELS["2NN"]()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    training = LocalTraining(nn.functional.cross_entropy, sgd, 1, BATCH)
    data = examples(EXAMPLES)
    return start, lambda: _trained(model, start, training, data)


def _central(folder: Path) -> dict[str, Callable[[], object]]:
    """A round from training to the mean: as the plain protocol adds single updates, and with DP besides."""
    start, train = _work()
    size = sum(value.numel() for value in start.values())
    noise = CentralNoise(1.0, UNIT, POPULATION / 10)
    private = UpdateSteps((CentralStep(noise, 1.0, torch.ones(size, dtype=torch.bool)),))
    cost = Spending(1.0, 0.1, 1)
    budget = ServerBudget(Budget(cost, 1e3, 1e-5, "prv", 1), FileLedger(folder / "server.jsonl"))
    rounds = [0]

    def played(steps: UpdateSteps, weight: float) -> object:
        total, plan = WeightedSum(start), steps.plan(1)
        for _ in range(COHORT):
            sent = steps.on_client(train(), start, weight, plan, {}, in_place=True)
            screening = examine(sent, start)
            total.add(steps.on_reply(sent, start, 1.0, plan), weight, screening.largest)
        return steps.on_total(total.sum(), total.weight, (), plan, 0.0)

    def with_dp() -> object:
        rounds[0] += 1
        budget.pay("benchmark", rounds[0])
        found = played(private, UNIT)
        budget.figures()
        return budget.exhausted() or found

    return {"without": lambda: played(UpdateSteps(), 1 / COHORT), "with": with_dp}


def _secure() -> dict[str, Callable[[], object]]:
    """Of one client: training, its whole numbers, its shares and the others', and its masks, with everybody as
    neighbour."""
    start, train = _work()
    size = sum(value.numel() for value in start.values())
    settings = Settings()
    made = SkellamNoise(
        Sums(size, 1.0, settings.modulus_bits, COHORT, COHORT - 10, 0.9),
        1.0,
        torch.ones(size, dtype=torch.bool),
        0,
        lambda: make_noise("os_entropy"),
    )
    random = np.random.default_rng(0)

    def masked(vector: np.ndarray, settings: Settings) -> object:
        server, begun, secrets, present = sharing[settings.noised]
        protocol.share(begun, server.view)
        found = protocol.receive(secrets, server.view, present, server.sealed_for(0))
        return protocol.apply_masks(found, server.view, vector)

    def without() -> object:
        values, _ = fit(flatten(train(), start).double().numpy(), settings.clip)
        return masked(quantise(values, 1.0, settings, random), settings)

    def with_dp() -> object:
        return masked(made.encode(flatten(train(), start).double().numpy(), 1), noised)

    noised = Settings(noised=True)
    sharing = {False: _shared(settings, size), True: _shared(noised, made.length)}
    return {"without": without, "with": with_dp}


def _shared(settings: Settings, length: int) -> tuple[Collector, Secrets, Secrets, Sequence[int]]:
    """A round up to where client 0 may mask, and what it kept before it shared its secrets."""
    weights = dict.fromkeys(range(COHORT), 1.0)
    server = Collector(settings, run=RUN, server_round=1, model=MODEL, weights=weights, length=length)
    secrets = {}
    for client in range(COHORT):
        secrets[client], *keys = protocol.advertise(RUN, 1, client)
        server.add_keys(client, *keys)
    view, begun = server.close_keys(), secrets[0]
    for client in range(COHORT):
        secrets[client], shared = protocol.share(secrets[client], view)
        server.add_shares(client, shared)
    return server, begun, secrets[0], server.close_shares()
