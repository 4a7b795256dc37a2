"""What comes in to the server: of whom it is in a sum, and whose fault it is where it is in none."""

from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from helper_rounds import Client, Played

from fedapp.aggregation.helper import gathered as module
from fedapp.aggregation.helper.carrier import CRASHED, Bytes, Carrier
from fedapp.aggregation.helper.gathered import Gathered
from fedapp.aggregation.helper.helper_messages import pack_masked_sum
from fedapp.aggregation.helper.masked_integers import MaskedAdder, MaskedIntegers
from fedapp.aggregation.helper.run_keys import RunKeys, check_sizes
from fedapp.aggregation.reply_log import ReplyLog
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.wire.reply import ClientReport, Reply

OTHER = bytes(range(32))


class Fragile(MaskedIntegers):
    """What adds goes at the vectors of `deadly`, as SEAL might."""

    deadly: ClassVar[list[bytes]] = []

    def adder(self, public: bytes, length: int) -> Any:
        return FragileAdder(self.numbers, length)


class FragileAdder(MaskedAdder):
    gone = False

    def add(self, carried: Bytes) -> None:
        self.gone = self.gone or carried.tobytes() in Fragile.deadly
        if self.gone:
            raise ProtocolError(CRASHED, "the process that reads ciphertexts has ended")
        super().add(carried)


class Coming:
    """Replies of clients of one `Played`, each on a SuperNode of its own number."""

    def __init__(self, played: Played, carrier: Carrier | None = None) -> None:
        offered = [(7, played.keys), (8, RunKeys(OTHER))]
        bounds = [played.bound(key=keys.key) for _, keys in offered]
        self.gathered = Gathered(carrier or played.carrier, bounds, offered, played.length)
        self.played, self.replies = played, ReplyLog(1, {client: client for client in range(8)})

    def take(self, client: int, found: Client, key: bytes | None = None) -> None:
        content = pack_masked_sum(
            Reply((ClientReport(client),)), found.carried, {client: [found.tag]}, [key or self.played.keys.key]
        )
        metadata = SimpleNamespace(src_node_id=client, group_id="1")
        message: Any = SimpleNamespace(content=content, metadata=metadata, has_error=lambda: False)
        self.gathered.take(message, dict.fromkeys(range(8), 1.0), self.replies)

    def rejected(self) -> dict[int, str]:
        return {report.client: report.rejected for report in self.replies.reports.values() if report.rejected}


@pytest.fixture
def played() -> Played:
    return Played(signed=False)


def test_a_crash_costs_the_reply_that_was_being_added(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = [played.client(number) for number in range(4)]
    monkeypatch.setattr(Fragile, "deadly", [clients[1].carried.tobytes()])
    coming = Coming(played, Fragile(played.carrier.numbers))  # type: ignore[attr-defined]
    with coming.gathered as gathered:
        for number, client in enumerate(clients):
            coming.take(number, client)
        assert list(coming.rejected()) == [1]
        assert gathered.clients == (0, 2, 3)
        assert np.array_equal(gathered.total(), played.added([clients[0], clients[2], clients[3]]))


def test_a_full_disk_is_no_clients_fault_and_adds_nothing(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    clients, coming = [played.client(number) for number in range(3)], Coming(played)

    def full() -> Any:
        raise OSError(28, "No space left on device")

    with coming.gathered as gathered:
        coming.take(0, clients[0])
        with monkeypatch.context() as patch:
            patch.setattr(module.tempfile, "TemporaryFile", full)  # type: ignore[attr-defined]
            coming.take(1, clients[1])
        coming.take(2, clients[2])
        assert (coming.rejected(), list(coming.replies.unused)) == ({}, [1])
        assert np.array_equal(gathered.total(), played.added([clients[0], clients[2]]))
        gathered.reject({0: "its tag does not count", 1: "it is in no sum"}, coming.replies)
        assert np.array_equal(gathered.total(), clients[2].carried)


@pytest.mark.parametrize("others", [1, 2], ids=["fewer", "as many"])
def test_where_as_many_have_pinned_another_helper_nobody_is_to_blame(played: Played, others: int) -> None:
    clients = [played.client(number) for number in range(2)]
    coming = Coming(played)
    real = RunKeys(played.ask_keys("ffffffffffffffff").key)
    coming.gathered._offered[1] = (8, real)
    coming.gathered._bounds[1] = played.bound(key=real.key)  # type: ignore[index]
    strangers = [played.client(2 + number, key=real.key) for number in range(others)]
    with coming.gathered as gathered:
        for number, client in enumerate(clients):
            coming.take(number, client)
        for number, client in enumerate(strangers):
            coming.take(2 + number, client, real.key)
        gathered.settle(coming.replies)
        assert gathered.clients == (0, 1)
        assert np.array_equal(gathered.total(), played.added(clients))
        assert list(coming.rejected()) == ([2] if others == 1 else [])
        assert list(coming.replies.unused) == ([2, 3] if others == 2 else [])


@pytest.mark.parametrize(
    "keys",
    [RunKeys(bytes(31)), RunKeys(OTHER, bytes(11)), RunKeys(OTHER, b"", bytes(300))],
    ids=["key", "public", "signature"],
)
def test_keys_that_are_too_long_go_to_no_client(keys: RunKeys) -> None:
    check_sizes(RunKeys(OTHER, bytes(10), bytes(160)), 10)
    with pytest.raises(ValueError, match="at most"):
        check_sizes(keys, 10)
