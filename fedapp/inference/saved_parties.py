"""The model of a finished vertical run, put together from the parts that its parties have kept."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fedapp.common.errors import DataError, ModelError
from fedapp.data.party_table import PartyTable
from fedapp.inference.predict import Predictions
from fedapp.inference.saved import said_in
from fedapp.vertical.clear_matching import rows_by_party
from fedapp.vertical.saved_part import ABOUT, WEIGHTS, SavedPart, load_part
from fedapp.vertical.split_model import Bottom, LabelHead

__all__ = ["SavedParties", "files_of", "load_parties", "notes_of", "predict_parties"]


@dataclass(frozen=True)
class SavedParties:
    """By name, every party's part, all of one run."""

    parts: Mapping[str, SavedPart]

    @property
    def labelled(self) -> SavedPart:
        """The label party's."""
        return next(part for part in self.parts.values() if part.about.labels)

    def predict(self, tables: Mapping[str, PartyTable], rows: Mapping[str, Tensor]) -> Tensor:
        """The task's predictions (n, ...). `rows`: by party, its row of each entity, (n,) int64, -1 for none."""
        return self.labelled.task.predictions(self.outputs(tables, rows))

    @torch.no_grad()
    def outputs(self, tables: Mapping[str, PartyTable], rows: Mapping[str, Tensor]) -> Tensor:
        """What the model gives of the same, (n, *output_shape)."""
        own = self.labelled
        embeddings = {
            name: Bottom(part.bottom, tables[name].inputs, part.about.embedding).judge(rows[name])
            for name, part in self.parts.items()
            if part.bottom is not None
        }
        assert own.top is not None
        return LabelHead(own.top, own.fusion, own.task.loss).outputs(embeddings)


def load_parties(directory: Path) -> SavedParties:
    """The parts in `directory`, of a simulation. Raises ModelError or ConfigError, naming the file, for what is no
    finished run, and for parts that are damaged, of another run, or not those of summary.json."""
    folder, summary = directory / "parties", said_in(directory / "summary.json")
    if not folder.is_dir():
        raise ModelError(
            f"{directory}: holds no parts: this run's parties keep theirs on their own devices, in vertical/ of their"
            " keep-path. Copy each one's folder to parties/<name> here, or export it there by scripts/export.py"
        )
    names = sorted(path.parent.name for path in folder.glob(f"*/{ABOUT}"))
    if not names:
        raise _unfinished(directory, f"there is no {ABOUT} in {folder}/*")
    first = load_part(folder / names[0])
    parts = {names[0]: first}
    for name in first.about.parties:
        if name not in names:
            raise _unfinished(directory, f"there is no {folder / name / ABOUT}")
        parts[name] = parts.get(name) or load_part(folder / name)
    for name, part in sorted(parts.items()):
        path = folder / name
        if part.about.party != name:
            raise ModelError(f"{path / ABOUT}: is of party {part.about.party}, not of {name}; copy {name}'s own part")
        if part.about.shared != first.about.shared:
            raise ModelError(
                f"{path / ABOUT}: is of another run than {folder / names[0] / ABOUT}: run {part.about.run}, and"
                f" {first.about.run} there, or other settings. Copy the parts of one run"
            )
        if summary is not None:
            _check_summary(summary, name, part, path / WEIGHTS)
    return SavedParties({name: parts[name] for name in first.about.parties})


def _check_summary(summary: Mapping[str, object], name: str, part: SavedPart, path: Path) -> None:
    parties = summary.get("parties")
    said = parties.get(name) if isinstance(parties, dict) else None
    digest = said.get("part_sha256") if isinstance(said, dict) else None
    if digest != part.about.sha256:
        raise ModelError(
            f"{path}: is not the part of this run: its sha256 is {part.about.sha256}, summary.json says {digest} of"
            f" {name}. It was exchanged; copy it from the run again"
        )


def _unfinished(directory: Path, what: str) -> ModelError:
    resume = shlex.quote(str(directory.resolve()))
    return ModelError(
        f"{directory}: {what}, since its run has not ended, or is of an earlier version. Go on with it: python"
        f" scripts/run.py --resume {resume}"
    )


def files_of(saved: SavedParties, given: Sequence[Path]) -> dict[str, Path]:
    """By party, its file, from words such as `planes=planes.csv`. Raises DataError unless each party has one."""
    example = " ".join(f"{name}=FILE" for name in saved.parts)
    found: dict[str, Path] = {}
    for word in given:
        name, equals, path = str(word).partition("=")
        if not equals or not path or name not in saved.parts:
            raise DataError(f"{word}: a vertical model reads a table of each party; give {example}")
        if name in found:
            raise DataError(f"{word}: party {name} has a file already; give {example}")
        found[name] = Path(path)
    if missing := [name for name in saved.parts if name not in found]:
        raise DataError(f"{missing[0]}: has no file; give {example}")
    return found


def predict_parties(saved: SavedParties, files: Mapping[str, Path]) -> tuple[Predictions, list[str]]:
    """What the model says of the rows of the label party's file, named by their number in it and joined with the
    others' by the key columns; and which rows had no match, with what became of them. Raises DataError, opening with
    the path."""
    about, tables = saved.labelled.about, dict[str, PartyTable]()
    numbers: list[int] = []
    for name, part in saved.parts.items():
        if part.about.reading is None:
            raise DataError(f"{files[name]}: the data of this run has no form in which new rows lie in files")
        tables[name], places = part.about.reading.read(files[name], name)
        numbers = places if name == about.label_party else numbers
    rows = rows_by_party(tables, about.label_party, about.normalise)
    notes = notes_of(files[about.label_party], rows, numbers, saved.labelled)
    if about.unmatched == "drop":
        kept = torch.stack(list(rows.values())).min(0).values >= 0
        rows = {name: found[kept] for name, found in rows.items()}
        numbers = [number for number, stays in zip(numbers, kept.tolist(), strict=True) if stays]
    if not numbers:
        raise DataError(f"{files[about.label_party]}: no row has a match at every party; {notes[0]}")
    return Predictions(tuple(map(str, numbers)), saved.labelled.task, saved.predict(tables, rows)), notes


def notes_of(path: Path, rows: Mapping[str, Tensor], numbers: Sequence[int], part: SavedPart) -> list[str]:
    """By party, which rows of the label party's file it does not have, and what becomes of them. `rows`: its row of
    each of them, -1 for none; `part`: the label party's."""
    unmatched = part.about.unmatched
    effect = {"drop": "left out", "zero": "predicted without that party"}[unmatched]
    found = []
    for name, places in rows.items():
        if lacking := [number for number, place in zip(numbers, places.tolist(), strict=True) if place < 0]:
            which = f"row{'s' * (len(lacking) > 1)} {_ranges(lacking)}"
            found.append(f"{path}: {which}: {name} has no such entity; {effect} (vertical.unmatched={unmatched})")
    return found


def _ranges(numbers: Sequence[int]) -> str:
    """Increasing numbers, such as 2-4, 7."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
