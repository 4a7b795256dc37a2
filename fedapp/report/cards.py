"""The key figures of the page, as text."""

from dataclasses import dataclass

from fedapp.report.read import RunData, number
from fedapp.report.series import by_round, client_metric, participation, server_metrics
from fedapp.report.units import bytes_text, number_text, seconds_text, title_of, whole_text

__all__ = ["Card", "cards"]


@dataclass(frozen=True)
class Card:
    """A key figure."""

    label: str
    value: str
    note: str = ""


def cards(run: RunData) -> tuple[Card, ...]:
    """The key figures: from the summary, or from the rounds of a run that has none."""
    found = (*_test_cards(run), _validation_card(run), *_count_cards(run), *_cost_cards(run))
    return tuple(card for card in found if card is not None)


def _test_cards(run: RunData) -> list[Card]:
    """One for each metric of the server's test set, the headline first with the loss as its note."""
    values = {name: _last(run, f"test_{name}") for name in server_metrics(run)}
    loss = values.pop("loss", None)
    shown = [Card(f"test {title_of(name)}", _score(name, value)) for name, value in values.items() if value is not None]
    if loss is not None and shown:
        return [Card(shown[0].label, shown[0].value, f"loss {number_text(loss)}"), *shown[1:]]
    return shown if loss is None else [Card("test loss", number_text(loss))]


def _validation_card(run: RunData) -> Card | None:
    name = client_metric(run) or "accuracy"
    mean = number(run.summary.get(f"final_val_{name}_mean"))
    if mean is None:
        return None
    worst = number(run.summary.get(f"final_val_{name}_worst_decile"))
    note = "mean" if worst is None else f"mean; worst tenth {_score(name, worst)}"
    return Card(f"clients' {title_of(name)}", _score(name, mean), note)


def _count_cards(run: RunData) -> list[Card | None]:
    asked, parts = by_round(run, "cohort"), participation(run)
    rounds = number(run.summary.get("rounds"))
    rounds = float(parts.rounds[-1] if parts.rounds else 0) if rounds is None else rounds
    if _secret(run):
        return [Card("rounds", whole_text(rounds), "their cohorts are secret")]
    clients = number(run.summary.get("clients"))
    rejected = number(run.summary.get("rejected"))
    rejected = sum(by_round(run, "rejected").values) if rejected is None else rejected
    asked_note = f"{max(asked.values):,.0f} asked a round" if asked else ""
    return [
        Card("rounds", whole_text(rounds)),
        Card("clients", whole_text(len(parts.clients) if clients is None else clients), asked_note),
        Card("rejected updates", whole_text(rejected), f"{sum(asked.values):,.0f} asked for" if asked else ""),
    ]


def _cost_cards(run: RunData) -> list[Card | None]:
    total = {key: number(run.summary.get(key)) for key in ("bytes_up", "bytes_down", "seconds")}
    up, down, seconds = (sum(by_round(run, key).values) if value is None else value for key, value in total.items())
    epsilon = number(run.summary.get("epsilon_max"))
    deltas = {delta for line in run.clients if (delta := number(line.get("delta"))) is not None}
    delta_note = f"at δ = {max(deltas):.3g}" if deltas else ""
    spent = None if epsilon is None else Card("highest ε", f"{epsilon:.2f}", delta_note)
    if _secret(run):
        return [spent]
    return [
        spent,
        Card("traffic", bytes_text(up + down), f"{bytes_text(down)} sent, {bytes_text(up)} received"),
        Card("time", seconds_text(seconds)),
    ]


def _secret(run: RunData) -> bool:
    """Whether nothing is told that depends on who took part."""
    return "clients" in run.summary and run.summary["clients"] is None


def _last(run: RunData, key: str) -> float | None:
    value, series = number(run.summary.get(key)), by_round(run, key)
    return series.values[-1] if value is None and series else value


def _score(name: str, value: float) -> str:
    return f"{100 * value:.1f}%" if name.endswith("accuracy") else number_text(value)
