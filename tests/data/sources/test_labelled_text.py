"""Labelled texts: what is read of files, how texts become tokens, and who has them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fedapp.common.errors import ConfigError, DataError
from fedapp.data.sources.hub_labelled_text import HubLabelledText
from fedapp.data.sources.own_labelled_text import OwnLabelledText
from fedapp.data.sources.shakespeare import Shakespeare
from fedapp.data.sources.verse import Verse, form_of

ROWS = [
    {"text": "the river was wide", "label": "tells", "user": "anna"},
    {"text": "was the river wide, and the road long?", "label": "asks", "user": "ben"},
    {"text": "the road", "label": "tells", "user": "ben"},
]


def source(**options: Any) -> OwnLabelledText:
    given = {"classes": ["asks", "tells"], "window": 6, "vocabulary_size": 500}
    return OwnLabelledText(**{**given, **options})


@pytest.fixture(params=["jsonl", "csv", "parquet"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    found = tmp_path / f"letters.{request.param}"
    if request.param == "jsonl":
        found.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif request.param == "csv":
        lines = [",".join(f'"{value}"' for value in row.values()) for row in ROWS]
        found.write_text("\n".join(["text,label,user", *lines]) + "\n")
    else:
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_pylist(ROWS), found)
    return found


def test_a_text_is_one_example_between_a_beginning_and_an_end(path: Path) -> None:
    made = source(path=str(path))
    pooled, tokens = made.pooled(), made.tokens
    assert pooled.train.inputs.shape == (3, 6)
    assert pooled.train.targets.tolist() == [1, 0, 1]
    assert pooled.columns == {"user": ["anna", "ben", "ben"]}
    assert pooled.test is None
    inputs = pooled.train.inputs.tolist()
    assert inputs[0] == [tokens.begin, *tokens.encode("the river was wide"), tokens.end]
    assert inputs[1] == [tokens.begin, *tokens.encode("was the river wide"), tokens.end]  # cut behind the window
    assert inputs[2] == [tokens.begin, *tokens.encode("the road"), tokens.end, tokens.padding, tokens.padding]


def test_a_device_reads_its_own_file_and_needs_no_user(path: Path) -> None:
    found = source().local(path)
    assert torch.equal(found.inputs, source(path=str(path)).pooled().train.inputs)
    assert found.targets.tolist() == [1, 0, 1]


def test_held_out_users_are_the_servers(path: Path) -> None:
    pooled = source(path=str(path), test_clients=1).pooled()
    assert pooled.test is not None
    assert len(pooled.train) + len(pooled.test) == 3
    assert len(set(pooled.columns["user"])) == 1


def test_the_server_may_have_a_file_of_its_own(path: Path) -> None:
    made = source(path=str(path), test_path=str(path))
    test = made.test()
    assert test is not None
    assert torch.equal(test.inputs, made.pooled().train.inputs)


def test_a_template_is_read_around_the_text() -> None:
    made = source(template="the road: {text} ?", window=9)
    found = made.inputs_of(["river"])
    plain = source(window=9).inputs_of(["the road: river ?"])
    assert torch.equal(found, plain)


def test_of_what_is_too_long_the_text_is_cut_and_not_the_template() -> None:
    made = source(template="the road: {text} and was it long", window=9)
    (found,) = made.inputs_of(["river was river was"])
    assert made.tokens.join(found[1:-1].tolist()) == "the road river and was it long"
    (short,) = source(template="{text}", window=5).inputs_of(["river was river was"])
    assert made.tokens.join(short[1:-1].tolist()) == "river was river"


def test_a_template_leaves_room_for_the_text() -> None:
    source(template="the road: {text} long", window=6).schema()
    with pytest.raises(ConfigError, match=r"data\.window=5: data\.template=.* leaves no room"):
        source(template="the road: {text} long", window=5).schema()


@pytest.mark.parametrize("template", ["", "{text} {text}", "{text.__class__}", "{user}"])
def test_a_template_has_one_place_for_the_text(template: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.template=.*: must have \{text\} once"):
        source(template=template)


def test_of_a_template_nothing_else_is_read() -> None:
    made = source(template="{0.__class__} {text}", window=9)
    assert torch.equal(made.inputs_of(["river"]), source(window=9).inputs_of(["{0.__class__} river"]))


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ({"text": "the road", "label": "sings"}, r"line 2: label 'sings' is no known label; known: 'asks', 'tells'"),
        ({"text": "the road"}, r"line 2: label None is no known label"),
        ({"text": " ", "label": "asks"}, r"line 2: has no 'text'"),
        ({"text": ["the road"], "label": "asks"}, r"line 2: has no 'text'"),
    ],
)
def test_a_bad_row_is_named(row: dict[str, Any], part: str, tmp_path: Path) -> None:
    path = tmp_path / "letters.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in (ROWS[0], row)))
    with pytest.raises(DataError, match=part):
        source(path=str(path)).pooled()


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"classes": ["asks"]}, "data.classes"),
        ({"window": 2}, "data.window=2: must be at least 3"),
        ({"label": "text"}, "must differ"),
        ({"test_path": "/x", "test_clients": 1}, "set one of them"),
        ({"vocabulary": "learned"}, "Take a public one"),
        ({"tokenizer": False}, "data.tokenizer=false"),
    ],
)
def test_bad_settings_are_refused_by_name(options: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        source(**options)


def test_without_users_none_can_be_held_out(tmp_path: Path) -> None:
    path = tmp_path / "letters.jsonl"
    path.write_text(json.dumps({"text": "the road", "label": "asks"}) + "\n")
    with pytest.raises(DataError, match=r"has no 'user', so data.test_clients=1 cannot be held out"):
        source(path=str(path), test_clients=1).pooled()


def test_new_texts_to_classify_are_rows_or_lines(path: Path, tmp_path: Path) -> None:
    inputs, names = source().unlabelled(path)
    assert torch.equal(inputs, source().local(path).inputs)
    assert names == ["1", "2", "3"]
    lines = tmp_path / "lines.txt"
    lines.write_text("the river was wide\n\nthe road\n")
    inputs, names = source().unlabelled(lines)
    assert len(inputs) == len(names) == 2


def test_of_the_hub_labels_have_their_names(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["asks", "tells"])}
    )
    rows = {"text": [row["text"] for row in ROWS], "label": [row["label"] for row in ROWS]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "train-00000-of-00001.parquet"))
    made = HubLabelledText(
        dataset=str(tmp_path), classes=["tells", "asks"], test_split=None, window=6, vocabulary_size=500
    )
    assert made.pooled().train.targets.tolist() == [0, 1, 0]
    with pytest.raises(DataError, match=r"no column 'said'; it has text, label"):
        HubLabelledText(
            dataset=str(tmp_path), classes=["a", "b"], text="said", test_split=None, vocabulary_size=500
        ).pooled()


# --- verse or prose ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("speech", "form"),
    [
        ("Now, fair Hippolyta, our nuptial hour\nDraws on apace; four happy days\nAnother moon", "verse"),
        ("Why, then, take no note of him, but let him go; and\npresently call the rest\nthank God", "prose"),
        ("Now, fair Hippolyta,\nDraws on apace", None),  # too short to tell
        ("'Tis strange\n'Tis more than strange\n(And yet)", "verse"),
        ("Draws on apace\nAnother moon\nand then\nThe moon\nOr so", None),  # a mixture
    ],
)
def test_the_form_of_a_speech_is_read_off_its_layout(speech: str, form: str | None) -> None:
    assert form_of(speech, 3) == form


def test_capitals_do_not_tell_the_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokenizer may tell them apart, and of verse each line opens with one."""
    read: list[str] = []
    monkeypatch.setattr(Shakespeare, "speeches", lambda self: {"Theseus": ["Four happy days\nBring in\nAnother Moon"]})
    monkeypatch.setattr(Verse, "inputs_of", lambda self, texts: read.extend(texts) or torch.zeros(len(texts), 12))
    Verse(window=12).pooled()
    assert read == ["four happy days bring in another moon"]


