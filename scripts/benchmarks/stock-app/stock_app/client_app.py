"""The ClientApp, as in the quickstart: a client for every SuperNode, a message for training and one for evaluation."""

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from stock_app.task import NETS, evaluate, load_data, train

app = ClientApp()


@app.train()
def train_message(msg: Message, context: Context) -> Message:
    """Train the model on local data."""
    settings = context.run_config
    model = NETS[settings["net"]]()
    model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")

    partition_id, batch_size = context.node_config["partition-id"], settings["batch-size"]
    trainloader = load_data(settings["place"], partition_id, batch_size, shuffle=True)
    train_loss = train(model, trainloader, settings["local-epochs"], msg.content["config"]["lr"], device)

    metrics = {
        "train_loss": train_loss,
        "num-examples": len(trainloader.dataset),
        "steps": settings["local-epochs"] * len(trainloader),
    }
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord(metrics)})
    return Message(content=content, reply_to=msg)


@app.evaluate()
def evaluate_message(msg: Message, context: Context) -> Message:
    """Judge the model on local data."""
    settings = context.run_config
    model = NETS[settings["net"]]()
    model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")

    partition_id, batch_size = context.node_config["partition-id"], settings["batch-size"]
    testloader = load_data(settings["place"], partition_id, batch_size, shuffle=False)
    loss, accuracy = evaluate(model, testloader, device)

    metrics = {"eval_loss": loss, "eval_acc": accuracy, "num-examples": len(testloader.dataset)}
    return Message(content=RecordDict({"metrics": MetricRecord(metrics)}), reply_to=msg)
