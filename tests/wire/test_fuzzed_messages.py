"""Whatever a message holds, what unpacks it gives values or one of the documented errors, in bounded memory."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from hostile import bomb, copy_of, mutated
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fedapp.aggregation
import fedapp.wire
from fedapp.aggregation.helper.helper_messages import (
    OFFER,
    SumRequest,
    pack_masked_sum,
    pack_offer,
    pack_run_keys,
    pack_sum_reply,
    pack_sum_request,
)
from fedapp.aggregation.helper.run_keys import RunKeys
from fedapp.aggregation.helper.tags import Bound, Tag
from fedapp.aggregation.secaggplus.answers import key_answers, revealed_answers, shared_answers, signed_answers
from fedapp.aggregation.secaggplus.batches import WHOLE
from fedapp.aggregation.secaggplus.cohort_view import CohortView, Member
from fedapp.aggregation.secaggplus.masked_message import pack_masked, pack_masked_reply
from fedapp.aggregation.secaggplus.member import Sealed, Shared
from fedapp.aggregation.secaggplus.messages import Header, pack_answers, pack_question, pack_signatures
from fedapp.aggregation.secaggplus.settings import Settings
from fedapp.aggregation.secaggplus.unmasking import Revealed
from fedapp.aggregation.secaggplus.view_record import pack_view
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.updates.packing import pack_bits
from fedapp.wire.differences import Differences, give_differences, pack_has
from fedapp.wire.instruction import Instruction, pack_instruction, with_stage
from fedapp.wire.model import GlobalModel
from fedapp.wire.preflight import MOMENTS, PreflightReport, pack_preflight
from fedapp.wire.records import arrays_to_state, said_of, size, state_to_arrays, text
from fedapp.wire.reply import ClientReport, PrivacySpent, Reply, pack_reply

MODEL = {"net.1.weight": torch.randn(4, 3), "net.1.bias": torch.zeros(4)}
HEADER = Header("masked", "0123456789abcdef", 3, (0, 2), b"d" * 32)
REPORTS = (ClientReport(0, steps=3, train_loss=0.5, privacy=PrivacySpent(1.0, 0.1, 2.0, 1e-5)), ClientReport(2, "bad"))
SHARED = Shared({2: b"s" * 90}, b"k" * 32, {0: (b"a" * 32, b"b" * 32)})
SEALED = Sealed(b"x", b"y", b"z")
VIEW = CohortView("0123456789abcdef", 3, "m" * 64, (Member(0, 1.0, b"c", b"m", b"s"),), None, "w" * 64)  # type: ignore[arg-type]


HELPER_KEYS = RunKeys(b"k" * 32, b"p", b"s")
TAG = Tag(0, 1.0, 2, b"x" * 92, b"s")
BOUND = Bound("0123456789abcdef", 3, 2, "m" * 64, "c" * 64, "w" * 64, b"k" * 32)
MASKED_SUM = torch.arange(9, dtype=torch.uint8)
LEVELS = np.arange(0, 2000, 150, dtype="<u2")


def instruction() -> RecordDict:
    given = Instruction(3, (0, 2), (0.5, 0.5), run="0123456789abcdef", plan={"NormLimit": {"limit": 2.0}})
    return with_stage(pack_instruction(given, GlobalModel(MODEL)), "train")


def secure_question() -> RecordDict:
    found = pack_question(HEADER, survivors=[0], dropped=[2])
    found["signatures"] = pack_signatures({0: b"s", 2: b"t"})
    return found


def one(entries: Any) -> RecordDict:
    return RecordDict({"record": ConfigRecord(entries)})


def moments() -> dict[str, torch.Tensor]:
    return dict(zip(MOMENTS, torch.tensor([[[9.0, 9.0]], [[1.0, 2.0]], [[3.0, 4.0]]]).double(), strict=True))


def differing() -> RecordDict:
    content = instruction()
    packed = torch.arange(30, dtype=torch.uint8)
    give_differences(content, Differences("a" * 64, "b" * 64, (packed, packed)))
    return content


def having() -> RecordDict:
    content = pack_reply(Reply(REPORTS))
    pack_has(content, "a" * 64)
    return content


def of_record(unpack: Callable[..., Any]) -> Callable[[RecordDict], Any]:
    return lambda content: unpack(content.config_records["record"])


# By function: a message that it takes, and how it is called with one.
EXAMPLES: dict[str, tuple[RecordDict, Callable[[Any], Callable[[RecordDict], Any]]]] = {
    "unpack_instruction": (instruction(), lambda unpack: unpack),
    "unpack_preflight": (
        pack_preflight(PreflightReport("c", "/x", (4,), (9,), ("",), moments=moments(), site="A")),
        lambda unpack: unpack,
    ),
    "unpack_reply": (pack_reply(Reply(REPORTS, {0: MODEL}, MODEL)), lambda unpack: unpack),
    "unpack_header": (secure_question(), lambda unpack: unpack),
    "unpack_survivors": (secure_question(), lambda unpack: unpack),
    "unpack_signatures": (secure_question(), lambda unpack: unpack),
    "unpack_answers": (
        pack_answers(HEADER, {0: key_answers(b"c", b"m", b"s")}, {2: ProtocolError("forged", "no")}),
        lambda unpack: lambda content: unpack(content, (0, 2)),
    ),
    "unpack_accused": (
        pack_answers(HEADER, {0: key_answers(b"c", b"m", b"s")}, {2: ProtocolError("forged", "no")}),
        lambda unpack: lambda content: unpack(content, (0, 2)),
    ),
    "unpack_masked": (
        pack_masked(
            HEADER, Instruction(3, (0, 2), (0.5, 0.5)), GlobalModel(MODEL), (0, 2), {0: {2: SEALED}, 2: {0: SEALED}}
        ),
        lambda unpack: unpack,
    ),
    "unpack_masked_reply": (
        pack_masked_reply(HEADER, Reply(REPORTS), {WHOLE: torch.zeros(9, dtype=torch.uint8)}),
        lambda unpack: unpack,
    ),
    "unpack_keys": (one(key_answers(b"c", b"m", b"s")), of_record),
    "unpack_shared": (one(shared_answers(SHARED)), of_record),
    "unpack_revealed": (one(revealed_answers(Revealed({0: b"x"}, {2: b"y"}))), of_record),
    "unpack_signed": (one(signed_answers(b"s")), of_record),
    "unpack_view": (
        RecordDict({"record": pack_view(VIEW)}),
        lambda unpack: lambda content: unpack(content.config_records["record"], Settings()),
    ),
    "unpack_run_keys": (RecordDict({"record": pack_run_keys(HELPER_KEYS)}), of_record),
    "unpack_offer": (RecordDict({OFFER: pack_offer([HELPER_KEYS], 2)}), lambda unpack: unpack),
    "unpack_masked_sum": (
        pack_masked_sum(Reply(REPORTS), MASKED_SUM.numpy(), {0: [TAG]}, [b"k" * 32]),
        lambda unpack: unpack,
    ),
    "unpack_sum_request": (
        pack_sum_request(SumRequest(BOUND, (TAG,), 9, MASKED_SUM.numpy(), MODEL)),
        lambda unpack: unpack,
    ),
    "unpack_sum_reply": (pack_sum_reply(MODEL, "m" * 64), lambda unpack: unpack),
    "unpack_differences": (differing(), lambda unpack: unpack),
    "unpack_has": (having(), lambda unpack: unpack),
    "unpack_bits": (
        RecordDict({"levels": state_to_arrays({"w": torch.from_numpy(pack_bits(LEVELS, 11))})}),
        lambda unpack: (
            lambda content: unpack(
                arrays_to_state(content.array_records["levels"])["w"].numpy(), 11, len(LEVELS), "<u2"
            )
        ),
    ),
}


def unpackers() -> dict[str, Callable[..., Any]]:
    """Every function of the messages' modules that reads one."""
    found = {}
    for package in (fedapp.wire, fedapp.aggregation):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for name, function in inspect.getmembers(importlib.import_module(module.name), inspect.isfunction):
                if name.startswith("unpack_"):
                    found[name] = function
    return found