@pytest.mark.slow  # reads 38 plays
def test_what_is_classified_does_not_show_the_layout() -> None:
    made = Verse(window=12, vocabulary_size=500, min_speeches=60, test_clients=2)
    pooled = made.pooled()
    assert pooled.test is not None
    assert {0, 1} == set(pooled.train.targets.tolist())
    assert not set(pooled.columns["role"]) & {"nobody"}
    counts = [pooled.columns["role"].count(role) for role in set(pooled.columns["role"])]
    assert min(counts) >= 60
    assert made.tokens.encode("A\nb") == made.tokens.encode("a B")


def test_speeches_belong_to_their_role_or_their_play(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients of few speeches are left out, whatever a client is; test data are whole clients."""
    speech = "Four happy days\nBring in\nAnother moon"
    by_role = {"dream: Theseus": [speech] * 2, "dream: Snug": [speech], "hamlet: Ghost": [speech]}
    monkeypatch.setattr(Shakespeare, "speeches", lambda self: by_role)
    by = {client: Verse(window=12, client=client, min_speeches=2).pooled() for client in ("role", "play")}
    assert by["role"].columns == {"role": ["dream: Theseus"] * 2}
    assert by["play"].columns == {"play": ["dream"] * 3}
    away = Verse(window=12, client="play", test_clients=1).pooled()
    assert away.test is not None
    assert {len(away.train), len(away.test)} == {1, 3}
    with pytest.raises(ConfigError, match=r"data\.client=author: must be one of role, play"):
        Verse(window=12, client="author")
