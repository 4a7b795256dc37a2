"""The lines of a ledger: each bound to those before it by a hash."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fedapp.common.errors import FederationError
from fedapp.privacy.accounting import SkellamSpending, Spending

__all__ = ["Entry", "chain_of", "check_head_of", "damaged", "parse", "written"]


@dataclass(frozen=True)
class Entry:
    """What one round of one run spent."""

    run: str
    server_round: int
    spent: Spending | SkellamSpending


def check_head_of(head: str, where: str, lines: list[str], path: str) -> None:
    """Raises FederationError where `lines` do not have what `head`, found at `where`, says of them."""
    count, _, chain = head.partition(" ")
    last_known = lines[int(count) - 1 : int(count)] if count.isdecimal() else []
    if count and [chain_of(line) for line in last_known] != [chain]:
        ends = "the ledger ends here" if not count.isdecimal() or len(lines) < int(count) else "it is another ledger"
        raise damaged(path, len(lines), f"{ends}, but there were {count} lines ({where} knows)")


def chain_of(line: str) -> str:
    """The hash over this line and all before it."""
    return str(json.loads(line)["chain"])


def written(entry: Entry, before: list[str]) -> str:
    """The line of `entry` after the lines `before`."""
    body = {"run": entry.run, "round": entry.server_round, **asdict(entry.spent)}
    return json.dumps({**body, "chain": _chain(body, before[-1] if before else "")})


def _chain(body: dict[str, object], last: str) -> str:
    return hashlib.sha256(f"{last}\n{json.dumps(body)}".encode()).hexdigest()


def parse(lines: list[str], where: str) -> list[Entry]:
    """What these lines say. Raises FederationError, naming `where`, for what was not written so."""
    entries = []
    for number, line in enumerate(lines):
        try:
            body = json.loads(line)
            chain = body.pop("chain")
            entry = Entry(str(body["run"]), int(body["round"]), _spent(body))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(where, number, f"it is no entry ({error})") from None
        if chain != _chain(body, lines[number - 1] if number else ""):
            raise damaged(where, number, "it is not what was written, or lines before it are missing")
        entries.append(entry)
    return entries


def _spent(body: Mapping[str, Any]) -> Spending | SkellamSpending:
    if "variance" in body:
        return SkellamSpending(float(body["variance"]), float(body["l2"]), float(body["l1"]), int(body["steps"]))
    return Spending(float(body["noise_multiplier"]), float(body["sample_rate"]), int(body["steps"]))


def damaged(where: str, number: int, why: str) -> FederationError:
    """Of the line with this number, from 0."""
    return FederationError(
        f"ledger {where}: line {number + 1} is damaged: {why}. What has been spent is not known, so this trains no"
        " more: put the ledger back from its newest copy"
    )
