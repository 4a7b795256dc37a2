"""What each side sees of a run: the server sizes and sealed payloads, a party what the docs list for it."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from flwr.app import ConfigRecord, Message
from in_process import InProcessGrid
from parties import SMALL, run_on_grid

from fedapp.client.party import party_handlers, training_stages
from fedapp.client.party.party_run import PartyRun
from fedapp.client.party.session_member import SessionMember
from fedapp.data.party_table import PartyTable
from fedapp.vertical.masking import decoded
from fedapp.vertical.orders import Order, unpack_order
from fedapp.vertical.sealing import open_sealed

pytestmark = pytest.mark.slow  # whole federations

LINE = f"{SMALL} train.batch_size=300"
FIGURES = {"test_loss", "test_accuracy", "train_loss"}


def shape_of(message: Message) -> list[tuple[str, ...]]:
    """Kind, receiver, and of each entry its name, type and length."""
    found = [(message.metadata.message_type, str(message.metadata.dst_node_id))]
    for name, record in message.content.items():
        for key, value in record.items():
            items = value if isinstance(value, list) else [value]
            sizes = [str(len(item)) if isinstance(item, str | bytes) else type(item).__name__ for item in items]
            found.append((name, key, type(value).__name__, *sizes))
    return found


def transcript(directory: Path, change: "Change", monkeypatch: pytest.MonkeyPatch) -> InProcessGrid:
    line = f"{LINE} run.output_dir={directory}"
    grid = InProcessGrid(line, 3)
    table = PartyRun.table
    with monkeypatch.context() as patch:
        patch.setattr(PartyRun, "table", lambda run, party: change(table(run, party)))
        run_on_grid(grid, directory, line)
    return grid


@dataclass(frozen=True)
class Change:
    """Other values and labels, in the same number."""

    permuted: bool

    def __call__(self, table: PartyTable) -> PartyTable:
        if not self.permuted:
            return table
        order = torch.arange(len(table)).flip(0)
        targets = None if table.targets is None else 1 - table.targets
        return replace(table, inputs=table.inputs[order] * 2, targets=targets)


def test_the_server_sees_the_same_whatever_features_and_labels_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order, types and lengths of all messages are the same; every payload is sealed."""
    one = transcript(tmp_path / "one", Change(False), monkeypatch)
    other = transcript(tmp_path / "other", Change(True), monkeypatch)
    assert len(one.sent) == len(other.sent) > 10
    assert [shape_of(m) for m in one.sent] == [shape_of(m) for m in other.sent]
    assert [shape_of(m) for m in one.received] == [shape_of(m) for m in other.received]
    payloads = [sealed for grid in (one, other) for message in grid.sent for sealed in sealed_in(message)]
    assert len(set(payloads)) == len(payloads) > 20
    for message in one.sent:
        kinds = {type(record) for record in message.content.values()}
        assert kinds <= {ConfigRecord}  # no tensors


def sealed_in(message: Message) -> list[bytes]:
    found: list[bytes] = []
    for name, record in message.content.items():
        if name.startswith("to/"):
            found += [item for item in record["sealed"] if isinstance(item, bytes)]  # type: ignore[union-attr]
    return found


def test_parties_tell_the_server_sizes_and_figures_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = transcript(tmp_path / "run", Change(False), monkeypatch)
    figures: set[str] = set()
    facts: set[str] = set()
    for message in grid.received:
        for name, record in message.content.items():
            if name.startswith("from/"):
                figures |= {str(key) for key in record["figure-names"]}  # type: ignore[union-attr]
                facts |= {str(key) for key in record["fact-names"]}  # type: ignore[union-attr]
    sizes = {"train", "test", "parameters", "kept", *(f"{what}/{p}" for what in ("matched", "rows") for p in OTHERS)}
    assert figures == FIGURES | sizes
    assert facts == {"data", "enumerable", "sha256"}  # `data` in simulations only


OTHERS = ("errors", "worst")


def test_a_party_gets_what_the_docs_list_and_the_label_party_sees_the_sum_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    purposes: dict[str, set[tuple[str, str]]] = {}
    sums: list[bool] = []
    done = party_handlers._do
    sent: dict[tuple[int, str], torch.Tensor] = {}
    packed = training_stages.embedding_payload

    def spy_embedding(run: PartyRun, member: SessionMember, order: Order, values: torch.Tensor):  # type: ignore[no-untyped-def]
        sent[order.number, member.me.name] = values.clone()
        return packed(run, member, order, values)

    def spy(run: PartyRun, context, order: Order, name: str):  # type: ignore[no-untyped-def]
        seen = purposes.setdefault(name, set())
        seen |= {(payload.party, payload.purpose) for payload in order.payloads[name]}
        if order.stage == "train" and name == "means":
            sums.append(sees_sum_alone(run, context, order, sent))
        return done(run, context, order, name)

    monkeypatch.setattr(party_handlers, "_do", spy)
    monkeypatch.setattr(training_stages, "embedding_payload", spy_embedding)
    transcript(tmp_path / "run", Change(False), monkeypatch)
    assert purposes["errors"] == purposes["worst"] == {("means", p) for p in ("blinded", "rows", "gradient")}
    assert purposes["means"] == {(o, p) for o in OTHERS for p in ("blinded", "doubled", "embedding")}
    assert len(sums) == 2
    assert all(sums)


def sees_sum_alone(run: PartyRun, context, order: Order, sent: dict[tuple[int, str], torch.Tensor]) -> bool:  # type: ignore[no-untyped-def]
    """Whether what the label party opens adds up to the sum of the embeddings, and is none of them."""
    member = party_handlers._member(run, context, "means", order.session)
    number = order.payloads["means"][0].number
    total, far = None, []
    for payload in order.payloads["means"]:
        channel = member.channels[payload.party]
        content = open_sealed(channel, payload.party, "means", payload.purpose, payload.number, payload.sealed)
        words = torch.frombuffer(bytearray(content), dtype=torch.int64).numpy().view("uint64")
        total = words if total is None else total + words
        own = sent[number, payload.party]
        far.append(float((decoded(words, tuple(own.shape)) - own).abs().median()) > 1e6)
    expected = sent[number, "errors"] + sent[number, "worst"]
    assert total is not None
    return all(far) and torch.allclose(decoded(total, tuple(expected.shape)), expected, atol=1e-5)


def test_a_repeated_or_forged_order_is_refused_before_anything_is_masked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = f"{LINE} run.output_dir={tmp_path / 'run'}"
    grid = InProcessGrid(line, 3)
    run_on_grid(grid, tmp_path / "run", line)
    trains = [m for m in grid.sent if "order" in m.content and m.content["order"].get("stage") == "train"]
    again = trains[0]
    calls: list[int] = []
    monkeypatch.setattr(training_stages, "embedding_payload", lambda *_: calls.append(1))
    for change, said in ((0, "repetition"), (10_000, "wrong stage|replayed|forged")):
        again.content["order"]["number"] = int(str(again.content["order"]["number"])) + change
        again.content["order"]["batch"] = 77 if change else 1
        (reply,) = grid._answer(again)
        fault = str(reply.content[f"from/{unpack_name(again)}"]["fault"])
        assert any(word in fault for word in said.split("|")), fault
    assert not calls


def unpack_name(message: Message) -> str:
    return next(iter(unpack_order(message.content, "").payloads))
