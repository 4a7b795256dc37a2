"""What was spent is never forgotten: accounting over rounds, files that crash and are tampered with, budgets."""

import fcntl
import json
import math
import multiprocessing
import os
import shutil
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from flwr.app import RecordDict
from opacus.accountants import PRVAccountant, RDPAccountant

from fedapp.common.errors import ConfigError, FederationError
from fedapp.privacy import accounting, opacus_internals
from fedapp.privacy import ledger as ledger_module
from fedapp.privacy.accounting import MOST_PRV_POINTS, Spending, calibrate, epsilon
from fedapp.privacy.budget import Budget, Declined, planned_participations, rounded_up
from fedapp.privacy.ledger import Entry, FileLedger, Ledger, StateLedger

ROUND = Spending(1.0, 0.1, 10)


def budget(max_epsilon: float = 8.0, **options: Any) -> Budget:
    return Budget(
        **{"cost": ROUND, "max_epsilon": max_epsilon, "delta": 1e-5, "accountant": "rdp", "round_counts_to": 10}
        | options
    )


@pytest.fixture(params=["file", "state"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    return FileLedger(tmp_path / "deep" / "ledger.jsonl") if request.param == "file" else StateLedger(RecordDict(), 3)


# --- accounting --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "opacus"), [("rdp", RDPAccountant), ("prv", PRVAccountant)])
def test_epsilon_after_rounds_is_that_of_all_steps_at_once(name: str, opacus: Any) -> None:
    history = [ROUND, Spending(1.5, 0.1, 7), ROUND, Spending(1.5, 0.1, 3), ROUND]
    whole = opacus()
    whole.history = [(1.0, 0.1, 30), (1.5, 0.1, 10)]
    # PRV's grid is one for more steps, and so a little finer.
    assert epsilon(history, 1e-5, name) == pytest.approx(whole.get_epsilon(delta=1e-5), rel=1e-6)
    assert epsilon(reversed(history), 1e-5, name) == epsilon(history, 1e-5, name)


@pytest.mark.parametrize(
    ("sigma", "rate", "steps", "accountant", "expected"),
    [
        (1.0, 0.01, 1000, "rdp", 2.1014),
        (1.0, 0.01, 1000, "prv", 1.8384),
        (2.0, 0.1, 100, "rdp", 2.5806),
        (1.0, 1.0, 1, "rdp", 4.7285),
    ],
)
def test_golden_values(sigma: float, rate: float, steps: int, accountant: str, expected: float) -> None:
    assert epsilon([Spending(sigma, rate, steps)], 1e-5, accountant) == pytest.approx(expected, abs=1e-3)


def test_the_gaussian_mechanism_by_its_closed_form() -> None:
    """One step over all data: RDP is a / (2 sigma^2) at order a, converted as Balle et al. (2020) do."""
    orders = RDPAccountant.DEFAULT_ALPHAS
    expected = min(a / 2 + math.log1p(-1 / a) - (math.log(1e-5) + math.log(a)) / (a - 1) for a in orders)
    assert epsilon([Spending(1.0, 1.0, 1)], 1e-5, "rdp") == pytest.approx(expected, rel=1e-6)


def test_nothing_costs_nothing_and_no_noise_costs_everything() -> None:
    assert epsilon([], 1e-5, "prv") == 0.0
    assert epsilon([Spending(0.0, 0.1, 1)], 1e-5, "rdp") == math.inf


@pytest.mark.parametrize("accountant", ["rdp", "prv"])
def test_calibrated_noise_keeps_to_the_target_and_barely(accountant: str) -> None:
    sigma = calibrate(3.0, 1e-5, 0.05, 200, accountant)
    assert 2.97 <= epsilon([Spending(sigma, 0.05, 200)], 1e-5, accountant) <= 3.0
    with pytest.raises(ConfigError, match=r"privacy.target_epsilon=1e-12"):
        calibrate(1e-12, 1e-5, 0.05, 200, accountant)


@pytest.mark.parametrize(("sigma", "rate", "steps"), [(0.1, 1e-6, 100_000), (0.01, 1e-9, 1)])
def test_where_prv_does_not_end_or_gives_up_rdp_stands_for_it(sigma: float, rate: float, steps: int) -> None:
    history = [Spending(sigma, rate, steps)]
    assert epsilon(history, 1e-5, "prv") == epsilon(history, 1e-5, "rdp") > 100


def test_calibration_does_not_end_in_prv_either() -> None:
    sigma = calibrate(1000.0, 1e-5, 0.2, 300, "prv")
    assert 999 < epsilon([Spending(sigma, 0.2, 300)], 1e-5, "prv") <= 1000


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """On how many points each PRV was computed: its time is in proportion to them."""
    found = []

    def watched(history: Any, delta: float, accountant: str, **options: float) -> float:
        if accountant == "prv":
            found.append(opacus_internals.prv_points(history, delta, options["eps_error"]))
        return real(history, delta, accountant, **options)

    real = opacus_internals.epsilon_of
    monkeypatch.setattr(opacus_internals, "epsilon_of", watched)
    accounting._prv.cache_clear()
    return found


@pytest.mark.parametrize(
    ("target", "rate", "steps"), [(45.0, 0.2, 6000), (8.0, 0.2, 6000), (1.0, 0.01, 100_000), (0.1, 0.01, 1000)]
)
def test_prv_is_asked_a_few_times_on_a_bounded_grid(
    points: list[float], target: float, rate: float, steps: int
) -> None:
    """45 at q = 0.2 and 6,000 steps took minutes: a dozen times three million points."""
    sigma = calibrate(target, 1e-5, rate, steps, "prv")
    assert 0.9 * target - 0.02 < epsilon([Spending(sigma, rate, steps)], 1e-5, "prv") <= target
    assert 0 < len(points) <= 16
    assert max(points) < 1.1 * MOST_PRV_POINTS


@pytest.mark.parametrize(
    "history",
    [
        [Spending(1 + i / 10, 0.01, 250) for i in range(8)],  # 8 kinds of round in one ledger
        [Spending(0.5, 0.001, 1_000_000)],
        [Spending(3.0, 0.2, 10_000)],
    ],
)
def test_a_coarser_grid_costs_no_more_than_rdp_and_no_less_than_the_fine_one(
    points: list[float], history: list[Spending]
) -> None:
    found = epsilon(history, 1e-5, "prv")
    assert found <= epsilon(history, 1e-5, "rdp")
    assert max(points, default=0.0) < 1.1 * MOST_PRV_POINTS
    if len(history) == 8:
        fine = PRVAccountant()
        fine.history = [(spent.noise_multiplier, spent.sample_rate, spent.steps) for spent in history]
        assert fine.get_epsilon(delta=1e-5) <= found <= epsilon(history, 1e-5, "rdp") - 0.01


@pytest.mark.parametrize("error", [ValueError, RuntimeError, OverflowError, None])
def test_where_prv_gives_up_rdp_stands_for_it(monkeypatch: pytest.MonkeyPatch, error: type[Exception] | None) -> None:
    def gives_up(history: Any, delta: float, accountant: str, **_: float) -> float:
        if accountant == "rdp":
            return real(history, delta, accountant)
        if error is not None:
            raise error("gave up")
        return math.nan

    real = opacus_internals.epsilon_of
    monkeypatch.setattr(opacus_internals, "epsilon_of", gives_up)
    accounting._prv.cache_clear()
    assert epsilon([ROUND], 1e-5, "prv") == epsilon([ROUND], 1e-5, "rdp") > 0
    accounting._prv.cache_clear()


def test_noise_near_nothing_counts_as_taking_every_example() -> None:
    """The series of RDP for a sampled step take as long as their value is useless."""
    assert epsilon([Spending(0.01, 1e-9, 1)], 1e-5, "prv") == epsilon([Spending(0.01, 1.0, 1)], 1e-5, "rdp") > 1000


def test_who_takes_part_in_every_second_round_spends_half_the_steps(ledger: Ledger, tmp_path: Path) -> None:
    other = FileLedger(tmp_path / "other.jsonl")
    for server_round in range(1, 9):
        budget(100).pay(ledger, "run", server_round, 50)
        if server_round % 2:
            budget(100).pay(other, "run", server_round, 50)
    steps = [sum(entry.spent.steps for entry in found.entries()) for found in (ledger, other)]
    assert steps == [80, 40]
    assert budget().spent(other, 50) == epsilon([Spending(1.0, 0.1, 40)], 1e-5, "rdp")


def test_planned_participations() -> None:
    assert planned_participations(60, 1.0) == 60
    assert planned_participations(60, 0.5) == 38  # 30 and twice sqrt(15)
    assert planned_participations(1, 0.1) == 1


# --- budgets -----------------------------------------------------------------------------------------------------


def test_a_round_too_much_is_declined_and_not_written(ledger: Ledger) -> None:
    limited = budget(epsilon([ROUND] * 3, 1e-5, "rdp") + 1e-6)
    paid = [limited.pay(ledger, "run", server_round, 50) for server_round in (1, 2, 3)]
    assert paid == sorted(paid)
    with pytest.raises(Declined):
        limited.pay(ledger, "run", 4, 50)
    assert [entry.server_round for entry in ledger.entries()] == [1, 2, 3]
    with pytest.raises(Declined):  # another run finds what this one has spent
        limited.pay(ledger, "next run", 1, 50)


def test_delta_is_below_one_over_n() -> None:
    assert budget(delta=None).delta_of(100) == 1e-5
    assert budget(delta=None).delta_of(1_000_001) == 0.5 / 1_000_010  # of the rounded count: it tells no more
    assert budget(delta=1e-3).delta_of(990) == 1e-3
    with pytest.raises(ConfigError, match="below 1 / number of examples"):
        budget(delta=1e-3).delta_of(991)  # by the rounded count: it tells no more


def test_a_device_takes_a_smaller_delta_but_no_larger_one() -> None:
    own = 0.5 / 90_000
    assert budget(delta=1e-5, strict_delta=True).delta_of(90_000) == own
    assert budget(delta=1e-3, strict_delta=True).delta_of(90_000) == own
    assert budget(delta=1e-7, strict_delta=True).delta_of(90_000) == 1e-7
    assert budget(delta=None, strict_delta=True).delta_of(90_000) == own


def test_counts_are_rounded_up() -> None:
    assert [rounded_up(count, 10) for count in (0, 1, 10, 11)] == [0, 10, 10, 20]


def test_predictable_noise_voids_epsilon(ledger: Ledger) -> None:
    assert budget(void=True).pay(ledger, "run", 1, 50) == math.inf
    assert [entry.spent.noise_multiplier for entry in ledger.entries()] == [0.0]  # nor will it be forgotten
    with pytest.raises(Declined):
        budget(100).pay(ledger, "next run", 1, 50)


# --- files -------------------------------------------------------------------------------------------------------


def test_entries_come_back_as_they_were(ledger: Ledger) -> None:
    entries = [Entry("a", 1, ROUND), Entry("a", 2, Spending(0.7, 0.033, 30)), Entry("b", 1, ROUND)]
    for entry in entries:
        ledger.append(entry)
    assert ledger.entries() == entries


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    FileLedger(tmp_path / "ledger").append(Entry("a", 1, ROUND))
    assert (tmp_path / "ledger").stat().st_mode & 0o777 == 0o600


def written(tmp_path: Path) -> Path:
    for number in range(1, 4):
        FileLedger(tmp_path / "ledger").append(Entry("run", number, ROUND))
    return tmp_path / "ledger"


DAMAGE = {
    "a changed number": lambda lines: [lines[0].replace('"steps": 10', '"steps": 1'), *lines[1:]],
    "a line taken out": lambda lines: [lines[0], lines[2]],
    "the first lines gone": lambda lines: lines[2:],
    "lines turned around": lambda lines: [lines[1], lines[0], lines[2]],
    "no JSON": lambda lines: [*lines[:2], "so it goes"],
    "another JSON": lambda lines: [*lines[:2], "[]"],
    "the last line gone": lambda lines: lines[:2],
    "all lines gone": lambda lines: [],
    "a negative cost": lambda lines: [*lines[:2], json.dumps({**json.loads(lines[2]), "steps": -30})],
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_ledger_stops_the_client_and_is_left_as_it_is(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path)
    path.write_text("".join(f"{line}\n" for line in DAMAGE[kind](path.read_text().splitlines())))
    before = path.read_bytes()
    for action in (lambda: FileLedger(path).entries(), lambda: budget().pay(FileLedger(path), "run", 4, 50)):
        with pytest.raises(FederationError, match=r"damaged.*trains no more"):
            action()
    assert path.read_bytes() == before


def test_binary_rubbish_is_damage_too(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_bytes(b"\xff\xfe" + path.read_bytes())
    with pytest.raises(FederationError, match="damaged"):
        FileLedger(path).entries()


def test_a_torn_last_line_was_never_paid_for(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_bytes(path.read_bytes() + b'{"run": "run", "rou')
    assert len(FileLedger(path).entries()) == 3
    FileLedger(path).append(Entry("run", 4, ROUND))
    assert [entry.server_round for entry in FileLedger(path).entries()] == [1, 2, 3, 4]


def test_a_whole_last_line_without_its_newline_counts(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    assert len(FileLedger(path).entries()) == 3
    FileLedger(path).append(Entry("run", 4, ROUND))
    assert [entry.server_round for entry in FileLedger(path).entries()] == [1, 2, 3, 4]


def test_a_ledger_that_is_gone_is_not_begun_anew(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.unlink()
    for action in (lambda: FileLedger(path).entries(), lambda: budget().pay(FileLedger(path), "run", 4, 50)):
        with pytest.raises(FederationError, match="there were 3 lines"):
            action()
    assert not path.exists() or not path.read_bytes()


@pytest.mark.parametrize("lost", ["the folder", "all that is in it", "the ledger and its head", "the newest lines"])
def test_a_lost_folder_is_noticed_by_another_one(tmp_path: Path, lost: str) -> None:
    folder, second = tmp_path / "disk", tmp_path / "keep" / "ledger.head"
    folder.mkdir()
    ledger = FileLedger(folder / "ledger", second_head=second, makes_folder=False)
    for number in (1, 2):
        budget().pay(ledger, "run", number, 50)
        old = old if number == 2 else {path: path.read_bytes() for path in folder.iterdir()}  # noqa: F821
    for path in folder.iterdir() if lost != "the ledger and its head" else (ledger.path, ledger._heads[0]):
        path.unlink()
    if lost == "the folder":
        folder.rmdir()
    if lost == "the newest lines":
        for path, content in old.items():
            path.write_bytes(content)
    for action in (ledger.check, lambda: budget().pay(ledger, "run", 3, 50)):
        with pytest.raises(FederationError, match=r"there were 2 lines|its folder is not there"):
            action()
    assert not folder.exists() or not list(folder.glob("ledger")) or lost == "the newest lines"
    assert second.stat().st_mode & 0o777 == 0o600


def test_a_folder_that_may_be_lost_is_not_made(tmp_path: Path) -> None:
    ledger = FileLedger(tmp_path / "disk" / "ledger", makes_folder=False)
    for action in (ledger.check, lambda: budget().pay(ledger, "run", 1, 50)):
        with pytest.raises(FederationError, match=r"its folder is not there.*has spent nothing yet"):
            action()
    assert not (tmp_path / "disk").exists()
    (tmp_path / "disk").mkdir()
    budget().pay(ledger, "run", 1, 50)


def test_a_ledger_put_back_from_an_old_copy_is_noticed(tmp_path: Path) -> None:
    path = written(tmp_path)
    copy = path.read_bytes()
    FileLedger(path).append(Entry("run", 4, ROUND))
    path.write_bytes(copy)
    with pytest.raises(FederationError, match="there were 4 lines"):
        FileLedger(path).entries()


def test_an_old_copy_under_another_path_is_noticed(tmp_path: Path) -> None:
    """Of two copies one may go on; a ledger with another first line has nothing to do with them."""
    heads = tmp_path / "keep"

    def ledger_in(name: str) -> FileLedger:
        second = heads / f"{name}.head"
        return FileLedger(tmp_path / name / "ledger", second_head=second, heads_folder=heads)

    ledger_in("first").append(Entry("run", 1, ROUND))
    shutil.copytree(tmp_path / "first", tmp_path / "old")
    ledger_in("first").append(Entry("run", 2, ROUND))
    for action in (
        ledger_in("old").entries,
        ledger_in("old").check,
        lambda: budget().pay(ledger_in("old"), "run", 2, 50),
    ):
        with pytest.raises(FederationError, match=r"there were 2 lines \(.*keep/ledger-"):
            action()
    shutil.copytree(tmp_path / "first", tmp_path / "moved")
    ledger_in("moved").append(Entry("run", 3, ROUND))
    with pytest.raises(FederationError, match="there were 3 lines"):
        ledger_in("first").entries()
    ledger_in("other").append(Entry("another run", 1, ROUND))
    assert len(ledger_in("other").entries()) == 1


def test_a_check_writes_all_heads_anew(tmp_path: Path) -> None:
    """One that was lost, or never there, is no reason for less."""
    ledger = FileLedger(tmp_path / "ledger", second_head=tmp_path / "keep" / "a", heads_folder=tmp_path / "keep")
    ledger.check()
    assert ledger.entries() == []
    ledger.append(Entry("run", 1, ROUND))
    shutil.rmtree(tmp_path / "keep")
    ledger.check()
    assert {path.read_text() for path in (tmp_path / "keep").iterdir()} == {ledger.head}
    assert len([*(tmp_path / "keep").iterdir()]) == 2


def test_who_reads_while_another_writes_finds_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After whatever file it has read last, a line is added."""
    path, real, busy = tmp_path / "ledger", ledger_module._text, False

    def other() -> FileLedger:
        return FileLedger(path, second_head=tmp_path / "second", heads_folder=tmp_path)

    def read(file: Path) -> str:
        nonlocal busy
        content = real(file)
        if not busy:
            busy = True
            other().append(Entry("run", 0, ROUND))
            busy = False
        return content

    other().append(Entry("run", 0, ROUND))
    monkeypatch.setattr(ledger_module, "_text", read)
    for more in range(3):
        assert len(other().entries()) > 1 + more
    other().check_head(other().head, "a test")


def pay_and_die(path: Path, step: str) -> None:
    """Spends rounds until killed within the 3rd: `step` is before writing, before or after the ledger is synced, before
    or after the file beside it is replaced, or in training."""
    real = {"fsync": os.fsync, "replace": os.replace}
    paid = 0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def killing(name: str, *arguments: Any) -> None:
        if paid == 2 and step == f"before {name}":
            die()
        real[name](*arguments)
        if paid == 2 and step == f"after {name}":
            die()

    with patch("os.fsync", partial(killing, "fsync")), patch("os.replace", partial(killing, "replace")):
        for number in range(1, 10):
            paid = number - 1
            if number == 3 and step == "before":
                die()
            budget(100).pay(FileLedger(path), "run", number, 50)
            if number == 3:
                die()  # training


def test_a_payment_is_on_the_disk_before_it_counts(tmp_path: Path) -> None:
    """A killed process keeps what it wrote; a machine without power only what was synced, with the name of the file."""
    path, synced = tmp_path / "ledger", []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        synced.append((Path(name).name, path.read_bytes()))

    with patch("os.fsync", fsync):
        budget(100).pay(FileLedger(path), "run", 1, 50)
        first = path.read_bytes()
        budget(100).pay(FileLedger(path), "run", 2, 50)
    assert synced == [("ledger", first), (tmp_path.name, first), ("ledger", path.read_bytes())]


def test_nobody_else_reads_or_writes_while_one_decides(tmp_path: Path) -> None:
    ledger = FileLedger(tmp_path / "ledger")
    with ledger.held(), (tmp_path / "ledger.lock").open("a") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    (tmp_path / "link").symlink_to(tmp_path / "ledger")
    link = FileLedger(tmp_path / "link")
    with link.held(), (tmp_path / "ledger.lock").open("a") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


STEPS = ("before", "before fsync", "after fsync", "before replace", "after replace", "in training")


def each_dies(folder: Path, steps: tuple[str, ...], ends: Any) -> None:
    """For a process of its own, in which nothing but this thread runs: one fork for each step."""
    for step in steps:
        if not (child := os.fork()):
            pay_and_die(folder / step, step)
            os._exit(0)
        ends.send(os.waitpid(child, 0)[1])


@pytest.mark.slow
def test_a_killed_client_never_understates(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    with patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
        process = context.Process(target=each_dies, args=(tmp_path, STEPS, sender))
        process.start()
        process.join()
    assert process.exitcode == 0
    for step in STEPS:
        assert os.WTERMSIG(receiver.recv()) == signal.SIGKILL, step
        rounds = [entry.server_round for entry in FileLedger(tmp_path / step).entries()]
        paid_first = step in ("before replace", "after replace", "after fsync", "in training")
        assert rounds == [1, 2, 3] if paid_first else rounds in ([1, 2], [1, 2, 3]), step
        FileLedger(tmp_path / step).append(Entry("run", 4, ROUND))  # it goes on
