"""The numbers of the page, as tables of text."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from fedapp.report.read import Record, RunData, number
from fedapp.report.series import by_round, client_metric, client_metrics, final_values, participation, server_metrics
from fedapp.report.units import bytes_text, number_text, seconds_text, title_of, whole_text

__all__ = [
    "Table",
    "clients_table",
    "privacy_table",
    "rejections_table",
    "rounds_table",
    "warnings_table",
]

_MOST_ROWS = 1000  # of a table: a browser scrolls more only sluggishly, and the files hold them all


_RARE = {"unused": "not used", "excluded": "left out"}  # columns that most runs do not need
_SHARES = {"clipped": "clipped", "wrapped": "over the modulus", "share_clipped": "updates clipped (noised)"}
_PRIVACY = {
    "unit": "what is protected",
    "epsilon_max": "highest ε of any client",
    "epsilon_median": "ε of the median client",
    "epsilon_unamplified": "ε for who sees whom the server asks",
    "target_epsilon": "budget of each client",
    "declined": "clients that declined, for their budget is spent",
    "delta": "largest δ",
    "delta_largest": "δ may be at most",
    "delta_by_population": "δ by the number of clients, N^-1.1",
    "population": "clients, as a public constant N",
    "accountant": "accountant",
    "noise_multiplier": "noise multiplier σ",  # noqa: RUF001
    "sample_rate": "sample rate q",
    "steps_per_round": "steps a round",
    "max_grad_norm": "gradients clipped to",
    "clipping_norm": "updates clipped to",
    "quantile": "clipping norm follows the quantile",
    "update_noise_multiplier": "noise multiplier of the updates alone",
    "honest_share": "clients taken to add their noise",
    "least_cohort": "sums are over at least",
    "max_participations": "rounds of one client at most",
    "rounds_in_ledger": "rounds in the server's ledger",
    "noise_source": "source of noise",
    "grad_sample_mode": "per-example gradients by",
}


@dataclass(frozen=True)
class Table:
    """A table whose cells are text; `note` says what was left out."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def rounds_table(run: RunData) -> Table:
    """The last rounds, newest first; columns that no round fills are left out."""
    columns: list[tuple[str, str, Callable[[float], str]]] = [("round", "round", whole_text)]
    columns += [(f"test_{name}", f"test {title_of(name)}", number_text) for name in server_metrics(run)]
    own = client_metric(run) or "loss"
    columns += [(f"val_{name}", f"clients' {title_of(name)}", number_text) for name in dict.fromkeys((own, "loss"))]
    columns += [("train_loss", "training loss", number_text)]
    columns += [(name, name, whole_text) for name in ("cohort", "replied", "rejected")]
    columns += [(name, title, whole_text) for name, title in _RARE.items() if any(by_round(run, name).values)]
    columns += [(name, title, _percent) for name, title in _SHARES.items() if any(by_round(run, name).values)]
    columns += [("clipping_norm", "clipping norm", number_text), ("epsilon_unamplified", "ε if seen", number_text)]
    columns += [("bytes_down", "sent", bytes_text), ("bytes_up", "received", bytes_text)]
    columns += [("seconds", "time", seconds_text)]
    columns = [column for column in columns if by_round(run, column[0])]
    rows = (tuple(_cell(line.get(key), text) for key, _, text in columns) for line in reversed(run.rounds))
    table = _table([title for _, title, _ in columns], rows, len(run.rounds), "metrics.jsonl", "last")
    if any(key.startswith("val_") for key, _, _ in columns):
        return replace(table, note=f"What clients measured: of the model that the round began with. {table.note}")
    return table


def privacy_table(run: RunData) -> Table:
    """What the promise of privacy consists of; no rows for a run without it."""
    found = run.summary.get("privacy")
    if not isinstance(found, dict):
        return Table((), ())
    said: dict[str, object] = {**found, "declined": run.summary.get("declined")}
    said |= {f"epsilon_{which}": run.summary.get(f"epsilon_{which}") for which in ("max", "median")}
    rows = []
    for key, title in _PRIVACY.items():
        if key not in said:
            continue
        value = said[key]
        if isinstance(value, float):
            value = f"{value:.4g}"
        rows.append((title, "–" if value is None else str(value)))  # noqa: RUF001
    return Table(("", "of this run"), tuple(rows))


def rejections_table(run: RunData) -> Table:
    """Everything that was turned away, newest first, down to who was left out before the first round, or counts only
    within bounds."""
    lines = [line for line in (*run.final, *run.clients) if line.get("rejected")]
    lines.sort(key=lambda line: int(line["round"]), reverse=True)
    rows = [(str(line["round"]), _who(line.get("client")), _why(line)) for line in lines]
    for name in ("faults", "bounded"):
        if isinstance(found := run.summary.get(name), dict):
            rows += [("preflight", str(who), str(reason)) for who, reason in found.items()]
    return _table(("round", "client", "reason"), rows, len(rows), "clients.jsonl", "last")


def warnings_table(run: RunData) -> Table:
    """What a person must know of the result: from the summary, or of a run that has none, from its rounds."""
    found = run.summary.get("warnings")
    if not isinstance(found, list):
        said = (line.get("warnings") for line in run.rounds)
        found = list({kind: text for kinds in said if isinstance(kinds, dict) for kind, text in kinds.items()}.values())
    return Table(("",), tuple((str(text),) for text in found))


def clients_table(run: RunData) -> Table:
    """Every known client: how often it took part, how much it holds, and how the final model does on its data."""
    parts = participation(run)
    taken = Counter(client for client, _ in parts.accepted)
    refused = Counter(line.get("client") for line in (*run.clients, *run.final) if line.get("rejected"))
    latest: dict[Any, dict[str, object]] = defaultdict(dict)
    for line in (*run.clients, *run.final):
        latest[line.get("client")].update({key: value for key, value in line.items() if value is not None})
    columns: list[tuple[str, Callable[[Any], str]]] = [
        ("client", str),
        ("rounds taken part in", lambda client: str(taken[client])),
        ("rejected", lambda client: str(refused[client])),
        ("examples", lambda client: _cell(latest[client].get("num_examples"), whole_text)),
    ]
    for name in client_metrics(run):
        if values := final_values(run, f"val_{name}"):
            columns.append((f"final {title_of(name)}", partial(_of_client, values)))
    if any("epsilon" in line for line in latest.values()):
        columns.append(("ε spent", lambda client: _cell(latest[client].get("epsilon"), number_text)))
    rows = (tuple(text(client) for _, text in columns) for client in parts.clients)
    return _table([title for title, _ in columns], rows, len(parts.clients), "clients.jsonl", "first")


def _who(client: object) -> str:
    return "no client asked" if client is None else str(client)


def _why(line: Record) -> str:
    last = number(line.get("excluded_until"))
    return f"{line['rejected']}; left out until round {last:.0f}" if last is not None else str(line["rejected"])


def _percent(value: float) -> str:
    return f"{100 * value:.3g}%"


def _of_client(values: Mapping[Any, float], client: Any) -> str:
    return _cell(values.get(client), number_text)


def _cell(value: object, text: Callable[[float], str]) -> str:
    found = number(value)
    return "–" if found is None else text(found)  # noqa: RUF001


def _table(columns: Sequence[str], rows: Iterable[tuple[str, ...]], count: int, file: str, which: str) -> Table:
    note = f"The {which} {_MOST_ROWS:,} of {count:,}; all of them are in {file}." if count > _MOST_ROWS else ""
    kept = tuple(row for _, row in zip(range(_MOST_ROWS), rows, strict=False))
    return Table(tuple(columns), kept, note)
