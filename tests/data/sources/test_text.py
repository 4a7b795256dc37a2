"""Text as data: files, JSON lines, and the plays of Shakespeare; lines and clients that are held out."""

import json
from pathlib import Path

import pytest
import torch

from fedapp.common.errors import ConfigError, DataError
from fedapp.config import compose
from fedapp.data.findings import Findings
from fedapp.data.sources.hub_text import HubText
from fedapp.data.sources.own_text import Text
from fedapp.data.sources.shakespeare import Shakespeare, _speeches
from fedapp.data.text.text_source import TextSource
from fedapp.data.text.vocabulary import PADDING, Words
from fedapp.learning.build import build_parts
from fedapp.learning.build_shards import build_shards

WORDS = Words(size=3000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "texts"
    (root / "carol").mkdir(parents=True)
    (root / "anna.txt").write_text("the river was wide\n\nand the house was new\n")
    (root / "ben.txt").write_bytes("\ufefftime and time again\r\n".encode())
    (root / "carol" / "a.txt").write_text("one day\n")
    (root / "carol" / "b.txt").write_text("another day\n")
    (root / ".DS_Store").write_bytes(b"\xff")
    (root / "photo.png").write_bytes(b"\xff")
    return root


def said(source: TextSource) -> dict[str, list[str]]:
    pooled = source.pooled()
    found: dict[str, list[str]] = {}
    for user, row in zip(pooled.columns["user"], pooled.train.targets, strict=True):
        found.setdefault(str(user), []).append(source.tokens.join([t for t in row.tolist() if t > 3]))
    return found


def test_each_file_and_each_folder_is_a_client(folder: Path) -> None:
    assert said(Text(path=str(folder))) == {
        "anna.txt": ["the river was wide", "and the house was new"],
        "ben.txt": ["time and time again"],
        "carol": ["one day", "another day"],
    }


def test_json_lines_name_their_users(tmp_path: Path) -> None:
    path = tmp_path / "said.jsonl"
    rows = [("b", "one day"), ("a", "the house\nthe river"), ("b", "another day"), (7, "time")]
    path.write_text("".join(json.dumps({"user": user, "text": text}) + "\n" for user, text in rows))
    assert said(Text(path=str(path))) == {
        "b": ["one day", "another day"],
        "a": ["the house", "the river"],
        "7": ["time"],
    }


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "x"}\n', 'a.jsonl, line 1: needs "user"'),
        ("a.jsonl", b'\n{"user": "u"}\n', 'a.jsonl, line 2: needs "text"'),
        ("a.jsonl", b"[1]\n", "a.jsonl, line 1: is no JSON object"),
        ("a.jsonl", b'{"user": "u", "text"\n', "a.jsonl, line 1: is no JSON object"),
        ("a.jsonl", b"\xff\xfe", "a.jsonl: is not UTF-8 at byte 0"),
        ("a.txt", b"the river", "is no folder and no file of JSON lines"),
        ("a.jsonl", b'{"user": "u", "text": "fnord"}\n', "holds no text that this vocabulary knows a word of"),
        ("sub/a.png", b"", "holds no files of text"),
    ],
    ids=["no user", "no text", "a list", "broken", "not UTF-8", "one text", "unknown words", "no texts"],
)
def test_errors_name_file_and_line_and_no_text(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(DataError) as raised:
        Text(path=str(path.parent if "/" in name else path)).pooled()
    assert message in str(raised.value)
    assert "fnord" not in str(raised.value)


def test_a_device_has_its_own_file_or_folder(folder: Path) -> None:
    source = Text()
    assert len(source.local(folder / "anna.txt")) == 2
    assert len(source.local(folder)) == 5
    assert source.test() is None
    assert source.findings() == Findings()
    with pytest.raises(DataError, match=r"data\.path: is needed in a simulation"):
        source.pooled()
    test = Text(path=str(folder), test_path=str(folder / "ben.txt"))
    found = test.test()
    assert found is not None
    assert len(found) == 1


def test_new_lines_are_gone_on_with(folder: Path) -> None:
    inputs, names = Text(window=6).unlabelled(folder / "anna.txt")
    assert inputs.shape == (2, 6)
    assert names == ["1", "2"]


def test_held_out_clients_are_no_clients(folder: Path) -> None:
    pooled = Text(path=str(folder), test_clients=1, split_seed=1).pooled()
    assert pooled.test is not None
    assert pooled.test.groups is not None
    assert len(set(pooled.test.groups.tolist())) == 1
    assert len(set(pooled.columns["user"])) == 2
    assert len(pooled.train) + len(pooled.test) == 5
    kept = {tuple(row) for row in pooled.train.targets.tolist()}
    assert not kept & {tuple(row) for row in pooled.test.targets.tolist()}
    with pytest.raises(DataError, match="has 3 clients with text, too few"):
        Text(path=str(folder), test_clients=3).pooled()


def test_no_split_separates_the_windows_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "said.jsonl"
    lines = [" ".join([word] * 23) for word in ("one", "two", "three", "four", "five", "six")]
    rows = [{"user": user, "text": line} for user in "ab" for line in lines]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    overrides = f"data=text data.path={path} data.window=4 model=lstm train.val_fraction=0.34 partition=natural"
    config = compose(f"{overrides} partition.partition_by=user federation.num_clients=2".split())
    shards = build_shards(config, build_parts(config))
    for client in range(2):
        data = shards.of(client)
        assert len(data.train) == 24
        assert len(data.validation) == 12  # two lines of six windows
        learnt, held_out = (set(part.inputs[:, 1].tolist()) for part in (data.train, data.validation))
        assert (len(learnt), len(held_out), learnt & held_out) == (4, 2, set())  # each line has a word of its own


@pytest.mark.slow
def test_a_local_copy_of_a_data_set_of_the_hub(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    for split, users in (("train", ["a", "b", "a"]), ("test", ["c"])):
        table = pa.table(
            {"who": users, "said": ["one day\nthe house", "time", "the river", "another day"][: len(users)]}
        )
        parquet.write_table(table, tmp_path / f"{split}-00000-of-00001.parquet")
    source = HubText(dataset=str(tmp_path), text="said", user="who")
    assert said(source) == {"a": ["one day", "the house", "the river"], "b": ["time"]}
    assert source.test() is None
    test = HubText(dataset=str(tmp_path), text="said", test_split="test").test()
    assert test is not None
    assert len(test) == 2
    assert len(set(HubText(dataset=str(tmp_path), text="said").pooled().columns["user"])) == 1
    with pytest.raises(DataError, match="no column 'text'; it has"):
        HubText(dataset=str(tmp_path)).pooled()
    with pytest.raises(ConfigError, match=r"needs data\.user"):
        HubText(dataset=str(tmp_path), test_clients=1)


# --- Shakespeare ---------------------------------------------------------------------------------------------------

PLAY = """# A Play

## ACT I

_Enter ALL_

**ANNA**\x20\x20
_\\[Aside]_ Now is the winter\x20\x20
of our _discontent_

_Exit BEN_

made glorious \\- summer.

**BEN**\x20\x20
[To ANNA] So.

### SCENE II

Not spoken by anybody.

**ANNA**\x20\x20
_Sings_
"""


def test_speeches_are_what_is_spoken() -> None:
    assert list(_speeches(PLAY)) == [
        ("ANNA", "Now is the winter\nof our discontent\nmade glorious - summer."),
        ("BEN", "So."),
        ("ANNA", "Sings"),
    ]


@pytest.mark.slow
def test_the_plays_have_1426_roles() -> None:
    source = Shakespeare(test_clients=32)
    speeches = source.speeches()
    assert len(speeches) == 1426
    assert sum(len(speech.split()) for own in speeches.values() for speech in own) == 824_727
    assert "to be, or not to be" in " ".join(speeches["hamlet: HAMLET"]).lower()
    assert not any(mark in speech for own in speeches.values() for speech in own for mark in "*_\\")
    pooled = Shakespeare(test_clients=32, min_words=100).pooled()
    assert len(set(pooled.columns["role"])) == 800
    assert pooled.test is not None
    assert len(torch.unique(pooled.test.groups)) == 32  # type: ignore[arg-type]
    assert float((pooled.train.targets != PADDING).double().mean()) > 0.7


def test_shakespeares_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"data\.min_words=-1"):
        Shakespeare(min_words=-1)
    assert Shakespeare(vocabulary="characters", window=80).schema().vocabulary == 100
