"""The live page: what it says of a run that waits, runs, fails, is resumed and finishes; read-only and on loopback."""

import asyncio
import os
import time
from pathlib import Path

import httpx
import pytest
from browser import browser
from growing_runs import HOSTILE, Growing

from fedapp.launch.live.beside import live_page
from fedapp.launch.live.growing import GrowingRun
from fedapp.launch.live.live_script import SCRIPT
from fedapp.launch.live.live_server import live_app
from fedapp.server.run_directory.lock import only_writer


@pytest.fixture
def run(tmp_path: Path) -> Growing:
    return Growing(tmp_path / "run")


def test_the_states_of_a_run(run: Growing) -> None:
    seen = GrowingRun(run.directory)
    assert (seen.state()["status"], seen.state()["round"]) == ("waiting", None)
    with only_writer(run.directory):
        assert seen.state()["status"] == "waiting"
        run.round(0)
        run.round(1, [{"client": 0, "rejected": None, "epsilon": 1.5}, {"client": 1, "rejected": HOSTILE}])
        state = seen.state()
        assert (state["status"], state["round"], state["num_rounds"]) == ("running", 1, 4)
        assert 0 <= state["expected_end"] - time.time() <= 6.5  # three rounds of two seconds
        assert state["rejections"] == [{"round": 1, "site": "1", "reason": HOSTILE}]
        assert [(site["site"], site["epsilon"]) for site in state["sites"]] == [("0", 1.5), ("1", None)]
        assert (state["bytes_up"], state["bytes_down"]) == (2048, 4096)
    assert seen.state()["status"] == "stopped"  # killed, and may go on
    run.end("failed", "nobody is left")
    assert (seen.state()["status"], seen.state()["reason"]) == ("failed", "nobody is left")


def test_a_resumed_run_counts_no_round_twice(run: Growing) -> None:
    seen = GrowingRun(run.directory)
    for number in range(4):
        run.round(number, [{"client": 7, "rejected": "late"}])
    assert seen.state()["num_rejected"] == 4
    for name in ("metrics.jsonl", "clients.jsonl"):  # cut back to the checkpoint, and grown past where it was
        lines = (run.directory / name).read_text().splitlines(keepends=True)
        (run.directory / name).write_text("".join(lines[:2]))
    for number in (2, 3, 4):
        run.round(number, [{"client": 8, "rejected": None}], test_accuracy=0.9)
    state = seen.state()
    assert (state["round"], state["num_rejected"], state["bytes_up"]) == (4, 2, 5 * 1024)
    assert state["series"]["test_accuracy"][2] == [2, 0.9]


def test_it_is_read_only_and_for_this_machine(run: Growing) -> None:
    app = httpx.ASGITransport(app=live_app(run.directory))

    def call(path: str, method: str = "GET", **headers: str) -> httpx.Response:
        async def answer() -> httpx.Response:
            async with httpx.AsyncClient(transport=app, base_url="http://127.0.0.1") as client:
                return await client.request(method, path, headers=headers)

        return asyncio.run(answer())

    for path in ("/", "/style.css", "/script.js", "/state.json"):
        found = call(path)
        assert found.status_code == 200
        assert "default-src 'none'" in found.headers["content-security-policy"]
        assert "http://" not in found.text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in found.text
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert call(path, method).status_code == 405
    for query in ("first=-1", "first=²", "first=1e3", "first=99999999999", "find=%00", "other=1"):
        assert call(f"/state.json?{query}").json()["status"] == "waiting"
    assert call("/state.json", host="attacker.example").status_code == 400
    assert call("/../config.yaml").status_code == 404


def test_nothing_becomes_markup() -> None:
    """Where there is no browser to show it."""
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "setHTML", "eval(", "srcdoc"):
        assert way not in SCRIPT


def test_its_program_ends_with_the_run(tmp_path: Path) -> None:
    with live_page(tmp_path / "not yet there") as address:
        assert address.startswith("http://127.0.0.1:")
        assert httpx.get(f"{address}state.json", trust_env=False).json()["status"] == "waiting"
    with pytest.raises(httpx.ConnectError):
        httpx.get(address, trust_env=False)


@pytest.mark.slow  # a browser
def test_in_a_browser(run: Growing, tmp_path: Path) -> None:
    """At 360 px and by keyboard, through the states of a run; pictures go to FEDAPP_PICTURES, to be looked at."""
    expect = pytest.importorskip("playwright.sync_api").expect
    pictures = Path(os.environ.get("FEDAPP_PICTURES", tmp_path))
    with browser() as opened, live_page(run.directory) as address:
        page = opened.new_page(viewport={"width": 360, "height": 740})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)

        def shows(status: str) -> None:
            expect(page.locator("#status")).to_have_text(status, timeout=15000)
            page.screenshot(path=str(pictures / f"live-{status}.png"), full_page=True)
            assert page.evaluate("document.documentElement.scrollWidth") <= 360
            assert page.title() == f"{status}: trial"

        shows("waiting")
        with only_writer(run.directory):
            for number in range(3):
                rows = [{"client": 0, "epsilon": 0.5 * (1 + number)}, {"client": HOSTILE, "rejected": HOSTILE}]
                run.round(number, rows, epsilon_max=0.5 * (1 + number), warnings={"late": HOSTILE})
            shows("running")
        shows("stopped")
        expect(page.locator("#rejections tr")).to_have_count(3)
        assert HOSTILE in page.inner_text("#rejections")
        assert page.evaluate("document.querySelectorAll('main img, main script').length") == 0
        page.keyboard.press("Tab")  # the link past the header
        places = []
        for _ in range(4):
            places.append(
                page.evaluate(
                    "document.activeElement.id || document.activeElement.getAttribute('aria-label')"
                    " || document.activeElement.className"
                )
            )
            page.keyboard.press("Tab")
        assert places == ["skip", "which", "Rejections", "Sites"]
        page.select_option("#which", "epsilon_max")
        expect(page.locator("#range")).to_contain_text("epsilon max")
        run.end("failed", "too few replies")
        shows("failed")
        (run.directory / "summary.json").unlink()
        with only_writer(run.directory):  # resumed
            run.round(3)
            shows("running")
        run.end("finished", "all rounds done")
        shows("finished")
        page.set_viewport_size({"width": 1280, "height": 900})
        page.screenshot(path=str(pictures / "live-wide.png"), full_page=True)
        assert errors == []
        assert all(url.startswith((address, "data:")) for url in asked)
