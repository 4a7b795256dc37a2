"""A SuperNode's registered name binds its key to the number of its client."""

from collections.abc import Iterable
from typing import cast

from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid

from fedapp.flower.registered import bound_clients, registered_name, site_of


def test_flower_s_nodes_have_a_name() -> None:
    assert "name" in NodeInfo.DESCRIPTOR.fields_by_name, "bound_clients finds no client"


def test_the_name_holds_site_and_client() -> None:
    assert site_of(registered_name("site-A", 3)) == site_of(registered_name("site-A", None)) == "site-A"

    class Nodes:
        def get_nodes(self) -> Iterable[NodeInfo]:
            names = (registered_name("site-A", 3), registered_name("site-B", None), "", "x (client -1)")
            return [NodeInfo(node_id=number, name=name) for number, name in enumerate(names)]

    assert bound_clients(cast(Grid, Nodes())) == {0: 3}
