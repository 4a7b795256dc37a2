"""A run directory that grows, and what a page of bounded size says of it."""

import json
import time
from collections import Counter, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fedapp.launch.live.new_lines import NewLines
from fedapp.report.read import number
from fedapp.report.units import client_order
from fedapp.server.run_directory.lock import is_held

__all__ = ["GrowingRun"]

MOST_REASONS, MOST_SITES, MOST_POINTS = 200, 200, 500  # that the page is sent; it says what it leaves out
SERIES = ("test_", "val_", "train_loss", "epsilon_max", "seconds")
RECENT = 10  # rounds, by whose time the end is expected


class GrowingRun:
    """`state` is what the page shows, as JSON has it. Names and reasons in it are whatever sites said."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._metrics, self._clients = NewLines(directory / "metrics.jsonl"), NewLines(directory / "clients.jsonl")
        self._forget()
        self._rounds_wanted: int | None = None

    def _forget(self) -> None:
        self._metrics.restart()
        self._clients.restart()
        self._rounds: dict[int, dict[str, Any]] = {}
        self._reasons: deque[tuple[int, str, str]] = deque(maxlen=MOST_REASONS)
        self._rejected: Counter[str] = Counter()
        self._taken: Counter[str] = Counter()
        self._spent: dict[str, float] = {}
        self._last: dict[str, int] = {}  # by site, the last round for which it was there
        self._times: deque[float] = deque(maxlen=RECENT)
        self._bytes = {"bytes_up": 0.0, "bytes_down": 0.0}
        self._seconds = 0.0
        self._order: list[str] | None = None

    def state(self, first: int = 0, find: str = "") -> dict[str, Any]:
        """`first`: how many sites to leave out, `find`: what their names hold, without regard to case."""
        self._read()
        order = self._sites_in_order()
        named = [site for site in order if find.casefold() in site.casefold()] if find else order
        summary = self._summary()
        last = self._rounds[max(self._rounds)] if self._rounds else {}
        status = self._status(summary)
        return {
            "name": self._name(),
            "directory": str(self._directory),
            "status": status,
            "reason": str(summary.get("stop_reason") or ""),
            "round": last.get("round"),
            "num_rounds": self._rounds_wanted,
            "expected_end": self._expected_end(last) if status == "running" else None,
            "last": {name: value for name, value in last.items() if number(value) is not None},
            "seconds": self._seconds,
            **self._bytes,
            "warnings": [str(text) for text in self._warnings(summary, last)],
            "series": self._series(),
            "sites": [self._site(name) for name in named[first : first + MOST_SITES]],
            "first_site": first,
            "page_size": MOST_SITES,
            "num_found": len(named),
            "num_sites": len(order),
            "rejections": [{"round": r, "site": s, "reason": why} for r, s, why in reversed(self._reasons)],
            "num_rejected": sum(self._rejected.values()),
        }

    def _read(self) -> None:
        metrics, clients = list(self._metrics.new()), list(self._clients.new())
        if self._metrics.cut or self._clients.cut:  # a resumed run did rounds again
            self._forget()
            metrics, clients = list(self._metrics.new()), list(self._clients.new())
        for line in metrics:
            self._rounds[line["round"]] = line
            seconds = number(line.get("seconds"))
            if seconds is not None:
                self._times.append(seconds)
                self._seconds += seconds
            for name in self._bytes:
                self._bytes[name] += number(line.get(name)) or 0.0
        self._order = None if clients else self._order
        for line in clients:
            site = str(line.get("client") if line.get("client") is not None else "unknown")
            if line.get("rejected"):
                self._rejected[site] += 1
                self._reasons.append((line["round"], site, str(line["rejected"])[:500]))
            else:
                self._taken[site] += line.get("phase") != "final"
                self._last[site] = line["round"]
            if (epsilon := number(line.get("epsilon"))) is not None:
                self._spent[site] = max(epsilon, self._spent.get(site, 0.0))
        if metrics or self._rounds_wanted is None:
            federation = self._config().get("federation")
            wanted = number(federation.get("num_rounds")) if isinstance(federation, dict) else None
            self._rounds_wanted = None if wanted is None else int(wanted)

    def _status(self, summary: Mapping[str, Any]) -> str:
        """waiting (for SuperNodes), running, finished, failed; stopped: nobody writes it, and it can be resumed."""
        if summary:
            return str(summary.get("status") or "unknown")
        if is_held(self._directory):
            return "running" if self._rounds else "waiting"
        return "stopped" if self._rounds else "waiting"

    def _expected_end(self, last: Mapping[str, Any]) -> float | None:
        """Unix seconds, by the median of the last rounds."""
        began = number(last.get("time"))
        if began is None or not self._times or self._rounds_wanted is None:
            return None
        middle = sorted(self._times)[len(self._times) // 2]
        left = max(0, self._rounds_wanted - int(last["round"]))
        return max(began + middle * left, time.time())

    def _series(self) -> dict[str, list[list[float]]]:
        """By name, points (round, value), of many rounds every n-th and the last."""
        numbers = sorted(self._rounds)
        step = max(1, -(-len(numbers) // MOST_POINTS))
        kept = [*numbers[::step], *(numbers[-1:] if numbers and (len(numbers) - 1) % step else [])]
        names = dict.fromkeys(name for index in kept for name in self._rounds[index] if name.startswith(SERIES))
        found = {
            name: [[index, value] for index in kept if (value := number(self._rounds[index].get(name))) is not None]
            for name in names
        }
        return {name: points for name, points in found.items() if points}

    def _sites_in_order(self) -> list[str]:
        """Those that have spent most, or were rejected most often, first."""
        if self._order is None:
            self._order = sorted(
                self._last.keys() | self._rejected.keys(),
                key=lambda site: (
                    -self._spent.get(site, 0.0),
                    -self._rejected[site],
                    client_order(int(site) if site.isdecimal() else site),
                ),
            )
        return self._order

    def _site(self, name: str) -> dict[str, Any]:
        return {
            "site": name,
            "last": self._last.get(name),
            "taken": self._taken[name],
            "rejected": self._rejected[name],
            "epsilon": self._spent.get(name),
        }

    def _warnings(self, summary: Mapping[str, Any], last: Mapping[str, Any]) -> list[Any]:
        found = summary.get("warnings")
        said = last.get("warnings")
        return found if isinstance(found, list) else list(said.values()) if isinstance(said, dict) else []

    def _name(self) -> str:
        section = self._config().get("run")
        return str((section.get("name") if isinstance(section, dict) else None) or self._directory.name)

    def _config(self) -> dict[str, Any]:
        try:
            found = yaml.safe_load((self._directory / "config.yaml").read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            return {}
        return found if isinstance(found, dict) else {}

    def _summary(self) -> dict[str, Any]:
        try:
            found = json.loads((self._directory / "summary.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}
