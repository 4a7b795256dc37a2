"""Splits of data sets of the Hugging Face Hub, or of a local folder, through Flower Datasets."""

from typing import TYPE_CHECKING, Any

from fedapp.common.errors import DataError
from fedapp.data.checks import known

if TYPE_CHECKING:
    from datasets import Dataset  # type: ignore[import-untyped]

__all__ = ["check_column", "column_of", "hub_split"]


def hub_split(dataset: str, subset: str | None, split: str) -> "Dataset":
    """Downloaded once, then read from the local cache. Raises DataError where it cannot be had."""
    from flwr_datasets import FederatedDataset  # type: ignore[import-untyped]

    try:
        source = FederatedDataset(dataset=dataset, subset=subset, partitioners={}, shuffle=False)
        return source.load_split(split)
    except ConnectionError as error:
        raise DataError(
            f"{dataset}: no network, or the Hugging Face Hub cannot be reached ({_first_line(error)}), and the"
            " data set is not in the local cache. Data that need no network: data=digits, data=breast_cancer,"
            " data=csv, data=image_folder, data=text"
        ) from error
    except Exception as error:  # the loaders of `datasets` raise what their format's parser does
        raise DataError(
            f"{dataset} ({split}): could not be loaded: {_first_line(error)}. Check data.dataset, data.subset,"
            " data.train_split and data.test_split against its page on huggingface.co/datasets"
        ) from error


def column_of(split: "Dataset", column: str, name: str) -> list[Any]:
    """Raises DataError, opening with `name`, where there is no such column."""
    check_column(split, column, name)
    values: list[Any] = split.select_columns([column])[:][column]
    return values


def check_column(split: "Dataset", column: str, name: str) -> None:
    if column not in split.column_names:
        raise DataError(f"{name}: no column {column!r}; it has {known(split.column_names)}")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
