"""One client that seals junk is found, and nobody honest is excluded for what others did."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message
from in_process import run_in_process
from own_keys import node_configs, write_keys
from secure_rounds import play
from secure_runs import QUICK, SMALL, lines, rows, stage, summary

from fedapp.aggregation.reply_log import ReplyLog
from fedapp.aggregation.secaggplus.blame import Accusations
from fedapp.aggregation.secaggplus.settings import Settings
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.common.errors import FederationError

ONCE = SMALL.replace("num_rounds=2", "num_rounds=1") + QUICK
EXCLUDING = SMALL.replace("num_rounds=2", "num_rounds=3") + QUICK.replace("exclude_after=null", "exclude_after=1")


def of_client_2(of_stage: str, forge: Callable[[Any], None]) -> Callable[[Message], Message]:
    def tamper(reply: Message) -> Message:
        if stage(reply) == of_stage and reply.metadata.src_node_id == 102:
            forge(reply.content.config_records["client-2"])
        return reply

    return tamper


def junk_for(*receivers: int) -> Callable[[Any], None]:
    """Seals that cannot be opened."""

    def forge(record: Any) -> None:
        pairs = zip(record["to"], record["sealed"], strict=True)
        record["sealed"] = [b"junk" if to in receivers else sealed for to, sealed in pairs]

    return forge


def other_commitments(record: Any) -> None:
    """Seals that can be opened, and hold other shares than it has committed itself to."""
    record["key-shares"] = [bytes(16)] * len(record["key-shares"])


def rejected(directory: Path, server_round: int = 1) -> list[int]:
    return [client for client, row in rows(directory, server_round).items() if row["rejected"]]


@pytest.mark.parametrize("forge", [junk_for(0, 1, 3, 4, 5), junk_for(0, 1, 3), other_commitments])
def test_who_seals_junk_for_many_is_blamed_and_the_others_go_on_without_it(
    tmp_path: Path, forge: Callable[[Any], None]
) -> None:
    directory = run_in_process(tmp_path / "run", EXCLUDING, 6, tamper=of_client_2("shares", forge))
    assert rejected(directory) == [2]
    assert "of its 5 neighbours could not use" in rows(directory, 1)[2]["rejected"]
    assert "forged: the share from client 2" in rows(directory, 1)[0]["unused"]
    assert 2 not in rows(directory, 2)
    assert lines(directory, "metrics.jsonl")[2]["replied"] == 5


def test_one_accuser_excludes_nobody_and_is_not_excluded(tmp_path: Path) -> None:
    """It may be lying, or may be told junk: neither can be known."""
    directory = run_in_process(tmp_path / "run", EXCLUDING, 6, tamper=of_client_2("shares", junk_for(4)))
    for number in (1, 2, 3):
        assert len(rows(directory, number)) == 6
        assert rejected(directory, number) == []
        assert {client for client, row in rows(directory, number).items() if "unused" in row} == {4}
        assert "client 2" in rows(directory, number)[4]["unused"]


def test_a_client_that_names_everybody_is_alone(tmp_path: Path) -> None:
    def tamper(reply: Message) -> Message:
        if stage(reply) == "shares" and reply.metadata.src_node_id == 102:
            record = reply.content.config_records["client-2"]
            record.clear()
            record["refused"], record["accused"] = "forged: all of you", [0, 1, 3, 4, 5, 9]  # type: ignore[assignment]
        return reply

    directory = run_in_process(tmp_path / "run", EXCLUDING, 6, tamper=tamper)
    assert [rejected(directory, number) for number in (1, 2, 3)] == [[], [], []]
    assert summary(directory)["status"] == "finished"


def test_a_dealer_whose_shares_do_not_give_its_secret_has_shown_it_itself(tmp_path: Path) -> None:
    """The shares are as it has committed itself to; what they give is not."""

    def forge(record: Any) -> None:
        record["seed"] = bytes(16)

    with pytest.raises(FederationError, match="no round had"):
        run_in_process(tmp_path / "run", ONCE, 6, tamper=of_client_2("shares", forge))
    assert rejected(tmp_path / "run") == [2]
    assert "the shares that client 2 made do not give" in rows(tmp_path / "run", 1)[2]["rejected"]


def test_a_device_that_nobody_has_pinned_is_blamed_and_not_those_who_refuse_it(tmp_path: Path) -> None:
    devices = write_keys(tmp_path / "devices", 4)
    (devices / "keys" / "3.pub").unlink()
    four = EXCLUDING.replace("num_clients=6", "num_clients=4") + " federation.min_clients=3"
    configs = node_configs(devices, 4)
    del configs[3]["peers"]
    directory = run_in_process(tmp_path / "run", four, node_configs=configs)
    assert rejected(directory) == [3]
    assert lines(directory, "metrics.jsonl")[2]["replied"] == 3


def blame(settings: Settings, accusers: int) -> bool:
    """Whether client 2 of nine is blamed when so many of its neighbours name it, and none is for naming it."""
    view = play(9, settings, upto="keys").server.close_keys()
    near = view.neighbours(2)
    strangers = sorted(set(range(9)) - {2, *near})
    replies, accusations = ReplyLog(1, dict.fromkeys(range(9), 100)), Accusations()
    for client in (*near[:accusers], *strangers):
        replies.reject(client, str(ProtocolError("forged", "x", accused=[2])))
        accusations.add(view, client, [2, 2, 77])
    accusations.settle(view, replies)
    assert {c for c, report in replies.reports.items() if report.rejected is not None} - {2} == set(strangers)
    return 2 in replies.reports and replies.reports[2].rejected is not None


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        (Settings(None, 5, bits=12), 3),  # a third of eight
        (Settings(None, 7, bits=12), 5),  # four may work for a server, since 2 x 7 > 9 + 4
        (Settings(4, 3, bits=12), 2),
        (Settings(4, 4, bits=12), 3),
    ],
)
def test_it_takes_a_third_of_the_neighbours_and_more_than_may_work_together(settings: Settings, needed: int) -> None:
    assert blame(settings, needed)
    assert not blame(settings, needed - 1)


@pytest.mark.parametrize(
    ("cohort", "settings"),
    [(3, Settings()), (2, Settings()), (4, Settings(None, 3)), (30, Settings(2)), (9, Settings(2, 2))],
)
def test_one_liar_excludes_nobody_however_few_its_neighbours(cohort: int, settings: Settings) -> None:
    """A third of two is one, and there none may work together."""
    view = play(cohort, settings, upto="keys").server.close_keys()
    replies, accusations = ReplyLog(1, dict.fromkeys(range(cohort), 100)), Accusations()
    assert accusations.add(view, 0, view.neighbours(0))
    accusations.settle(view, replies)
    assert not replies.reports


def test_two_of_two_neighbours_are_believed() -> None:
    view = play(3, Settings(), upto="keys").server.close_keys()
    replies, accusations = ReplyLog(1, dict.fromkeys(range(3), 100)), Accusations()
    for client in (0, 1):
        accusations.add(view, client, [2])
    accusations.settle(view, replies)
    assert [client for client, report in replies.reports.items() if report.rejected is not None] == [2]


def test_strangers_blame_nobody() -> None:
    view = play(9, Settings(4, 3, bits=12), upto="keys").server.close_keys()
    replies, accusations = ReplyLog(1, dict.fromkeys(range(9), 100)), Accusations()
    far: Collection[int] = set(range(9)) - {2, *view.neighbours(2)}
    for client in far:
        assert not accusations.add(view, client, [2])
    accusations.settle(view, replies)
    assert not replies.reports
