"""federation.client_speed: how long the clients of a simulation take, in virtual seconds.

Every figure is a function of the run's seed, the client and, where it varies, the round in which it is asked, so that
the same config plays the same run on any machine.
"""

import csv
import math
import random
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from fedapp.common.errors import ConfigError
from fedapp.config import Config, option

__all__ = [
    "AsTheyCome",
    "ClientSpeed",
    "ConstantSpeed",
    "LogNormalSpeed",
    "SpeedBySize",
    "SpeedFromFile",
    "check_played",
    "real_timeout",
    "speed_of",
    "vanishes",
]

KEY = "federation.client_speed"
PLAYED_TIMEOUT = 86_400.0  # real seconds: as good as none, since a worker that ends is noticed at once
Positive = Annotated[float, Field(gt=0, le=1e9)]
NotNegative = Annotated[float, Field(ge=0, le=1e9)]
Sigma = Annotated[float, Field(ge=0, le=10)]


class ClientSpeed(ABC):
    """`plays`: a simulation has virtual time."""

    plays: ClassVar[bool] = True

    def conflicts(self, config: Config) -> None:  # noqa: B027 (there may be none)
        """Raise ConfigError for a config that does not go with this."""

    @abstractmethod
    def duration(self, seed: int, server_round: int, client: int, num_examples: int) -> float:
        """Virtual seconds from question to reply, of a client that is asked in `server_round`."""


@dataclass(frozen=True)
class AsTheyCome(ClientSpeed):
    """No virtual time: replies count in the order in which they come."""

    plays = False

    def conflicts(self, config: Config) -> None:
        if config.federation.dropout:
            raise ConfigError(
                f"federation.dropout={config.federation.dropout:g}: clients vanish in virtual time only; choose"
                f" {KEY}=constant, say"
            )

    def duration(self, seed: int, server_round: int, client: int, num_examples: int) -> float:
        raise NotImplementedError("there is no virtual time")


@dataclass(frozen=True)
class ConstantSpeed(ClientSpeed):
    """Every client takes as long."""

    seconds: Positive = 1.0

    def duration(self, seed: int, server_round: int, client: int, num_examples: int) -> float:
        return self.seconds


@dataclass(frozen=True)
class LogNormalSpeed(ClientSpeed):
    """`seconds` times exp(sigma z), with a z of each client, and exp(jitter z') with one of each time it is asked."""

    seconds: Positive = 1.0
    sigma: Sigma = 0.8
    jitter: Sigma = 0.0

    def duration(self, seed: int, server_round: int, client: int, num_examples: int) -> float:
        own = random.Random(f"speed/{seed}/{client}").gauss(0.0, 1.0)
        now = random.Random(f"speed/{seed}/{client}/{server_round}").gauss(0.0, 1.0)
        return self.seconds * math.exp(self.sigma * own + self.jitter * now)


@dataclass(frozen=True)
class SpeedBySize(ClientSpeed):
    """`seconds`, and more for each training example."""

    seconds: NotNegative = 0.2
    seconds_per_example: Positive = 0.01

    def duration(self, seed: int, server_round: int, client: int, num_examples: int) -> float:
        return self.seconds + self.seconds_per_example * num_examples


@dataclass(frozen=True)
class SpeedFromFile(ClientSpeed):
    """A CSV file with the columns `client` and `seconds`, a row for each client."""

    path: str

    def conflicts(self, config: Config) -> None:
        missing = sorted(set(range(config.federation.num_clients)) - self._table.keys())
        if missing:
            raise ConfigError(
                f"{KEY}.path={self.path}: has no row for clients {missing[:10]} of"
                f" federation.num_clients={config.federation.num_clients}; add them"
            )

    def duration(self, seed: int, server_round: int, client: int, num_examples: int) -> float:
        return self._table[client]

    @cached_property
    def _table(self) -> dict[int, float]:
        """Raises ConfigError, naming the file and the row."""
        found: dict[int, float] = {}
        try:
            with Path(self.path).expanduser().open(newline="", encoding="utf-8-sig") as file:
                rows = csv.DictReader(file)
                if not {"client", "seconds"} <= set(rows.fieldnames or ()):
                    raise ConfigError(
                        f"{KEY}.path={self.path}: has the columns {', '.join(rows.fieldnames or ()) or '(none)'}; it"
                        " needs client and seconds"
                    )
                for row in rows:
                    self._take(found, row, rows.line_num)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigError(f"{KEY}.path={self.path}: cannot be read: {reason}") from None
        return found

    def _take(self, found: dict[int, float], row: dict[str, str], line: int) -> None:
        where = f"{KEY}.path={self.path}, line {line}"
        try:
            client, seconds = int(row["client"]), float(row["seconds"])
        except (TypeError, ValueError):
            given = f"client={row['client']}, seconds={row['seconds']}"
            raise ConfigError(f"{where}: {given}: must be a client's number and its seconds") from None
        if client < 0 or not 0 < seconds < 1e9:
            raise ConfigError(f"{where}: client={client}, seconds={seconds:g}: must be 0 or more, and above 0")
        if client in found:
            raise ConfigError(f"{where}: client {client} has a row already; leave one")
        found[client] = seconds


def vanishes(dropout: float, seed: int, server_round: int, client: int) -> bool:
    """Whether a client that is asked in `server_round` never replies (federation.dropout)."""
    return random.Random(f"dropout/{seed}/{server_round}/{client}").random() < dropout


def check_played(config: Config, *, simulated: bool) -> None:
    """Raises ConfigError for virtual time where clients are real."""
    if speed_of(config).plays and not simulated:
        raise ConfigError(f"{KEY}: is for a simulation's clients, and these are devices; set {KEY}=none")


def real_timeout(config: Config) -> float:
    """Real seconds that a reply is waited for: federation.round_timeout, unless that counts virtual ones, whose course
    no real clock may change."""
    return PLAYED_TIMEOUT if speed_of(config).plays else config.federation.round_timeout


def speed_of(config: Config) -> ClientSpeed:
    """Raises ConfigError."""
    return option(KEY, config.federation.client_speed, ClientSpeed)
