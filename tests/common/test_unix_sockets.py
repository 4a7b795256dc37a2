"""Sockets in folders of any depth."""

import os
import socket
from pathlib import Path

import pytest

from fedapp.common import unix_sockets
from fedapp.common.unix_sockets import LONGEST, can_be_long, short_path


@pytest.mark.parametrize("length", [0, 60, 2 * LONGEST])
def test_one_of_any_length_can_be_bound_and_reached(length: int, tmp_path: Path) -> None:
    path = tmp_path / ("d" * length) / "x.sock"
    path.parent.mkdir(exist_ok=True)
    open_before = len(os.listdir("/proc/self/fd"))
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as caller:
        with short_path(path) as name:
            assert len(name) <= LONGEST
            listener.bind(name)
        assert path.is_socket()
        listener.listen()
        with short_path(path) as name:
            caller.connect(name)
        caller.sendall(b"there")
        with listener.accept()[0] as accepted:
            assert accepted.recv(5) == b"there"
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_what_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError), short_path(tmp_path / ("d" * 200) / "x.sock"):  # noqa: PT011 (each system has its own)
        pass


def test_where_it_cannot_be_named_otherwise_the_path_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unix_sockets, "DESCRIPTORS", tmp_path / "none")
    assert not can_be_long()
    with short_path(tmp_path / ("d" * 200) / "x.sock") as name:
        assert name.endswith("d/x.sock")
