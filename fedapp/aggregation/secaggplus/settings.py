"""What of a secure aggregation is configured, and the arithmetic that says whether it can work."""

import math
from dataclasses import dataclass

from fedapp.aggregation.whole_numbers.fixed_point import GROUP, FixedPoint
from fedapp.common.errors import ConfigError

__all__ = ["Settings"]

SHARE_NEEDED = 2 / 3  # of those who hold a client's shares, where no threshold is given


@dataclass(frozen=True)
class Settings(FixedPoint):
    """`neighbours`: with how many others each client shares keys and secrets; None: with all of the cohort.

    `threshold`: how many of those who hold a client's shares (its neighbours and itself) rebuild its secret; None: two
    thirds of them. `batches`: how many clients take part all or none; None: each by itself. `noised`: values are whole
    numbers with noise, which has no bound; sums may wrap, and neither `clip` nor `bits` counts.
    """

    neighbours: int | None = None
    threshold: int | None = None
    batches: int | None = None
    noised: bool = False

    @property
    def batch(self) -> int:
        return self.batches or 1

    def degree(self, cohort: int) -> int:
        """How many neighbours each client of a cohort has."""
        return cohort - 1 if self.neighbours is None else min(self.neighbours, cohort - 1)

    def needed(self, cohort: int) -> int:
        """How many of the holders rebuild a secret."""
        if self.threshold is not None:
            return self.threshold
        return max(2, math.ceil(round(SHARE_NEEDED * (self.degree(cohort) + 1), 9)))

    def colluders(self, cohort: int) -> int:
        """How many of those who hold a client's shares may work for a server that lies, and it still cannot learn both
        of the client's secrets; below 0 where it can without any (Bonawitz et al. 2017, section 6.2)."""
        return 2 * self.needed(cohort) - (self.degree(cohort) + 1) - 1

    def check_majority(self, cohort: int) -> None:
        """Raises ConfigError where two sets of holders without a common member could rebuild a client's secrets: each
        of them could be told another story."""
        holders, needed = self.degree(cohort) + 1, self.needed(cohort)
        if self.colluders(cohort) < 0:
            raise ConfigError(
                f"{GROUP}.threshold={self.threshold}: with a cohort of {cohort}, {needed} of the {holders} who hold a"
                f" client's shares rebuild its secret, and on devices 2 x threshold must be above {holders}: a server"
                f" that lies could collect both secrets; set it to {holders // 2 + 1} or more, or to null"
            )

    def check_honest(self, cohort: int, honest_share: float) -> None:
        """Raises ConfigError where those of a cohort whose noise is taken for none, since they may work for the server,
        could get at another client's update before its noise is among the others'.

        With a graph of neighbours it takes no lie, only that enough of one client's neighbours collude, and which they
        are follows from a hash over keys that they can try until it suits them.
        """
        if self.neighbours is not None:
            raise ConfigError(
                f"{GROUP}.neighbours={self.neighbours}: under privacy=client_dp a few colluding neighbours could unmask"
                " one client's update, which has a small share of the noise only; set it to null"
            )
        colluders, most = math.floor(round((1 - honest_share) * cohort, 9)), self.colluders(cohort)
        if colluders > most:
            raise ConfigError(
                f"privacy.honest_share={honest_share:g}: of a cohort of {cohort} {colluders} may collude, and by"
                f" {GROUP}.threshold={self.needed(cohort)} no more than {most} can without learning single updates;"
                f" set privacy.honest_share higher, or {GROUP}.threshold, or tolerate fewer dropouts"
            )

    def largest_sum(self, cohort: int) -> int:
        return 2 ** (self.modulus_bits - 1) if self.noised else super().largest_sum(cohort)

    def check(self, cohort: int) -> None:
        """Raises ConfigError, with the arithmetic, for what cannot work with a cohort of this size."""
        self.check_two(cohort)
        if self.neighbours is not None and (self.neighbours < 2 or self.neighbours % 2):
            raise ConfigError(
                f"{GROUP}.neighbours={self.neighbours}: must be an even number, 2 or more: half of them on either side"
                " of a ring; or null for everyone"
            )
        degree, needed = self.degree(cohort), self.needed(cohort)
        if needed > degree + 1:
            why = f"neighbours={self.neighbours}" if degree < cohort - 1 else f"a cohort of {cohort}"
            raise ConfigError(
                f"{GROUP}.threshold={self.threshold}: above the {degree} + 1 = {degree + 1} clients that hold a"
                f" client's shares ({degree} neighbours and itself, by {why}), so no sum could be unmasked"
            )
        if not self.noised:
            self.check_modulus(cohort)

    def check_batches(self, needed: int, clients: int) -> None:
        """Raises ConfigError where rounds of `needed` updates are not made of whole batches. `clients`: how many there
        are in complete batches."""
        size = self.batch
        if clients < size:
            raise ConfigError(
                f"{GROUP}.batches={size}: no batch is complete (its clients are numbered 0 to {size - 1}, {size} to"
                f" {2 * size - 1}, ...), so nobody could take part; set it lower, or to null"
            )
        if needed % size:
            more = min(clients, -(-needed // size) * size)
            share = math.ceil(1000 * more / clients - 1e-9) / 1000
            while math.ceil(round(share * clients, 9)) > more:
                share = math.floor(1e5 * more / clients) / 1e5
            raise ConfigError(
                f"{GROUP}.batches={size}: a cohort of {needed} (federation.fraction_train, federation.min_clients) is"
                f" not made of whole batches; for one of {more} set federation.min_clients={more}, or"
                f" federation.fraction_train={share:g}, or take batches that divide {needed}"
            )
