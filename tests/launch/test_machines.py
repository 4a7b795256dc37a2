"""Machines as they are: proxies, and folders that are not to be written."""

from pathlib import Path

import pytest
from commands import run_script

from fedapp.common.loopback import past_proxies
from fedapp.launch.local_superlink import flower_environment


@pytest.mark.parametrize(
    ("environment", "listed"),
    [
        ({"http_proxy": "http://proxy:3128"}, "localhost,127.0.0.1,::1"),
        ({"https_proxy": "x", "no_proxy": ".corp, 10.0.0.1"}, ".corp,10.0.0.1,localhost,127.0.0.1,::1"),
        ({"NO_PROXY": "127.0.0.1,localhost"}, "127.0.0.1,localhost,::1"),
        ({}, "localhost,127.0.0.1,::1"),
    ],
)
def test_no_proxy_stands_between_this_machine_s_own_programs(environment: dict[str, str], listed: str) -> None:
    found = past_proxies(environment)
    assert found["no_proxy"] == found["NO_PROXY"] == listed
    assert {name: found[name] for name in environment if "no_" not in name.lower()} == {
        name: value for name, value in environment.items() if "no_" not in name.lower()
    }


def test_flower_s_programs_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    assert "127.0.0.1" in flower_environment(tmp_path)["no_proxy"]
    assert flower_environment(tmp_path)["http_proxy"] == "http://127.0.0.1:9"


def test_output_that_cannot_be_written_is_said_in_one_message(tmp_path: Path) -> None:
    """From a folder where `outputs` is a file; hydra.run.dir leads elsewhere."""
    (tmp_path / "outputs").write_text("")
    done = run_script("data=digits", "--check", cwd=tmp_path)
    assert done.code == 2
    assert "Traceback" not in done.output
    assert f"{tmp_path}/outputs: is a file" in done.output.replace("\n", "")
    assert "hydra.run.dir=" in done.output
