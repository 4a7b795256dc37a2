"""Does a model of text remember what one client wrote? Canaries, lines of random tokens, are put among the text of some
clients, and looked for in the model that the federation ends with (Carlini et al., "The Secret Sharer: Evaluating and
Testing Unintended Memorization in Neural Networks", USENIX Security 2019).

A canary is a prefix, which the attacker knows, and a secret. Its exposure is log2 of how many secrets there are, less
log2 of the rank that the model gives the right one; here among drawn ones, so that it lies between 0 and log2(drawn +
1), and is about 1.4 on average for a secret that the model never saw. It is extracted where a beam search from the
prefix ends with it.
"""

import logging
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

import torch

from fedapp.audit.canary_lines import Canary, draw_canaries, with_canary
from fedapp.audit.canary_search import LARGEST_EXPOSURE, exposure, most_probable
from fedapp.common.cores import allowed_cores
from fedapp.common.errors import ConfigError
from fedapp.common.seeding import generator
from fedapp.config import Config, compose
from fedapp.data.source import Examples
from fedapp.learning.build import Parts, build_parts, build_training
from fedapp.learning.build_shards import build_shards
from fedapp.learning.tasks.next_token import NextToken
from fedapp.privacy.accounting import epsilon
from fedapp.privacy.dp_sgd import DpSgd
from fedapp.privacy.limits import OwnLimits
from fedapp.privacy.option import privacy_of

__all__ = ["AuditedCanaries", "audit_canaries"]

Training = Callable[..., Any]


@dataclass(frozen=True)
class AuditedCanaries:
    """One arm: the accounted `epsilon` of a window of a client at `delta` (None without noise); by how many copies
    there were, each canary's exposure and whether it was extracted; and the model's loss on test data."""

    name: str
    epsilon: float | None
    delta: float
    exposures: dict[int, list[float]]
    extracted: dict[int, int]
    test_loss: float | None

    @property
    def largest(self) -> float:
        """The largest exposure that can be found."""
        return LARGEST_EXPOSURE


def audit_canaries(
    overrides: Sequence[str],
    budgets: Sequence[float],
    *,
    canaries: int,
    copies: Sequence[int],
    jobs: int = 1,
    tell: Callable[[str], None] = lambda text: None,
) -> list[AuditedCanaries]:
    """Without DP, and with DP-SGD at each of `budgets`, in as many processes as `jobs`; `canaries` of each number of
    `copies`, and as many that nobody has. Raises ConfigError for what is no model of text."""
    private = [line for line in overrides if line.startswith("privacy.")]
    others = [line for line in overrides if line not in private]
    arms = []
    for budget in (None, *budgets):
        if budget is None:
            name, own = "without DP", ["privacy=none"]
        else:
            name, own = f"ε = {budget:g}", ["privacy=dp_sgd", *private, f"privacy.target_epsilon={budget}"]
        config = compose([*others, *own])
        if budget is None:  # an experiment may set keys of privacy=dp_sgd
            config = replace(config, privacy={"_target_": config.privacy["_target_"]})
        arms.append((name, config, canaries, (0, *copies)))
    _planted(arms[0][1], canaries, (0, *copies))  # what is wrong with the text is said before the training
    return _in_processes(arms, min(jobs, len(arms)), tell)


def _in_processes(
    arms: Sequence[tuple[str, Config, int, Sequence[int]]], workers: int, tell: Callable[[str], None]
) -> list[AuditedCanaries]:
    """One federation each, `workers` at a time. Of one that fails the error is raised, and no other is begun."""
    tell(f"{len(arms)} federations, {workers} at a time")
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_begin, initargs=(max(1, allowed_cores() // workers),)
    ) as pool:
        waiting = [pool.submit(_arm, *arm) for arm in arms]
        try:
            for count, arm in enumerate(as_completed(waiting), 1):
                tell(f"{arm.result().name} is done, {count} of {len(arms)} federations")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [arm.result() for arm in waiting]


def _begin(threads: int) -> None:
    torch.set_num_threads(threads)
    logging.disable(logging.INFO)


def _planted(config: Config, each: int, copies: Sequence[int]) -> tuple[Parts, NextToken, list[Canary]]:
    """Raises ConfigError for what is no model of text, or of too short windows."""
    parts = build_parts(config)
    if not isinstance(parts.task, NextToken):
        raise ConfigError(f"--canaries: are looked for in models of text, and this task is {parts.task.kind}")
    return parts, parts.task, draw_canaries(config, parts.task, each, copies)


def _arm(name: str, config: Config, canaries: int, copies: Sequence[int]) -> AuditedCanaries:
    (parts, task, planted), seed = _planted(config, canaries, copies), config.run.seed
    shards = build_shards(config, parts)
    clients = [shards.of(client).train for client in range(config.federation.num_clients)]
    for canary in planted:
        if canary.copies:
            clients[canary.client] = with_canary(clients[canary.client], task, canary)
    training, spent, delta = _training(config, parts, min(map(len, clients)))
    _train(config, parts, clients, training)
    model = parts.whole.eval()
    exposures: dict[int, list[float]] = {count: [] for count in copies}
    extracted = dict.fromkeys(copies, 0)
    for number, canary in enumerate(planted):
        exposures[canary.copies].append(
            exposure(model, task, canary.prefix, canary.secret, generator(seed, "secrets", number))
        )
        extracted[canary.copies] += most_probable(model, task, canary.prefix) == canary.secret
    test = parts.source.test()
    judged = task.evaluate(model, test) if test is not None else None
    return AuditedCanaries(name, spent, delta, exposures, extracted, None if judged is None else judged.loss)


def _training(config: Config, parts: Parts, smallest: int) -> tuple[Training, float | None, float]:
    privacy = privacy_of(config)
    if not isinstance(privacy, DpSgd):
        return build_training(config, parts), None, 0.0
    plan = privacy.plan(config, parts, OwnLimits())
    delta = plan.budget.delta_of(smallest)
    asked = Counter(client for cohort in _cohorts(config) for client in cohort)
    spent = epsilon([plan.budget.cost] * max(asked.values()), delta, plan.budget.accountant)
    return plan.training, spent, delta


def _cohorts(config: Config) -> list[list[int]]:
    """The clients of each round, none twice; of any two clients one is at most one round ahead of the other."""
    section = config.federation
    size = min(section.num_clients, max(1, math.ceil(round(section.fraction_train * section.num_clients, 9))))
    turn: list[int] = []
    found = []
    for server_round in range(1, section.num_rounds + 1):
        cohort, turn = turn[:size], turn[size:]
        if len(cohort) < size:
            order = random.Random(f"turns/{config.run.seed}/{server_round}").sample(
                range(section.num_clients), section.num_clients
            )
            added = [client for client in order if client not in cohort][: size - len(cohort)]
            turn = [client for client in order if client not in added]
            cohort = cohort + added
        found.append(cohort)
    return found


def _train(config: Config, parts: Parts, clients: Sequence[Examples], training: Training) -> None:
    """Federated averaging by number of examples, and nothing of messages."""
    model = parts.model
    for server_round, cohort in enumerate(_cohorts(config), 1):
        start = {key: value.clone() for key, value in model.state_dict().items()}
        total = {key: torch.zeros_like(value, dtype=torch.float64) for key, value in start.items()}
        weight = sum(len(clients[client]) for client in cohort)
        for client in cohort:
            model.load_state_dict(start)
            training(model, clients[client], seed=(config.run.seed, server_round, client))
            for key, value in model.state_dict().items():
                total[key] += value.double() * (len(clients[client]) / weight)
        model.load_state_dict({key: value.to(start[key]) for key, value in total.items()})
