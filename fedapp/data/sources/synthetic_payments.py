"""Synthetic payments of several banks. No payment data ships anywhere, so none of this is real."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedapp.data.sources.generated_table import GeneratedTable, Made

__all__ = ["SyntheticPayments"]

PRODUCTS = ("card in a shop", "card online", "transfer")


@dataclass(frozen=True)
class SyntheticPayments(GeneratedTable):
    """Whether a payment is fraud, which about one in a hundred is.

    The mechanism: a customer pays in a shop, online or by transfer, in shares that differ from bank to bank, an amount
    that is log-normal with a middle of the bank's own. Fraud is of three kinds, whose shares differ from bank to bank,
    too, so that a bank sees little of what another one sees daily: a *stolen card* pays often within a day and far from
    home; a *taken account* sends large transfers at night, from a new device, to a new payee; a *tested number* pays
    small amounts online, at risky merchants, often. Each raises its columns by so much that honest customers overlap
    with it.
    """

    columns: ClassVar[Mapping[str, tuple[float, float]]] = {
        "log amount": (3.5, 1.2),
        "night": (0.0, 1.0),
        "payments in 24 h": (2.0, 2.0),
        "log km from home": (1.5, 1.5),
        "merchant risk": (0.3, 0.2),
        "new device": (0.0, 1.0),
        "new payee": (0.0, 1.0),
        "account age, years": (5.0, 4.0),
        "product=card in a shop": (0.0, 1.0),
        "product=card online": (0.0, 1.0),
        "product=transfer": (0.0, 1.0),
    }
    classes: ClassVar[tuple[str, ...]] = ("honest", "fraud")
    site_name: ClassVar[str] = "synthetic bank"
    fraud_rate: float = 0.01

    def site(self, number: int, rows: int, random: np.random.Generator) -> Made:
        fraud = random.random(rows) < self.fraud_rate * random.uniform(0.7, 1.3)
        kind = np.where(fraud, random.choice(3, rows, p=random.dirichlet((0.5, 0.5, 0.5))), -1)
        stolen, taken, tested = (kind == place for place in range(3))
        product = random.choice(3, rows, p=random.dirichlet((3.0, 2.0, 1.5)))
        product = np.where(stolen, random.choice(2, rows, p=(0.7, 0.3)), np.where(tested, 1, product))
        product = np.where(taken, 2, product)
        middle = 3.3 + random.normal(0, 0.3) + np.array([0.0, 0.3, 1.5])[product]

        def yes(honest: float, often: float, when: np.ndarray) -> np.ndarray:
            return (random.random(rows) < np.where(when, often, honest)).astype(float)

        values = (
            random.normal(middle, 1.0) + 0.8 * stolen + 1.2 * taken - 1.5 * tested,
            yes(0.12, 0.5, taken | stolen),
            random.poisson(1.5 + 3.0 * stolen + 5.0 * tested).astype(float),
            random.normal(1.2 + 0.8 * (product == 0), 1.0) + 1.5 * stolen,
            np.clip(random.beta(2, 5, rows) + 0.25 * tested + 0.1 * stolen, 0, 1),
            yes(0.06, 0.7, taken),
            yes(0.15, 0.9, taken),
            random.gamma(2.0, 2.5, rows),
            *((product == place).astype(float) for place in range(3)),
        )
        return dict(zip(self.columns, values, strict=True)), fraud.astype(np.int64)
