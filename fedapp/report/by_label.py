"""Of a run whose examples have several labels at once: how each of them is found."""

from fedapp.report.read import RunData, number
from fedapp.report.tables import Table
from fedapp.report.units import number_text, title_of

__all__ = ["labels_table"]

METRICS = ("average_precision", "auc", "f1")


def labels_table(run: RunData) -> Table:
    """A row for each label, of the final model on the server's test data; none in a run without them."""
    found = run.summary.get("by_label")
    if not isinstance(found, list) or not found:
        return Table((), ())
    rows = []
    for about in found:
        values = [number(about.get(name)) for name in METRICS]
        cells = ["–" if value is None else number_text(value) for value in values]  # noqa: RUF001
        rows.append((str(about["label"]), f"{int(about['examples']):,}", *cells))
    note = "On the server's test data. – where no example has the label, or all have it."  # noqa: RUF001
    return Table(("label", "examples with it", *map(title_of, METRICS)), tuple(rows), note)
