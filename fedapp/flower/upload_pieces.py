"""Uploads in pieces that a slow link carries in time.

Flower's SuperNode sends an update in pieces of up to 5 MiB, two at once, and gives each call 30 s to leave by TLS. What
takes longer is sent again from its beginning, and never arrives: at 1 Mbit/s any array of more than 3.7 MB. With pieces
of this size an uplink needs 140 kbit/s.

Needs, of flwr 1.42, the environment variables in `PIECES`; otherwise Flower's own sizes apply.
"""

from collections.abc import Mapping

__all__ = ["PIECES"]

PIECES: Mapping[str, str] = {
    "FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE": str(1 << 18),  # bytes; read where a reply is packed, by the ClientApp
    "FLWR_PRIVATE_MAX_CONCURRENT_OBJ_PUSHES": "2",
}
