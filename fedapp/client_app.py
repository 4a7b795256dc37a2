"""The ClientApp: a SuperNode's side of each message. On a device a warm worker handles it, where there is one.

Flower starts a process for every message, so this module imports little: what the work needs takes seconds.
"""

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedapp.client.worker.ask import ask
from fedapp.flower.quick_import import quick_import
from fedapp.flower.simulation import deliver_promptly

__all__ = ["app"]

deliver_promptly()  # the engine of a simulation loads this module before it starts

app = ClientApp()


def _reply(kind: str, message: Message, context: Context) -> Message:
    content = ask(kind, message.content, context)
    if content is None:
        with quick_import():
            from fedapp.client.handlers import handle

        content = handle(kind, message.content, context)
    return Message(content, reply_to=message)


@app.query()
def query(message: Message, context: Context) -> Message:
    """The preflight."""
    return _reply("query", message, context)


@app.train()
def train(message: Message, context: Context) -> Message:
    """One stage of a round, whichever the aggregation protocol has."""
    return _reply("train", message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluation of the final model."""
    return _reply("evaluate", message, context)
