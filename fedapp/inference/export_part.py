"""A party's part of a vertical model as files that other programs load without fedapp."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from fedapp.common.errors import DataError, ModelError
from fedapp.inference.export import CHECKED, TOLERANCE, export_network
from fedapp.inference.formats import FORMATS
from fedapp.inference.saved import Predictor
from fedapp.inference.saved_parties import load_parties
from fedapp.models.input_layer import InputLayer
from fedapp.vertical.saved_part import ABOUT, SavedPart, load_part

__all__ = ["export_part", "inputs_to_check", "is_part", "part_in"]


def is_part(directory: Path) -> bool:
    """Whether a folder is a party's own, as in a device's keep-path."""
    return (directory / ABOUT).is_file()


def part_in(directory: Path, party: str | None) -> tuple[SavedPart, Path]:
    """The part that `party` has in a run directory, or the one in a party's own folder; and its folder. Raises
    ModelError."""
    if is_part(directory):
        part = load_part(directory)
        if party not in (None, part.about.party):
            raise ModelError(f"--party {party}: {directory} holds the part of {part.about.party}")
        return part, directory
    parts = load_parties(directory).parts
    if party is None or party not in parts:
        raise ModelError(f"--party {party or ''}: name the party whose part to export: {', '.join(parts)}")
    return parts[party], directory / "parties" / party


def inputs_to_check(part: SavedPart, files: Sequence[Path]) -> tuple[Tensor, str]:
    """Inputs (n, features), n up to CHECKED, of the party's `files`, else random ones; and what they are."""
    about = part.about
    if files and about.reading is None:
        raise DataError(f"{files[0]}: the data of this run has no form in which new rows lie in files")
    if files:
        assert about.reading is not None
        inputs = torch.cat([about.reading.read(path, about.party)[0].inputs for path in files])[:CHECKED]
        return inputs, f"{len(inputs)} examples of {', '.join(str(path) for path in files)}"
    if part.bottom is None:
        return torch.zeros(CHECKED, 0), "no inputs"
    layer = part.bottom.get_submodule("input")
    assert isinstance(layer, InputLayer)
    random = torch.Generator().manual_seed(0)
    return layer.random_inputs((CHECKED, len(about.features)), random), f"{CHECKED} random inputs (see --check)"


def export_part(part: SavedPart, kind: str, folder: Path, inputs: Tensor, what: str) -> dict[Path, tuple[float, str]]:
    """Write bottom and, at the label party, top into `folder`. Gives each file's largest difference from the part, and
    on what: the bottom's on `inputs`, which are `what`, the top's on random embeddings. One above TOLERANCE is not
    kept, and ends it. Raises ModelError, opening with the path."""
    if not folder.is_dir():
        raise ModelError(f"{folder}: there is no such folder; the files of a part go into one")
    found: dict[Path, tuple[float, str]] = {}
    for name, (network, examples, said) in _networks(part, inputs, what).items():
        path = folder / f"{name}{FORMATS[kind].suffix}"
        found[path] = _export(network, kind, path, examples, _facts(part, name, examples)), said
        if not found[path][0] <= TOLERANCE:
            break
    return found


def _networks(part: SavedPart, inputs: Tensor, what: str) -> dict[str, tuple[nn.Module, Tensor, str]]:
    """By name of a file, a network, inputs for it, and what they are."""
    networks: dict[str, tuple[nn.Module, Tensor, str]] = {}
    if part.bottom is not None:
        networks["bottom"] = part.bottom, inputs, what
    if part.top is not None:
        width = part.fusion.width(part.about.embedding, len(part.embeds))
        fused = torch.randn(CHECKED, width, generator=torch.Generator().manual_seed(1))
        network = Predictor(part.top, part.task.predictions).eval()
        networks["top"] = network, fused, f"{CHECKED} random embeddings"
    return networks


@torch.no_grad()
def _export(network: nn.Module, kind: str, path: Path, examples: Tensor, facts: dict[str, object]) -> float:
    return export_network(network, network, kind, path, examples, facts)


def _facts(part: SavedPart, name: str, examples: Tensor) -> dict[str, object]:
    """What a program needs to know to use the file. `fused`: whose embeddings are fused, in which order; `fusion`:
    how."""
    about = part.about
    return {
        "part": name,
        "party": about.party,
        "input_shape": list(examples.shape[1:]),
        "input_dtype": "float32",
        "features": list(about.features) if name == "bottom" else [],
        "classes": list(about.classes),
        "embedding": about.embedding,
        "fusion": "sum" if part.fusion.additive else "concatenation",
        "fused": list(part.embeds) if about.labels else [],
        "run": about.run,
        "part_sha256": about.sha256,
    }
