"""The loss of a client's text does not need all logits at once."""

import pytest
from every_task import LANGUAGE
from torch import Tensor, nn

from fedapp.client.build import build_site
from fedapp.config import compose
from fedapp.learning.task import outputs_of
from fedapp.learning.tasks import next_token
from fedapp.privacy.limits import OwnLimits


def test_the_loss_of_a_clients_text_is_that_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    site = build_site(compose([*LANGUAGE.split(), "federation.num_clients=3"]), None, OwnLimits())
    examples, seen = site.data(0).train, []
    expected = float(site.task.loss(outputs_of(site.model, examples), examples.targets))
    monkeypatch.setattr(next_token, "LOGITS", 2 * site.task.output_shape[0] * site.task.output_shape[1])

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(len(inputs[0]))

    site.model.register_forward_pre_hook(note)
    assert site._loss(examples) == pytest.approx(expected, rel=1e-5)
    assert len(examples) > max(seen) == 2
