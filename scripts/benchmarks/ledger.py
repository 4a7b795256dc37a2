"""What bookkeeping costs of a client's round under DP-SGD: ledger, budget and the accountant's epsilon."""

import tempfile
import time
from argparse import Namespace
from pathlib import Path

import torch
from torch import nn

from benchmarks.models import MODELS, examples, per_example_loss, sgd
from benchmarks.result import Point, Result, Table
from benchmarks.timing import Timed
from fedapp.common.seeding import generator
from fedapp.privacy import accounting
from fedapp.privacy.accounting import Spending
from fedapp.privacy.budget import Budget
from fedapp.privacy.dp_training import PrivateTraining
from fedapp.privacy.ledger import FileLedger
from fedapp.privacy.noise import make_noise
from fedapp.privacy.trainable import choose_mode

EXAMPLES, BATCH = 100, 10
SIGMA = 2.0
FEDERATIONS = {"simulation": (50, 5), "alone": (1, 1)}  # clients of one process, and how many of them train in a round


def run(options: Namespace) -> Result:
    """`options.repetitions` rounds after a first one. Half of 100 clients in a simulation, of which 5 train in a round,
    share what the accountant has worked out; one alone, in a process that lives on, has a history of its own."""
    title = "a round of the clients of one process: half of 100 clients, 5 train; or one client"
    table = Table("model", "accountant", "where", "training, ms", "bookkeeping, ms", "share", title=title)
    rows, points = [], []
    for name, make in MODELS.items():
        for accountant in ("prv", "rdp"):
            for where, (clients, cohort) in FEDERATIONS.items():
                accounting._rdp.cache_clear()
                accounting._prv.cache_clear()
                spent, trained = _rounds(make(), accountant, clients, cohort, options.repetitions, options.steps)
                share = sum(spent.seconds) / (sum(spent.seconds) + sum(trained.seconds))
                row = {"model": name, "accountant": accountant, "where": where, "share": share}
                rows.append(row | {"bookkeeping": spent.seconds, "training": trained.seconds})
                case = f"{name}, {accountant}, {where}"
                points += [Point(case, "bookkeeping", spent.seconds), Point(case, "training", trained.seconds)]
                table.add_row(name, accountant, where, trained.text, spent.text, f"{share:.1%}")
    return Result(rows, table, points, "seconds")


def _rounds(
    model: nn.Module, accountant: str, clients: int, cohort: int, repetitions: int, steps: int
) -> tuple[Timed, Timed]:
    """Seconds of bookkeeping and of training, of every round but the first, which imports."""
    data, cost = examples(EXAMPLES), Spending(SIGMA, BATCH / EXAMPLES, steps)
    budget = Budget(cost, max_epsilon=1e3, delta=None, accountant=accountant, round_counts_to=10)
    training = PrivateTraining(
        loss=per_example_loss,
        optimizer=sgd,
        noise=lambda: make_noise("os_entropy"),
        noise_multiplier=SIGMA,
        max_grad_norm=1.0,
        sample_rate=cost.sample_rate,
        steps=steps,
        batch_size=2 * BATCH,
        public_count=lambda count: count,
        mode=choose_mode(model, BATCH)[0],
    )
    paying, working = [], []
    with tempfile.TemporaryDirectory() as folder:
        for server_round in range(repetitions + 1):
            sampled = torch.randperm(clients, generator=generator("cohort", server_round))[:cohort].tolist()
            start = time.perf_counter()
            for client in sampled:
                budget.pay(FileLedger(Path(folder, f"{client}.jsonl")), "benchmark", server_round, EXAMPLES)
            paid = time.perf_counter()
            for _ in sampled:
                training(model, data, seed=(server_round,))
            paying.append(paid - start)
            working.append(time.perf_counter() - paid)
    return Timed(tuple(paying[1:])), Timed(tuple(working[1:]))
