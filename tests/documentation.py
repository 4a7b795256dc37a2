"""The documentation as tests read it: its pages, the commands in them, and the files that they show."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PAGES", "ROOT", "Command", "commands", "programs", "shown_files"]

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
SHOWN = re.compile(r"`((?:fedapp|conf)/[\w./]+)`:\n+```(?:python|yaml)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"`([^`]+)`")
INPUT = re.compile(r"<<'(\w+)'\n(.*?)^\1$", flags=re.DOTALL | re.MULTILINE)
COMMENTED = re.compile(r"^# ((?:python scripts/|flwr run ).*)$", flags=re.MULTILINE)
PROGRAM = re.compile(r"(?:python(?: -m)? [\w./]+|flwr run \. -|scripts/[\w/]+ )")  # what opens a command in prose


@dataclass(frozen=True)
class Command:
    """One simple command. `fenced`: of a block of shell commands, for a reader to copy; else of a line of prose."""

    page: Path
    words: tuple[str, ...]
    fenced: bool = True

    def __str__(self) -> str:
        return f"{self.page.name}: {' '.join(self.words)}"


def commands(page: Path) -> Iterator[Command]:
    """Every command of a page, in order: those of shell blocks, of comments in YAML, and of code in prose."""
    text = page.read_text(encoding="utf-8")
    variables: dict[str, str] = {}
    for language, block in FENCE.findall(text):
        if language == "bash":
            yield from (Command(page, words) for words in simple_commands(block, variables))
        elif language == "yaml":
            yield from (Command(page, tuple(shlex.split(line)), fenced=False) for line in COMMENTED.findall(block))
    for span in SPAN.findall(FENCE.sub("", text)):
        line = " ".join(span.split()).replace("=…", "=0")
        if PROGRAM.match(line):
            yield from (Command(page, words, fenced=False) for words in simple_commands(line, {}))


def programs(page: Path) -> list[str]:
    """The Python programs of a page."""
    blocks = FENCE.findall(page.read_text(encoding="utf-8"))
    inputs = [text for language, block in blocks if language == "bash" for _, text in INPUT.findall(block)]
    return [block for language, block in blocks if language == "python"] + inputs


def shown_files(page: Path) -> dict[str, str]:
    """Files that a page tells its reader to write: their contents by path."""
    return dict(SHOWN.findall(page.read_text(encoding="utf-8")))


def simple_commands(block: str, variables: dict[str, str]) -> Iterator[tuple[str, ...]]:
    """The simple commands of shell lines, without redirections; `variables` are replaced, and get what is assigned."""
    text = INPUT.sub("", block).replace("\\\n", " ").replace("<this repository>", "REPOSITORY")
    for line in text.splitlines():
        line = re.sub(r"\$\([^)]*\)", "SUBSTITUTED", line)
        if assigned := re.fullmatch(r"(\w+)=('[^']*'|[^'\s]+)(?:\s+#.*)?", line):
            variables[assigned[1]] = assigned[2].strip("'")
            continue
        if loop := re.match(r"for (\w+) in (\w+)[^;]*; do ", line):
            variables[loop[1]], line = loop[2], line[loop.end() :]
        for name, value in variables.items():
            line = re.sub(rf"\${name}\b", value, line)
        yield from _split(line)


def _split(line: str) -> Iterator[tuple[str, ...]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, "#"
    words: list[str] = []
    target = False  # the next word is a file, or a stream, that output goes to
    for word in [*lexer, ";"]:
        if set(word) <= set("<>&|;") and set(word) & set("<>"):
            target = True
            if words and words[-1].isdecimal():
                words.pop()
        elif target:
            target = False
        elif set(word) <= set("&|;"):
            words = words[1:] if words and re.fullmatch(r"[A-Z_]+=.*", words[0]) else words  # for its environment
            if words and words != ["done"]:
                yield tuple(words)
            words = []
        else:
            words.append(word)
