"""The ServerApp, as in the quickstart: Flower's FedAvg. Its `evaluate_fn` only notes when rounds end."""

import json
import time
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from safetensors.torch import load_file

from stock_app.task import NETS

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """All rounds, then PLACE/stock.jsonl with a line for each."""
    settings = context.run_config
    place = Path(settings["place"])
    global_model = NETS[settings["net"]]()
    global_model.load_state_dict(load_file(place / "initial.safetensors"))
    ends: dict[int, float] = {}

    def note(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        ends[server_round] = time.time()
        return MetricRecord()

    strategy = FedAvg(fraction_train=settings["fraction-train"], fraction_evaluate=settings["fraction-evaluate"])
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(global_model.state_dict()),
        train_config=ConfigRecord({"lr": settings["learning-rate"]}),
        num_rounds=settings["num-server-rounds"],
        evaluate_fn=note,
    )

    lines = [
        {"round": number, "time": ends[number], "loss": metrics["train_loss"], "steps": metrics["steps"]}
        for number, metrics in result.train_metrics_clientapp.items()
    ]
    (place / "stock.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
