"""What is attacked is adjacent as the account of its form of client-level DP means it."""

from typing import Any

import pytest
import torch

from fedapp.audit.client_runs import ClientRun
from fedapp.config import compose
from fedapp.learning.build import build_parts
from fedapp.learning.build_shards import build_shards

DP = "privacy=client_dp model=logistic_regression partition=iid federation.num_clients=6 federation.num_rounds=1"
CANARIES, MEMBERS = torch.ones(3, 652), torch.tensor([True, False, True])


@pytest.mark.parametrize(
    ("more", "method", "registry", "sent"),
    [
        ("secure_aggregation=none", "_central", [*range(6), 6, 8], [1.0, 1.0, 1.0]),
        ("secure_aggregation=secaggplus", "_distributed", [*range(6), 6, 7, 8], [1.0, 0.0, 1.0]),
    ],
)
def test_a_canary_that_is_out_is_not_there_or_sends_zeros(
    monkeypatch: pytest.MonkeyPatch, more: str, method: str, registry: list[int], sent: list[float]
) -> None:
    seen: list[Any] = []

    def note(self: ClientRun, *given: Any) -> torch.Tensor:
        seen.extend(given)
        return torch.zeros(652)

    monkeypatch.setattr(ClientRun, method, note)
    config = compose(f"{DP} {more} privacy.noise_multiplier=1 privacy.target_epsilon=null".split())
    parts = build_parts(config)
    assert len(list(ClientRun(config, parts, build_shards(config, parts)).released(CANARIES, MEMBERS))) == 2
    assert [value for value in seen if isinstance(value, list)] == [registry]
    (canaries,) = [v for v in seen if isinstance(v, torch.Tensor) and v.dim() == 2]
    assert canaries[:, 0].tolist() == sent
