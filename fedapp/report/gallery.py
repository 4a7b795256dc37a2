"""Which plots a report shows, with the words around them."""

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from fedapp.report.canvas import WIDE
from fedapp.report.client_plots import MOST_BARS, MOST_ROWS, final_by_client, participation_plot, spread_by_round
from fedapp.report.confusion import confusion_plot
from fedapp.report.party_plot import parties_plot
from fedapp.report.plots import bytes_by_round, loss_by_round, metric_by_round, privacy_by_round, seconds_by_round
from fedapp.report.read import RunData
from fedapp.report.series import client_metric, final_values, headline_metric, participation
from fedapp.report.time_plots import MOST_JOBS, gantt, metric_by_bytes, metric_by_virtual_time
from fedapp.report.units import title_of

__all__ = ["PLOT_NAMES", "Plot", "draw_plots"]


@dataclass(frozen=True)
class Plot:
    """A figure with its file name (no suffix), its heading and a sentence that says what it shows.

    A `wide` one takes a whole row of the page, which holds two others.
    """

    name: str
    title: str
    caption: str
    figure: Figure
    wide: bool = False


_DRAW: dict[str, Callable[[RunData], Figure | None]] = {
    "metric": metric_by_round,
    "virtual_time": metric_by_virtual_time,
    "metric_by_bytes": metric_by_bytes,
    "gantt": gantt,
    "loss": loss_by_round,
    "confusion": confusion_plot,
    "parties": parties_plot,
    "privacy": privacy_by_round,
    "clients_by_round": spread_by_round,
    "clients_final": final_by_client,
    "participation": participation_plot,
    "bytes": bytes_by_round,
    "seconds": seconds_by_round,
}
PLOT_NAMES = tuple(_DRAW)


def draw_plots(run: RunData) -> tuple[Plot, ...]:
    """Every plot that `run` has data for. The others are as many wide ones as fill the rows of the page."""
    words = _words(run)
    figures = {name: figure for name, draw in _DRAW.items() if (figure := draw(run)) is not None}
    wide = {"gantt"} & figures.keys()
    wide |= {"participation"} if (len(figures) - len(wide)) % 2 else set()
    for name in wide & figures.keys():
        figures[name].set_size_inches(WIDE)
    return tuple(Plot(name, *words[name], figure, wide=name in wide) for name, figure in figures.items())


def _words(run: RunData) -> dict[str, tuple[str, str]]:
    headline = title_of(headline_metric(run) or "metric")
    clients_own = client_metric(run) or "accuracy"
    own = title_of(clients_own)
    parts = participation(run)
    return {
        "metric": (
            f"{_capital(headline)} by round",
            "The global model after each round, on data it was not trained on: the server's, the clients', or both.",
        ),
        "virtual_time": (
            f"{_capital(headline)} over virtual time",
            "The same over the time that the clients' speeds make of it, which the machine has nothing to do with.",
        ),
        "metric_by_bytes": (
            f"{_capital(headline)} over traffic",
            "The same over the bytes that had gone over the network by then, both ways.",
        ),
        "gantt": (
            "Clients at work",
            f"When each client was asked, and when its work was over; the first {MOST_JOBS:,} times at most.",
        ),
        "loss": (
            "Loss by round",
            "The global model after each round, and the mean loss of the clients' models while they train.",
        ),
        "confusion": (
            "Confusion matrix",
            "The final model on the server's test data: shades are shares of the true class, numbers are counts.",
        ),
        "parties": (
            "Who holds what",
            "Each party's columns and rows; filled as far as the label party has the same entities.",
        ),
        "privacy": (
            "Privacy spent",
            "ε in the clients' ledgers, over all updates that they have sent so far: the lower, the more private.",
        ),
        "clients_by_round": (
            "Spread over clients",
            f"How far apart the clients are in {own} on validation data of their own, after each round.",
        ),
        "clients_final": (
            f"Final {own} by client",
            _final_caption(own, len(final_values(run, f"val_{clients_own}"))),
        ),
        "participation": (
            "Participation",
            "Who took part in which round, and whose update was turned away."
            if len(parts.clients) <= MOST_ROWS
            else f"In how many rounds each of the {len(parts.clients):,} clients took part.",
        ),
        "bytes": ("Traffic", "Bytes of model and update that went over the network, added up over the rounds."),
        "seconds": ("Time", "Where the wall-clock time of each round went."),
    }


def _final_caption(metric: str, clients: int) -> str:
    if clients <= MOST_BARS:
        return f"The final model's {metric} on the validation data of each client, worst to best."
    return f"The final model's {metric} on the validation data of {clients:,} clients."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
