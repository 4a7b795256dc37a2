"""The page: complete, self-contained, safe against what clients write, and the same for the same files."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedapp.report.page import write_report

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>&$\\frac{'
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails where tags do not nest."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "

    def values(self, *names: str) -> list[str]:
        return [value for _, attributes in self.tags for name, value in attributes.items() if name in names and value]


@pytest.fixture(scope="module")
def page(sample: Path) -> Page:
    return Page(write_report(sample))


def test_holds_the_numbers(page: Page, sample: Path) -> None:
    summary = json.loads((sample / "summary.json").read_text())
    shown = re.sub(r"\s+", " ", page.text)
    assert f"test accuracy {100 * summary['test_accuracy']:.1f}%" in shown
    assert f"loss {summary['test_loss']:.4f}" in shown
    assert "all rounds done" in shown
    assert summary["model_sha256"] in shown
    assert "flwr 1.41.0" in shown
    assert "weighting: num_examples" in shown
    for line in (sample / "metrics.jsonl").read_text().splitlines():
        assert f"{json.loads(line)['test_accuracy']:.4f}" in shown
    rejected = [json.loads(line) for line in (sample / "clients.jsonl").read_text().splitlines()]
    rejected = [line for line in rejected if line["rejected"]]
    assert rejected
    for line in rejected:
        assert f"{line['round']} {line['client']} {line['rejected']}" in shown


def test_needs_no_network(page: Page, sample: Path) -> None:
    assert "://" not in (sample / "report.html").read_text(encoding="utf-8")
    assert all(value.startswith(("data:", "#")) for value in page.values("src", "href", "xlink:href", "srcset"))
    assert not {tag for tag, _ in page.tags} & {"script", "iframe", "object"}
    policy = [attributes["content"] for tag, attributes in page.tags if attributes.get("http-equiv")]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_is_accessible(page: Page) -> None:
    assert ("html", {"lang": "en"}) in page.tags
    pictures = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(pictures) == 7
    assert all(attributes["role"] == "img" and len(attributes["aria-label"] or "") > 20 for attributes in pictures)
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in page.tags if tag == "th")
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    text = " ".join(page.values("xlink:href", "clip-path"))
    assert set(re.findall(r"#([\w-]+)", text)) <= set(ids)


def test_pngs_are_not_blank(page: Page, sample: Path) -> None:
    files = sorted((sample / "plots").iterdir())
    assert len(files) == 7
    for file in files:
        pixels = np.asarray(Image.open(file).convert("L"), dtype=float)
        assert pixels.std() > 10, file
        assert min(pixels.shape) > 400


@pytest.mark.slow
def test_the_same_files_give_the_same_page(page: Page, sample: Path) -> None:
    before = {file: file.read_bytes() for file in sample.rglob("*") if file.is_file()}
    write_report(sample)
    assert {file: file.read_bytes() for file in sample.rglob("*") if file.is_file()} == before


@pytest.mark.slow
def test_escapes_what_clients_write(run_at: Callable[..., Path]) -> None:
    path = run_at(rounds=2)
    line = {"round": 2, "client": HOSTILE, "num_examples": 3, "rejected": HOSTILE, "val_accuracy": 0.5}
    final = line | {"phase": "final", "val_examples": 2, "rejected": None}
    with (path / "clients.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n" + json.dumps(final) + "\n")
    summary = json.loads((path / "summary.json").read_text())
    summary |= {"status": HOSTILE, "stop_reason": HOSTILE, "versions": {HOSTILE: HOSTILE}, f"test_{HOSTILE}": 1.5}
    summary |= {"faults": {HOSTILE: HOSTILE}}
    (path / "summary.json").write_text(json.dumps(summary))
    (path / "config.yaml").write_text("model: {name: " + json.dumps(HOSTILE) + "}\n")
    text = write_report(path).read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<img" not in text
    assert text.count("&lt;script&gt;") >= 8
    assert HOSTILE in re.sub(r"\s+", " ", Page(path / "report.html").text)


@pytest.mark.parametrize(
    ("status", "mood"), [("finished", "good"), ("failed", "bad"), ("interrupted", "fair"), (None, "fair")]
)
def test_status_has_a_colour(run_at: Callable[..., Path], status: str | None, mood: str) -> None:
    path = run_at(rounds=0)
    (path / "metrics.jsonl").write_text("")
    (path / "clients.jsonl").write_text("")
    (path / "summary.json").write_text(json.dumps({"status": status, "stop_reason": "no idea"}))
    text = write_report(path).read_text(encoding="utf-8")
    assert f'<span class="status {mood}">{status or "unknown"}</span>' in text
    assert "no idea" in text


def test_a_killed_run_still_gets_a_page(run_at: Callable[..., Path]) -> None:
    path = run_at(rounds=3)
    (path / "summary.json").unlink()
    for name in ("metrics.jsonl", "clients.jsonl"):
        with (path / name).open("a") as file:
            file.write('{"round": 4, "te')
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()[:-1]]
    shown = re.sub(r"\s+", " ", Page(write_report(path)).text)
    assert "unfinished" in shown
    assert f"test accuracy {100 * lines[-1]['test_accuracy']:.1f}%" in shown
    assert "rounds 3 " in shown


def test_a_summary_of_nulls_and_a_run_without_rounds(run_at: Callable[..., Path]) -> None:
    path = run_at(rounds=1)
    summary = json.loads((path / "summary.json").read_text())
    (path / "summary.json").write_text(json.dumps(dict.fromkeys(summary)))
    (path / "metrics.jsonl").write_text("")
    (path / "clients.jsonl").write_text("")
    page = Page(write_report(path))
    assert [tag for tag, _ in page.tags if tag in ("svg", "table")] == []
    assert list((path / "plots").iterdir()) == []


@pytest.mark.slow
def test_plots_of_an_earlier_report_go(run_at: Callable[..., Path]) -> None:
    path = run_at(rounds=1)
    (path / "plots").mkdir()
    for name in ("participation", "mine"):
        (path / "plots" / f"{name}.png").touch()
    (path / "clients.jsonl").unlink()
    write_report(path)
    kept = {file.name for file in (path / "plots").iterdir()}
    assert "participation.png" not in kept
    assert {"metric.png", "mine.png"} <= kept


@pytest.mark.slow
def test_regression_and_privacy(run_at: Callable[..., Path]) -> None:
    shown = Page(write_report(run_at("regression", kind="regression", rounds=2))).text
    assert "test MAE" in shown
    assert "accuracy" not in shown
    shown = re.sub(r"\s+", " ", Page(write_report(run_at("dp", kind="dp", rounds=4))).text)
    assert re.search(r"highest ε \d\.\d\d at δ = 1e-05", shown)
    assert "ε spent" in shown


@pytest.mark.slow
def test_who_was_left_out_is_listed(run_at: Callable[..., Path]) -> None:
    path = run_at(rounds=2, reject=0)
    with (path / "clients.jsonl").open("a") as file:
        file.write('{"round": 2, "client": null, "rejected": "SuperNode 7: not asked"}\n')
        file.write('{"round": 2, "phase": "final", "client": 3, "rejected": "late"}\n')
    summary = json.loads((path / "summary.json").read_text()) | {"faults": {"client 9": "no training example"}}
    (path / "summary.json").write_text(json.dumps(summary))
    shown = re.sub(r"\s+", " ", Page(write_report(path)).text)
    assert "2 no client asked SuperNode 7: not asked" in shown
    assert "2 3 late" in shown
    assert "preflight client 9 no training example" in shown


@pytest.mark.slow
def test_a_thousand_clients_stay_small(run_at: Callable[..., Path]) -> None:
    path = run_at(rounds=30, clients=1000, cohort=100)
    page = write_report(path)
    assert page.stat().st_size < 1_500_000
    assert Page(page).text.count("\n") > 1000


@pytest.mark.slow
def test_long_tables_say_what_they_leave_out(run_at: Callable[..., Path]) -> None:
    shown = Page(write_report(run_at(rounds=1, clients=1200, cohort=2))).text
    assert "The first 1,000 of 1,200; all of them are in clients.jsonl." in shown


@pytest.mark.slow
def test_command_line(run_at: Callable[..., Path], tmp_path: Path) -> None:
    path = run_at(rounds=1)
    command = [sys.executable, "-m", "fedapp.report"]
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == f"{path / 'report.html'}\n"
    failed = subprocess.run([*command, str(tmp_path / "nowhere")], capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    reason = "not a directory; give the run directory that a run prints at its end"
    assert failed.stderr == f"error: {tmp_path / 'nowhere'}: {reason}\n"
