"""Numbers, units and names as text."""

import re

__all__ = [
    "bytes_text",
    "bytes_unit",
    "client_label",
    "client_order",
    "number_text",
    "seconds_text",
    "title_of",
    "whole_text",
]

_BYTE_UNITS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
_ACRONYMS = {"auc", "f1", "mae", "mape", "mase", "mcc", "mse", "r2", "rmse"}


def bytes_unit(largest: float) -> tuple[str, int]:
    """The unit, and how many bytes it is, in which `largest` is best read."""
    return next(((unit, size) for unit, size in _BYTE_UNITS if largest >= size), ("B", 1))


def bytes_text(count: float) -> str:
    """`1536` as `1.5 KiB`."""
    unit, size = bytes_unit(count)
    return f"{count / size:,.1f} {unit}" if size > 1 else f"{count:.0f} B"


def seconds_text(seconds: float) -> str:
    """`75` as `1 min 15 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def number_text(value: float) -> str:
    """Four decimals, or four significant digits where that would hide the number."""
    return f"{value:.4f}" if value == 0 or 0.001 <= abs(value) < 1000 else f"{value:.4g}"


def whole_text(value: float) -> str:
    """`1536.0` as `1,536`."""
    return f"{value:,.0f}"


def title_of(metric: str) -> str:
    """`balanced_accuracy` as `balanced accuracy`, `mae` as `MAE`."""
    words = re.sub(r"[^\w.-]", "?", metric).split("_")
    return " ".join(word.upper() if word in _ACRONYMS else word for word in words)


def client_label(client: object) -> str:
    """A client's id, short enough for an axis and free of what the plotting library would read as markup."""
    text = re.sub(r"[^\w.:-]", "?", str(client), flags=re.ASCII)
    return text if len(text) <= 8 else f"..{text[-6:]}"


def client_order(client: object) -> tuple[bool, float, str]:
    """A sort key: numbers by value, then everything else as text."""
    if isinstance(client, int):
        return False, client, ""
    return True, 0.0, str(client)
