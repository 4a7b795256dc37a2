"""The live page of a run with 10,000 clients and 1,000 rounds: bounded, and all of it can be reached."""

import json
import os
from pathlib import Path

import pytest
from browser import browser
from growing_runs import HOSTILE, Growing

from fedapp.launch.live import new_lines
from fedapp.launch.live.beside import live_page
from fedapp.launch.live.growing import MOST_POINTS, MOST_REASONS, MOST_SITES, GrowingRun
from fedapp.server.run_directory.lock import only_writer

CLIENTS, ROUNDS = 10_000, 1000


@pytest.fixture
def large(tmp_path: Path) -> Growing:
    """One client in three is rejected in the first round, and each later round has a cohort of ten."""
    run = Growing(tmp_path / "run", num_rounds=2 * ROUNDS)
    clients = [{"client": number, "rejected": "late" if number % 3 == 0 else None} for number in range(CLIENTS)]
    run.rounds({0: clients} | {number: clients[number : number + 10] for number in range(1, ROUNDS + 1)})
    return run


def test_what_is_sent_is_bounded(large: Growing) -> None:
    content = json.dumps(GrowingRun(large.directory).state())
    assert len(content) < 250_000
    state = json.loads(content)
    assert (state["num_sites"], len(state["sites"])) == (CLIENTS, MOST_SITES)
    assert len(state["rejections"]) == MOST_REASONS
    assert len(state["series"]["test_accuracy"]) <= MOST_POINTS + 1
    assert state["series"]["test_accuracy"][-1][0] == ROUNDS


def test_only_what_is_new_is_read(large: Growing, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = GrowingRun(large.directory)
    seen.state()
    parsed: list[object] = []
    loads = json.loads

    def noted(line: bytes) -> object:
        parsed.append(line)
        return loads(line)

    monkeypatch.setattr(new_lines.json, "loads", noted)
    seen.state()
    assert parsed == []
    large.round(ROUNDS + 1, [{"client": 5, "rejected": None}])
    assert seen.state()["round"] == ROUNDS + 1
    assert len(parsed) == 2


def test_every_site_is_on_one_page(large: Growing) -> None:
    seen = GrowingRun(large.directory)
    pages = [seen.state(first)["sites"] for first in range(0, CLIENTS + MOST_SITES, MOST_SITES)]
    names = [site["site"] for page in pages for site in page]
    assert (len(names), len(set(names)), pages[-1]) == (CLIENTS, CLIENTS, [])
    found = seen.state(find="999")
    assert {site["site"] for site in found["sites"]} == {str(n) for n in range(CLIENTS) if "999" in str(n)}
    assert (found["num_found"], found["num_sites"]) == (len(found["sites"]), CLIENTS)
    assert seen.state(find="ward")["sites"] == []


@pytest.mark.slow  # a browser
def test_in_a_browser(large: Growing, tmp_path: Path) -> None:
    """Prints how long it took (pytest -s); pictures go to FEDAPP_PICTURES."""
    expect = pytest.importorskip("playwright.sync_api").expect
    pictures = Path(os.environ.get("FEDAPP_PICTURES", tmp_path))
    with browser() as opened, only_writer(large.directory), live_page(large.directory) as address:
        page = opened.new_page(viewport={"width": 1280, "height": 900})
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        expect(page.locator("#sites tr")).to_have_count(MOST_SITES)
        expect(page.locator("#counted")).to_contain_text(f"1 to {MOST_SITES} of {CLIENTS}")
        load = page.evaluate("performance.now()")
        size = page.evaluate("document.querySelectorAll('*').length")
        assert size < 4000
        large.round(ROUNDS + 1, [{"client": n, "rejected": HOSTILE} for n in range(100)])
        update = page.evaluate(
            "async () => { const s = performance.now(); await refresh(); return performance.now() - s; }"
        )
        expect(page.locator("#rejections tr").first).to_contain_text(HOSTILE)
        idle = page.evaluate(
            "async () => { const s = performance.now(); await refresh(); return performance.now() - s; }"
        )
        print(f"\nload {load:.0f} ms, update {update:.0f} ms, without news {idle:.0f} ms, {size} elements")
        page.get_by_role("button", name="Next").click()
        expect(page.locator("#counted")).to_contain_text(f"{MOST_SITES + 1} to {2 * MOST_SITES} of {CLIENTS}")
        page.get_by_role("button", name="Previous").press("Enter")
        expect(page.get_by_role("button", name="Previous")).to_be_disabled()
        page.screenshot(path=str(pictures / "large-1280.png"))
        page.get_by_label("Find").fill("9999")
        expect(page.locator("#sites tr")).to_have_count(1)
        page.set_viewport_size({"width": 360, "height": 740})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.screenshot(path=str(pictures / "large-360.png"), full_page=True)
        for number in range(ROUNDS + 2, ROUNDS + 40):  # the page does not grow with the run
            large.round(number, [{"client": n, "rejected": "late"} for n in range(100)])
            page.evaluate("refresh()")
        page.get_by_label("Find").fill("")
        expect(page.locator("#sites tr")).to_have_count(MOST_SITES)
        assert page.evaluate("document.querySelectorAll('*').length") <= size
        assert errors == []
