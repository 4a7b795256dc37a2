"""The ClientApp: a SuperNode's side of each message. On a device a warm worker handles it, where there is one.

Flower starts a process for every message, so this module imports little: what the handlers need takes seconds.
"""

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedapp.client.worker.ask import ask
from fedapp.common.quick_import import quick_import
from fedapp.flower.simulation import deliver_promptly

__all__ = ["app"]

deliver_promptly()  # a simulation's engine loads this module before it starts

app = ClientApp()


def _reply(kind: str, message: Message, context: Context) -> Message:
    content = ask(kind, message.content, context)
    if content is None:
        with quick_import():
            from fedapp.client.handlers import answer

        content = answer(kind, message.content, context)
    return Message(content, reply_to=message)


@app.query()
def query(message: Message, context: Context) -> Message:
    """The preflight."""
    return _reply("query", message, context)


@app.train()
def train(message: Message, context: Context) -> Message:
    """A round's training."""
    return _reply("train", message, context)


@app.train("keys")
def keys(message: Message, context: Context) -> Message:
    """The first of the four stages of a round of secure aggregation."""
    return _reply("train.keys", message, context)


@app.train("shares")
def shares(message: Message, context: Context) -> Message:
    """The second one."""
    return _reply("train.shares", message, context)


@app.train("masked")
def masked(message: Message, context: Context) -> Message:
    """The third one, in which clients train."""
    return _reply("train.masked", message, context)


@app.train("unmask")
def unmask(message: Message, context: Context) -> Message:
    """The last one."""
    return _reply("train.unmask", message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluation of the final model."""
    return _reply("evaluate", message, context)
