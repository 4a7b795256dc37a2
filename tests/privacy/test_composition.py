"""What epsilon covers together with other options: a test for each row of the table in docs/privacy.md that has none
elsewhere (transfer, personal heads, resuming: test_private_run.py; secure aggregation: secaggplus/test_secure_run.py).
"""

import json
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message
from in_process import run_in_process
from safetensors.torch import load_file
from table_form import FORM

from fedapp.common.errors import ConfigError, NodeConfigError
from fedapp.config import compose
from fedapp.learning.build import build_parts
from fedapp.privacy.ledger import FileLedger
from fedapp.privacy.limits import OwnLimits
from fedapp.privacy.option import privacy_of

QUICK = (
    "privacy=dp_sgd model=logistic_regression federation.num_clients=4 privacy.accountant=rdp partition=iid"
    " privacy.sample_rate=0.5 privacy.noise_multiplier=2.0 federation.fraction_train=1"
)


def rows(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "clients.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_who_fails_has_paid_and_who_is_left_out_pays_nothing(tmp_path: Path) -> None:
    def fail(reply: Message) -> Message:
        if reply.metadata.message_type == "train" and reply.metadata.src_node_id == 101:
            reply.content["config"]["clients"] = [98, 99]  # not about whom was asked
        return reply

    overrides = (
        f"{QUICK} federation.num_rounds=5 federation.exclude_after=2"
        f" federation.exclude_rounds=50 run.output_dir={tmp_path / 'run'}"
    )
    directory = run_in_process(tmp_path / "run", overrides, tamper=fail)
    asked = [row["round"] for row in rows(directory) if row["client"] == 1]
    assert len(asked) == 2
    paid = {c: FileLedger(directory / "ledgers" / f"client-{c}.jsonl").entries() for c in (0, 1)}
    assert [entry.server_round for entry in paid[1]] == asked  # their replies were good for nothing
    assert [entry.server_round for entry in paid[0]] == [1, 2, 3, 4, 5]


@pytest.mark.slow
def test_what_is_delivered_is_made_of_covered_updates_and_costs_nothing(tmp_path: Path) -> None:
    configs = []
    for number in range(2):
        lines = "\n".join(f"{i % 7},{(i * number) % 5},{'yn'[i % 7 > 3]}" for i in range(41))
        (tmp_path / f"{number}.csv").write_text(f"a,b,ill\n{lines}\n")
        place = {"ledger-path": str(tmp_path / f"ledger-{number}"), "keep-path": str(tmp_path / f"keep-{number}")}
        configs.append({"data-path": str(tmp_path / f"{number}.csv"), "partition-id": number, **place})
    overrides = (
        f"{FORM} privacy=dp_sgd privacy.accountant=rdp privacy.sample_rate=0.5 privacy.noise_multiplier=2.0 data=csv"
        " data.label=ill data.numeric=[a,b] data.categorical={} data.classes=[y,n] data.scaling=none"
        " model=logistic_regression federation.fraction_train=1 federation.num_rounds=2 federation.deliver=true"
    )
    directory = run_in_process(tmp_path / "run", overrides, node_configs=configs)
    sent = load_file(directory / "model.safetensors")
    for number in range(2):
        stored = load_file(tmp_path / f"keep-{number}" / "models" / "latest" / "model.safetensors")
        assert all(bool((stored[key] == value).all()) for key, value in sent.items())
        assert [entry.server_round for entry in FileLedger(tmp_path / f"ledger-{number}").entries()] == [1, 2]


def test_no_limit_of_time_is_taken_from_either_side() -> None:
    config = compose(f"{QUICK} train.max_seconds=5".split())
    with pytest.raises(ConfigError, match=r"train.max_seconds: under privacy=dp_sgd"):
        privacy_of(config).conflicts(config, build_parts(config))
    config = compose(QUICK.split())
    with pytest.raises(NodeConfigError, match="max-seconds=5"):
        privacy_of(config).protection(config, build_parts(config), OwnLimits(max_seconds=5.0), on_device=False)
