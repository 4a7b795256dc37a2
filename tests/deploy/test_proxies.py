"""A device behind a proxy reaches its SuperLink by `https_proxy`, and what is on its own machine without it."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import certifi
import pytest

from fedapp.deploy.diagnosis import why_refused
from fedapp.launch.local_superlink import flower_environment, free_port

PATIENCE = 60.0  # seconds


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The first lines of what a proxy on this machine is asked, which refuses all of it."""
    asked: list[str] = []
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                asked.append(connection.recv(4096).split(b"\r\n")[0].decode())
                connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    for name in ("no_proxy", "NO_PROXY", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.getsockname()[1]}")
    yield asked
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(timeout=5)


@pytest.mark.slow  # Flower's own program
def test_a_supernode_asks_the_proxy_for_its_superlink(proxy: list[str], tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "flower-supernode"), "--superlink", "superlink.example:9092"]
    command += [
        "--root-certificates",
        certifi.where(),
        "--host",
        "127.0.0.1",
        "--port",
        str(free_port()),
        "--isolation",
        "process",
    ]
    process = subprocess.Popen(
        command,
        env=flower_environment(tmp_path),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + PATIENCE
        while not proxy and time.monotonic() < end:
            time.sleep(0.1)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert proxy[:1] == ["CONNECT superlink.example:9092 HTTP/1.1"]


def test_a_superlink_behind_a_proxy_that_refuses_is_told_of_the_proxy(proxy: list[str]) -> None:
    port = free_port()
    said = why_refused(f"127.0.0.2:{port}", Path(certifi.where()), [])
    assert "https_proxy" in said
    assert "no_proxy" in said
    assert "https_proxy" not in why_refused(f"127.0.0.1:{port}", Path(certifi.where()), [])
    assert proxy == []
