"""How large a reply may be, by the model's size and the clients that it is about, and whose it is."""

from flwr.app import Error, Message, RecordDict

from fedapp.wire.differences import bytes_if_whole
from fedapp.wire.records import numbers, size

__all__ = ["OF_A_MESSAGE", "checked", "largest_reply", "largest_report", "without_content"]

# What a reply may have, for each client that it is about: its tensors in the widest form (a sum of updates has eight
# bytes a value, models have two or four), reports and keys; and what a message has in any case.
WIDEST, OF_A_CLIENT, OF_A_MESSAGE = 4, 1 << 16, 1 << 20  # bytes, but for the first
OF_A_REPORT = 1 << 12  # bytes of a preflight report, for each client


def checked(reply: Message, stub: Message, largest: int) -> Message:
    """The reply to `stub`, if it is of the SuperNode that was asked, and has no more than `largest` bytes; an error in
    its place otherwise."""
    if reply.has_error():
        # The SuperLink's own errors, such as for a SuperNode that has gone, bear the server's node id.
        return Message(reply.error, reply_to=stub)
    if reply.metadata.src_node_id != stub.metadata.dst_node_id:
        return Message(Error(1, "it says that it is another SuperNode's"), reply_to=stub)
    if (found := size(reply.content)) > largest:
        return Message(Error(1, f"it has {found} bytes, and may have {largest}"), reply_to=stub)
    return reply


def largest_reply(content: RecordDict) -> int:
    """Bytes of a reply to this message at most."""
    lists = (record["clients"] for record in content.config_records.values() if "clients" in record)
    clients = max((len(numbers(found)) for found in lists), default=1)
    return OF_A_MESSAGE + clients * (OF_A_CLIENT + WIDEST * bytes_if_whole(content))


def largest_report(clients: int, features: int) -> int:
    """Bytes of a preflight report about so many clients at most, with the moments of so many features."""
    return OF_A_MESSAGE + clients * (OF_A_REPORT + 3 * 8 * features)


def without_content(message: Message) -> Message:
    """To whom and about what: old models must not stay in memory for as long as somebody owes a reply."""
    about = message.metadata
    return Message(RecordDict(), about.dst_node_id, about.message_type, ttl=about.ttl, group_id=about.group_id)
