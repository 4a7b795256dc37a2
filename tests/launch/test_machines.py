"""Machines as they are: proxies, folders that are not to be written, and places where little is allowed."""

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from commands import PATIENCE, ROOT, run_script
from in_process import run_in_process

from fedapp.common.loopback import past_proxies
from fedapp.launch.local_superlink import LocalSuperLink, flower_environment


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


# As a user whom /etc/passwd does not name, with a home that is not to be written, 64 MB of /dev/shm, few file handles,
# an ASCII locale, and files for oneself alone.
HOSTILE = """
set -e
mount --bind /dev/null /etc/passwd
mount -t tmpfs -o size=64m none /dev/shm
mkdir home
mount -t tmpfs -o ro none home
ulimit -n 256
umask 077
exec env -u USER -u LOGNAME -u PYTHONIOENCODING HOME="$PWD/home" LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 \\
    "$0" "$@" 2>&1
"""


def can_unshare() -> bool:
    """Whether this process may make a mount namespace, as root may."""
    unshare = shutil.which("unshare")
    return unshare is not None and not subprocess.run([unshare, "-m", "true"], capture_output=True).returncode


@pytest.mark.slow
@pytest.mark.skipif(not can_unshare(), reason="mount namespaces are for root")
def test_a_poor_place_gives_the_same_model(tmp_path: Path) -> None:
    overrides = ["federation.num_rounds=1", "model=logistic_regression", "run.num_supernodes=2"]
    command = [sys.executable, str(ROOT / "scripts" / "run.py"), *overrides, f"run.output_dir={tmp_path / 'run'}"]
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", HOSTILE, *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-2:] == [
        f"report  {tmp_path / 'run' / 'report.html'}",
        f"run_dir={tmp_path / 'run'}",
    ]
    alone = run_in_process(tmp_path / "alone", " ".join(overrides[:2]), num_nodes=2)
    found, expected = (json.loads((place / "summary.json").read_text()) for place in (tmp_path / "run", alone))
    assert found["model_sha256"] == expected["model_sha256"]
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "run").rglob("*")} == {0}


@pytest.mark.parametrize("length", [4, 24, 25, 120])
def test_a_long_tmpdir_leaves_room_for_sockets(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And Ray's folder is one of this run's own: /tmp/ray may be another user's."""
    monkeypatch.setattr(tempfile, "tempdir", "/tmp".ljust(length, "x") if length > 24 else "/tmp")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    superlink = LocalSuperLink()
    try:
        assert superlink.environment["RAY_TMPDIR"] == str(superlink.home)
        session = superlink.home / "ray" / "session_2026-11-29_19-39-30_123456_1234567" / "sockets" / "plasma_store"
        assert len(str(session)) <= 107
    finally:
        shutil.rmtree(superlink.home)


def test_a_cluster_of_ones_own_keeps_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    superlink = LocalSuperLink()
    shutil.rmtree(superlink.home)
    assert "RAY_TMPDIR" not in superlink.environment


# What says something else under another locale, such as Turkish, whose small I has no dot. Text's own methods do not:
# Unicode's tables, not the locale's, say what is a letter, and what is its lower case.
BY_LOCALE = {"atof", "atoi", "currency", "format_string", "getpreferredencoding", "setlocale", "strcoll", "strxfrm"}
NAMES_OF_DAYS = re.compile("%[aAbBcpxX]")


def locale_dependent(source: str) -> list[str]:
    """What in a program depends on the locale."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
            found += ["import locale"] if "locale" in names else []
        elif isinstance(node, ast.Attribute) and node.attr in (*BY_LOCALE, "LOCALE"):
            found.append(node.attr)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and "time" in node.func.attr:
            texts = [item.value for item in node.args if isinstance(item, ast.Constant) and isinstance(item.value, str)]
            found += [text for text in texts if NAMES_OF_DAYS.search(text)]
        elif isinstance(node, ast.FormattedValue) and node.format_spec is not None:
            spec = ast.unparse(node.format_spec).strip("f'\"")
            found += [spec] if spec.endswith("n") or NAMES_OF_DAYS.search(spec) else []
    return found


@pytest.mark.parametrize("source", ["import locale", "f'{x:n}'", "f'{now:%b}'", "now.strftime('%d %B')", "re.LOCALE"])
def test_what_depends_on_the_locale_is_found(source: str) -> None:
    assert locale_dependent(source)


def test_nothing_here_depends_on_the_locale() -> None:
    files = [path for name in ("fedapp", "scripts") for path in (ROOT / name).rglob("*.py")]
    assert len(files) > 200
    found = {str(path.relative_to(ROOT)): locale_dependent(path.read_text(encoding="utf-8")) for path in files}
    assert {name: what for name, what in found.items() if what} == {}


def test_too_little_address_space_is_said_in_one_message(tmp_path: Path) -> None:
    command = shlex.join([sys.executable, str(ROOT / "scripts" / "run.py"), "data=digits"])
    done = subprocess.run(
        ["bash", "-c", f"ulimit -v 2097152; {command} 2>&1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stdout
    said = " ".join(done.stdout.split())
    assert "memory: PyTorch's libraries cannot be loaded" in said
    assert "ulimit -v" in said
