"""The name under which a SuperNode's key is registered, which binds it to the number of its client.

Needs `NodeInfo.name` in what `Grid.get_nodes` gives (flwr 1.41, 1.42): the SuperLink looks it up by the key with which
a SuperNode has authenticated, so no SuperNode can change it. Without it no client is bound, and only clients that two
SuperNodes claim are refused.
"""

import re

from flwr.serverapp import Grid

__all__ = ["bound_clients", "client_in_name", "registered_name", "site_of"]

NAME = re.compile(r"(?P<site>.*) \(client (?P<client>\d{1,18})\)")


def registered_name(site: str, client: int | None) -> str:
    """For a site whose key is bound to the number of its client, or to none."""
    return site if client is None else f"{site} (client {client})"


def site_of(name: str) -> str:
    found = NAME.fullmatch(name)
    return found["site"] if found else name


def client_in_name(name: str) -> int | None:
    found = NAME.fullmatch(name)
    return int(found["client"]) if found else None


def bound_clients(grid: Grid) -> dict[int, int]:
    """By SuperNode, the only client that it may be; without those whose key is bound to none, as in simulations."""
    found = {node.node_id: NAME.fullmatch(getattr(node, "name", "")) for node in grid.get_nodes()}
    return {number: int(match["client"]) for number, match in found.items() if match}
