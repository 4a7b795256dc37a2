"""A party's part of a finished model as two files: part.safetensors, and part.json, which says what it is of and how
new rows become its inputs. Nothing in them can run code, and nothing of the data's rows is in part.json."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from fedapp.common.errors import FedappError, ModelError
from fedapp.common.state_digest import state_sha256
from fedapp.config import check_node, option
from fedapp.config.nodes import Node
from fedapp.data.party_reading import PartyReading
from fedapp.data.source import Schema
from fedapp.learning.build_task import build_kind, with_loss
from fedapp.learning.task import Task
from fedapp.models.weights import form_only, load_into, read_weights
from fedapp.vertical.fusion import Fusion
from fedapp.vertical.identities import RULES
from fedapp.vertical.networks import bottom_form, top_form

__all__ = ["ABOUT", "WEIGHTS", "PartAbout", "SavedPart", "about_json", "load_part", "part_sha256"]

ABOUT, WEIGHTS = "part.json", "part.safetensors"
PACKAGES = {
    "model": "fedapp.models.",
    "kind": "fedapp.learning.tasks.",
    "loss": "fedapp.learning.losses.",
    "fusion": "fedapp.vertical.fusion.",
}


@dataclass(frozen=True)
class PartAbout:
    """`position`: the party's among `parties`, which are in the order of their names. `reading`: None where new rows
    cannot come from a file. `classes`: empty for regression. `normalise`, `unmatched`, `embedding` and `top`: as in the
    config's section `vertical`; `model`, `kind`, `loss` and `fusion`: its nodes. `sha256`: of the part."""

    party: str
    run: str
    parties: tuple[str, ...]
    label_party: str
    position: int
    features: tuple[str, ...]
    reading: PartyReading | None
    classes: tuple[str, ...]
    normalise: str
    unmatched: str
    embedding: int
    top: tuple[int, ...] | None
    model: Node
    kind: Node
    loss: Node
    fusion: Node
    sha256: str

    @property
    def labels(self) -> bool:
        """Whether the party has the labels, and with them the top model."""
        return self.party == self.label_party

    @property
    def shared(self) -> tuple[object, ...]:
        """What is the same in all parts of a model."""
        settings = (self.normalise, self.unmatched, self.embedding, self.top, self.kind, self.loss, self.fusion)
        return self.run, self.parties, self.label_party, self.classes, self.model, *settings

    def check(self) -> None:
        """Raises ValueError where it contradicts itself."""
        if list(self.parties) != sorted(set(self.parties)) or not {self.party, self.label_party} <= {*self.parties}:
            raise ValueError("its parties are not each once, in order, with its own and the label party among them")
        if self.position != self.parties.index(self.party):
            raise ValueError(f"position {self.position} is not that of {self.party}")
        if self.normalise not in RULES or self.unmatched not in ("drop", "zero"):
            raise ValueError("normalise or unmatched is none of those that conf/ has")
        if self.embedding < 1 or any(units < 1 for units in self.top or ()):
            raise ValueError("embedding or top is none that a run can have")
        found = self.reading
        if found is not None and not {*found.features} <= {*found.columns.features}:
            raise ValueError("its features are not those of its columns")
        if found is not None and found.features != self.features:
            raise ValueError("its features are not those that are read")
        if not self.features and not self.labels:
            raise ValueError("a party without labels has features")


_adapter = TypeAdapter(PartAbout)


def part_sha256(state: Mapping[str, Tensor]) -> str:
    """Of the model in a part's state, without its optimizer."""
    return state_sha256({name: value for name, value in state.items() if name.startswith("model/")})


def about_json(about: PartAbout) -> bytes:
    """The content of part.json. `about_sha256`: of all the rest, by which a damaged file is known."""
    found = json.loads(_adapter.dump_json(about))
    return (json.dumps({**found, "about_sha256": _digest(found)}, indent=2) + "\n").encode()


def _digest(found: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class SavedPart:
    """`bottom`: (B, features) to (B, embedding), None at a label party without columns; `top`, at the label party: the
    fused embeddings (B, width) to the task's outputs. Both are in evaluation mode."""

    about: PartAbout
    task: Task
    fusion: Fusion
    bottom: nn.Module | None
    top: nn.Module | None

    @property
    def embeds(self) -> tuple[str, ...]:
        """At the label party: those whose embeddings are fused, all but itself where it has no columns."""
        about = self.about
        return tuple(name for name in about.parties if name != about.party or about.features)


def load_part(folder: Path) -> SavedPart:
    """Raises ModelError or ConfigError, naming the file, for what is no part, a damaged or exchanged one, and foreign
    code."""
    path, weights = folder / ABOUT, folder / WEIGHTS
    about = _read_about(path)
    try:
        for name, package in PACKAGES.items():
            check_node(getattr(about, name), name, package)
        fusion = option("fusion", about.fusion, Fusion)
        task = with_loss(build_kind(about.kind, Schema((1,), about.classes)), about.loss)
        with form_only():
            net = _form(about, task, fusion)
    except FedappError as error:
        raise ModelError(f"{path}: {error}") from None
    state = read_weights(weights, key="part")
    found = part_sha256({f"model/{name}": value for name, value in state.items()})
    if found != about.sha256:
        raise ModelError(
            f"{weights}: is not the part of {about.party} that {ABOUT} speaks of: its sha256 is {found}, {ABOUT} says"
            f" {about.sha256}. It was damaged or exchanged; copy both files from the party again"
        )
    load_into(net, state, f"part={weights}")
    net.eval().requires_grad_(False)
    parts = dict(net.named_children())
    return SavedPart(about, task, fusion, parts.get("bottom"), parts.get("top"))


def _form(about: PartAbout, task: Task, fusion: Fusion) -> nn.ModuleDict:
    parts: dict[str, nn.Module] = {}
    if about.features:
        parts["bottom"] = bottom_form(about.model, about.features, about.embedding)
    if about.labels:
        fused = len(about.parties) - (not about.features)
        parts["top"] = top_form(about.top, fusion.width(about.embedding, fused), task)
    return nn.ModuleDict(parts)


def _read_about(path: Path) -> PartAbout:
    try:
        found = json.loads(path.read_text("utf-8"))
        digest = found.pop("about_sha256")
        if digest != _digest(found):
            raise ModelError(f"{path}: was changed or damaged: it is not what its about_sha256 is of; copy it again")
        about = _adapter.validate_json(json.dumps(found), strict=True)
        about.check()
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read ({error.strerror}); a party's part is {ABOUT} and {WEIGHTS}"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ModelError(f"{path}: says not what a part is of: {where}: {first['msg']}") from None
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else (str(error) or type(error).__name__)
        raise ModelError(f"{path}: says not what a part is of: {reason}") from None
    return about
