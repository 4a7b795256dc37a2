"""The same work as pfl-research does it, in one process with torch's own number of threads.

    python -m benchmarks.pfl_loop PLACE

Needs pfl, torch and safetensors and nothing of fedapp, so that it can run in an environment of its own. Rounds are
noted in PLACE/pfl.jsonl.
"""

import json
import sys
import time
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own idiom)
from safetensors.torch import load_file
from stock_app.task import NETS, examples
from torch import Tensor, nn

__all__ = ["main"]


def judged(net: nn.Module) -> nn.Module:
    """`net` with the loss and metrics that pfl asks of a model; each training loss is noted in `net.noted`."""
    noted: list[Tensor] = []

    def loss(inputs: Tensor, targets: Tensor, **_: Any) -> Tensor:
        found = F.cross_entropy(net(inputs), targets)
        noted.append(found.detach())
        return found

    def metrics(inputs: Tensor, targets: Tensor, **_: Any) -> dict[str, Any]:
        return {}

    net.loss, net.metrics, net.noted = loss, metrics, noted
    return net


def main(place: Path) -> None:
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.pytorch import PyTorchTensorDataset
    from pfl.hyperparam.base import NNEvalHyperParams, NNTrainHyperParams
    from pfl.metrics import Metrics
    from pfl.model.pytorch import PyTorchModel

    work = json.loads((place / "work.json").read_text())
    inputs, targets = examples(str(place))
    net = judged(NETS[work["model"]]())
    net.load_state_dict(load_file(place / "initial.safetensors"))
    users = chain(chain.from_iterable(work["cohorts"]), [0] * work["cohort"])

    def user(number: int) -> PyTorchTensorDataset:
        order = torch.randperm(len(targets[number]))  # pfl goes through a user's examples in the order it gets them in
        return PyTorchTensorDataset((inputs[number][order], targets[number][order]), user_id=str(number))

    lines: list[dict[str, float]] = []

    class Note(TrainingProcessCallback):
        def after_central_iteration(self, aggregate_metrics: Any, model: Any, *, central_iteration: int) -> Any:
            loss = float(torch.stack(net.noted).mean())
            lines.append({"round": central_iteration + 1, "time": time.time(), "loss": loss, "steps": len(net.noted)})
            net.noted.clear()
            return False, Metrics()

    data = FederatedDataset(user, lambda: next(users))
    model = PyTorchModel(net, torch.optim.SGD, torch.optim.SGD(net.parameters(), lr=1.0))
    rounds = work["rounds"]
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=rounds,
            evaluation_frequency=rounds + 1,
            train_cohort_size=work["cohort"],
            val_cohort_size=0,
        ),
        SimulatedBackend(training_data=data, val_data=data),
        model,
        NNTrainHyperParams(local_num_epochs=1, local_learning_rate=work["lr"], local_batch_size=work["batch_size"]),
        NNEvalHyperParams(local_batch_size=1000),
        callbacks=[Note()],
    )
    (place / "pfl.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
