"""Where images lie below a folder, and what their path says of them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from fedapp.common.errors import ConfigError, DataError
from fedapp.data.image_files import IMAGE_ENDINGS, check_image
from fedapp.data.leavings import entries
from fedapp.data.tables.text import clean

__all__ = ["ImageTree", "Layout", "Placed"]

TOKENS = ("class", "site", "group")


@dataclass(frozen=True)
class Placed:
    """An image, and what its path says; `labelled` is the file or folder that names the class. "": not said."""

    file: Path
    label: str
    labelled: Path
    site: str = ""
    group: str = ""


@dataclass(frozen=True)
class ImageTree:
    images: list[Placed] = field(default_factory=list)
    empty: list[Path] = field(default_factory=list)  # folders that hold no image


@dataclass(frozen=True)
class Layout:
    """A path below the root with {class}, and where they are known {site} and {group}, such as
    `{site}/{class}/{group}_*`; `*` stands for anything. Raises ConfigError for other than such a path."""

    text: str

    def __post_init__(self) -> None:
        found = re.findall(r"\{(.*?)\}", self.text)
        odd = sorted({name for name in found if name not in TOKENS or found.count(name) > 1})
        crowded = any(len(re.findall(r"\*|\{", part)) > 3 for part in self.text.split("/"))
        if "class" not in found or odd or crowded or not all(self.text.split("/")):
            raise ConfigError(
                f"data.layout={self.text!r}: must be the path of an image below the root with {{class}} once, and"
                " {site} and {group} once at most, such as '{site}/{class}/*' or '{class}/{group}_*'"
            )

    @cached_property
    def has(self) -> frozenset[str]:
        return frozenset(re.findall(r"\{(.*?)\}", self.text))

    def on_device(self) -> "Layout":
        """A device's folder is one site: without a leading folder for it."""
        return Layout(self.text.removeprefix("{site}/"))

    def find(self, root: Path) -> ImageTree:
        """Raises DataError for what does not lie as this says; hidden files and other leavings are passed over."""
        tree = ImageTree()
        tree.images.extend(self._below(root, root, (), tree))
        if not tree.images:
            shown = re.sub(r"\{(\w+)\}", r"<\1>", self.text).removesuffix("*")
            raise DataError(f"{root}: no images. They belong in {root}/{shown}, named *{' *'.join(IMAGE_ENDINGS)}")
        return tree

    @cached_property
    def _parts(self) -> list[re.Pattern[str]]:
        return [re.compile(_pattern(part), re.DOTALL) for part in self.text.split("/")]

    def _below(
        self, root: Path, folder: Path, above: tuple[tuple[str, str, Path], ...], tree: ImageTree
    ) -> Iterator[Placed]:
        depth = len(folder.parts) - len(root.parts)
        is_last = depth == len(self._parts) - 1
        there = entries(folder)
        if not there and depth:
            tree.empty.append(folder)
        for entry in there:
            if not is_last and not entry.is_dir():
                raise DataError(f"{entry}: a stray file. Images lie in {root}/{self.text} (data.layout)")
            if is_last:
                check_image(entry, "A class folder")
            found = self._parts[depth].fullmatch(clean(entry.stem if is_last else entry.name))
            if found is None:
                raise DataError(
                    f"{entry}: its name does not fit {self.text.split('/')[depth]!r} of data.layout={self.text}"
                )
            said = above + tuple((name, value, entry) for name, value in found.groupdict().items())
            if not is_last:
                yield from self._below(root, entry, said, tree)
                continue
            values = {name: value for name, value, _ in said}
            labelled = next(place for name, _, place in said if name == "class")
            # A group is one of its site: two hospitals may both have a patient 1.
            group = "/".join([values.get("site", ""), values["group"]]) if "group" in values else ""
            yield Placed(entry, values["class"], labelled, values.get("site", ""), group)


def _pattern(part: str) -> str:
    pieces = re.split(r"(\{\w+\}|\*)", part)
    known = {"*": r".*"} | {f"{{{name}}}": rf"(?P<{name}>.+?)" for name in TOKENS}
    return "".join(known.get(piece) or re.escape(piece) for piece in pieces)