def test_every_unpacker_is_fuzzed() -> None:
    assert unpackers().keys() == EXAMPLES.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_only_documented_errors_come_out(name: str) -> None:
    content, how = EXAMPLES[name]
    unpack = how(unpackers()[name])
    unpack(copy_of(content))

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.integers(0, 2**40))
    def fuzz(seed: int) -> None:
        with suppress(ValueError, KeyError, TypeError, ProtocolError):
            unpack(mutated(Random(seed), content))

    fuzz()


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("shape", [(10**12,), (10**6, 10**6), (0, 10**30), (2**63,), (1,) * 100, (-1,)])
@pytest.mark.parametrize("fortran", [True, False])
def test_no_memory_is_taken_for_what_is_not_there(shape: tuple[int, ...], fortran: bool, copy: bool) -> None:
    with pytest.raises(ValueError, match="an array"):
        arrays_to_state(ArrayRecord({"w": bomb(shape, fortran=fortran)}), copy=copy)


def test_plans_that_are_nested_too_deeply_are_refused() -> None:
    for plan in ("[" * 10**5, "{" * 10**5, "[]", '{"a": 1}', '{"a": {"b": []}}', "nonsense"):
        content = instruction()
        content["config"]["plan"] = plan
        with pytest.raises(ValueError):  # noqa: PT011
            unpackers()["unpack_instruction"](content)


class Endless(str):
    """A text of which nobody may look at each character."""

    def __iter__(self) -> Any:
        raise AssertionError("each character of a text of any length was looked at")


def test_a_text_is_cut_before_it_is_cleaned() -> None:
    assert text(Endless("a\n" * 10**6)) == "a " * 250
    assert said_of(ValueError("x" * 10**7)) == "x" * 500
    assert said_of(ValueError()) == "ValueError"


@pytest.mark.parametrize("value", [None, 7, b"x", ["x"] * 10**6])
def test_what_is_no_text_is_not_made_one(value: object) -> None:
    with pytest.raises(TypeError, match="expected text"):
        text(value)


def test_the_size_of_a_message_counts_all_that_it_holds() -> None:
    content = RecordDict({"arrays": state_to_arrays({"w": torch.zeros(1000)})})
    for entries in ({"a": "x" * 5000}, {"a": b"x" * 5000}, {"a": ["x" * 50] * 100}, {"a": [1.0] * 625}):
        content["config"] = ConfigRecord(entries)  # type: ignore[arg-type]
        assert 9000 <= size(content) < 9300
