"""scripts/deploy/status: exit codes as monitoring wants them, and Prometheus's text."""

import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import yaml
from prometheus_format import parsed

from fedapp.deploy import federation_status
from fedapp.deploy.federation_status import SiteStatus, Status, status_of
from fedapp.deploy.folders import AUTHORITY, Operator
from fedapp.deploy.metrics_server import server_of
from fedapp.deploy.prometheus_text import prometheus
from fedapp.deploy.status import judge, main
from fedapp.flower.control import RegisteredNode

NOW = 1_800_000_000.0
DAY = 86400.0
HERE = SiteStatus("ward A", 0, True, NOW - 60)
AWAY = SiteStatus('ward "B"\n\\', 1, False, None)


def well(*sites: SiteStatus, ends: float = NOW + 90 * DAY, **more: object) -> Status:
    return Status("127.0.0.1:1", True, "", ends, sites, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "level", "said"),
    [
        (well(HERE), 0, None),
        (well(HERE, AWAY), 1, "is not connected"),
        (well(AWAY), 2, "no site is connected"),
        (well(HERE, ends=NOW + 10 * DAY), 1, "certificate ends in 10 days"),
        (well(HERE, ends=NOW - 1), 2, "certificate has ended"),
        (Status("127.0.0.1:1", False, "refused", None, ()), 2, "does not answer: refused"),
        (well(HERE, run={"status": "failed", "directory": "d", "reason": "r", "round": 1}), 1, "has failed: r"),
    ],
    ids=["well", "away", "nobody", "ends", "ended", "gone", "failed"],
)
def test_exit_codes(found: Status, level: int, said: str | None) -> None:
    code, texts = judge(found, 30, NOW)
    assert code == level
    assert (texts == []) if said is None else any(said in text for text in texts)


@pytest.mark.parametrize(
    "wrong",
    [
        "a 1\n",
        "# TYPE a gauge\na 1\n",
        "# HELP a b\n# TYPE a gauge\na 1",
        '# HELP a b\n# TYPE a gauge\na{s="x\ny"} 1\n',
        '# HELP a b\n# TYPE a gauge\na{s="x"} 1\na{s="x"} 2\n',
        "# HELP a b\n# TYPE a gauge\na inf\n",
    ],
    ids=["no type", "no help", "no end", "unescaped", "twice", "no number"],
)
def test_the_parser_of_this_test_refuses(wrong: str) -> None:
    with pytest.raises(AssertionError):
        parsed(wrong)


def test_the_text_is_prometheus() -> None:
    twin = replace(AWAY, client=2, last_round=7, rejected=3, epsilon=float("inf"))
    run = {"status": "running", "directory": "d", "reason": "", "round": 7}
    found = parsed(prometheus(well(HERE, AWAY, twin, run=run), 1))
    ward, away, other = ((("site", site.name), ("client", str(site.client))) for site in (HERE, AWAY, twin))
    assert found["fedapp_status"] == {(): 1.0}
    assert found["fedapp_superlink_up"] == {(): 1.0}
    assert found["fedapp_certificate_end_seconds"] == {(): NOW + 90 * DAY}
    assert found["fedapp_site_connected"] == {ward: 1.0, away: 0.0, other: 0.0}
    assert found["fedapp_site_connected_since_seconds"] == {ward: NOW - 60}
    assert found["fedapp_site_last_round"] == {other: 7.0}
    assert found["fedapp_site_rejected"] == {other: 3.0}
    assert found["fedapp_site_epsilon"] == {other: math.inf}
    assert found["fedapp_run_round"] == {(): 7.0}
    gone = Status("127.0.0.1:1", False, "refused", None, ())
    assert parsed(prometheus(gone, 2)) == {"fedapp_status": {(): 2.0}, "fedapp_superlink_up": {(): 0.0}}


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    (tmp_path / "operator").mkdir()
    (tmp_path / "operator" / "operator.toml").write_text('control = "127.0.0.1:1"\n')
    (tmp_path / "operator" / AUTHORITY).write_text("")
    return Operator(tmp_path / "operator", "127.0.0.1:1")


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "run"
    directory.mkdir()
    (directory / "config.yaml").write_text(yaml.safe_dump({"run": {"name": "x"}}))
    (directory / "metrics.jsonl").write_text('{"round": 3}\n')
    rows = [
        {"round": 1, "client": 0, "epsilon": 0.5},
        {"round": 2, "client": 0, "epsilon": 0.75},
        {"round": 3, "client": 0, "rejected": "late"},
    ]
    (directory / "clients.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory


def test_sites_with_what_the_run_says_of_them(
    operator: Operator, run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = [
        RegisteredNode(5, "ward A (client 0)", b"", False, online=True, activated="2026-11-30T01:02:03+00:00"),
        RegisteredNode(6, "old (client 2)", b"", revoked=True),
    ]

    @contextmanager
    def connected(address: str, authority: bytes) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(nodes=lambda: nodes)

    monkeypatch.setattr(federation_status, "connect", connected)
    monkeypatch.setattr(federation_status, "_certificate_ends", lambda operator: 4e9)
    found = status_of(operator, run_dir)
    (site,) = found.sites
    assert (site.name, site.last_round, site.rejected, site.epsilon) == ("ward A", 2, 1, 0.75)
    assert main(["--folder", str(operator.folder), "--run-dir", str(run_dir), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["status"], said["run"]["round"], said["sites"][0]["epsilon"]) == ("ok", 3, 0.75)
    assert main(["--folder", str(operator.folder)]) == 0
    assert "ward A" in capsys.readouterr().out


def test_a_superlink_that_is_away_is_critical(operator: Operator, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--folder", str(operator.folder)]) == 2
    assert "does not answer" in capsys.readouterr().out


def test_a_wrong_call_is_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--folder", str(tmp_path)]) == 3
    assert "unknown: --folder" in capsys.readouterr().out
    assert main([]) == 3


def test_metrics_are_served_on_loopback() -> None:
    texts = iter(["a 1\n", "a 2\n"])
    with server_of(lambda: next(texts), 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            assert server.server_address[0] == "127.0.0.1"
            address = f"http://127.0.0.1:{server.server_port}"
            for expected in ("a 1\n", "a 2\n"):
                reply = httpx.get(f"{address}/metrics", trust_env=False)
                assert (reply.text, reply.headers["content-type"][:28]) == (
                    expected,
                    "text/plain; version=0.0.4; c"[:28],
                )
            assert httpx.get(f"{address}/metrics", trust_env=False).status_code == 500  # nothing is left to say
            assert httpx.get(f"{address}/other", trust_env=False).status_code == 404
            assert httpx.post(f"{address}/metrics", trust_env=False).status_code == 501
            other = {"Host": f"attacker.example:{server.server_port}"}
            assert httpx.get(f"{address}/metrics", headers=other, trust_env=False).status_code == 400
        finally:
            server.shutdown()
            thread.join()
