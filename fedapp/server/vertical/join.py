"""The beginning of a session: which parties are there, and which entities they have in common."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from logging import INFO

from flwr.app import Message, MessageType

from fedapp.common.code_digest import code_digest
from fedapp.common.errors import FederationError
from fedapp.common.logger import log
from fedapp.flower.simulation import is_simulated
from fedapp.server.exchange import Exchange
from fedapp.server.population.preflight import wait_for_supernodes
from fedapp.server.vertical.relay import Relay, new_session
from fedapp.vertical.group import POINT_BYTES
from fedapp.vertical.orders import Order, PartyAnswer, pack_order, unpack_answers
from fedapp.vertical.session import Party, View
from fedapp.vertical.vertical_options import VerticalOptions
from fedapp.wire.records import said_of

LARGEST = 1 << 30  # bytes of a reply, whatever parties say of their sizes

__all__ = ["JoinRules", "Joined", "join", "meet"]


@dataclass(frozen=True)
class JoinRules:
    """`digest`: of the config. `embedding`: values of an embedding; `batch`: entities of a batch."""

    options: VerticalOptions
    digest: str
    embedding: int
    batch: int
    wait_timeout: float
    round_timeout: float


@dataclass(frozen=True)
class Joined:
    """A session whose parties have matched their entities: `train` and `test` how many. `matched`: by party, how many
    of its entities the label party knows; `parameters`: of each part; `data`: what shows that it is the same as
    before."""

    relay: Relay
    train: int
    test: int
    matched: Mapping[str, int]
    parameters: Mapping[str, int]
    data: Mapping[str, str] = field(default_factory=dict)
    warnings: Mapping[str, str] = field(default_factory=dict)


def join(exchange: Exchange, rules: JoinRules) -> Joined:
    """Meet, match, and tell each party its rows. Raises FederationError where a party is not there or cannot."""
    relay, data = meet(exchange, rules)
    view, started = relay.view, time.monotonic()
    others, label_party = view.others, view.label_party
    blinded = relay.ask("blind", rules.options.names, view=view)
    relay.ask("double", others)
    found = relay.ask("match", [label_party])[label_party].figures
    aligned = relay.ask("align", others)
    try:
        matched = {name: int(found[f"matched/{name}"]) for name in others}
        train, test = int(found["train"]), int(found["test"])
        parameters = {name: int(answer.figures["parameters"]) for name, answer in aligned.items()}
        parameters[label_party] = int(found["parameters"])
    except (KeyError, ValueError) as error:
        raise FederationError(f"party {label_party}: an incomplete reply ({said_of(error)})") from None
    log(INFO, "matched %s in %.1f s", matched, time.monotonic() - started)
    return Joined(relay, train, test, matched, parameters, data, _enumerable(blinded))


def _enumerable(blinded: Mapping[str, PartyAnswer]) -> dict[str, str]:
    names = sorted(name for name, answer in blinded.items() if answer.facts.get("enumerable"))
    if not names:
        return {}
    return {
        "enumerable identities": f"the identities of {', '.join(names)} have a form of which anyone can try all:"
        " matching hides nothing about those of other parties from one that does so"
    }


def meet(exchange: Exchange, rules: JoinRules) -> tuple[Relay, dict[str, str]]:
    """A new session with all parties of the config, and what shows that each one's data is as it was. Raises
    FederationError."""
    names, session = rules.options.names, new_session()
    least = 1 if is_simulated(exchange.grid) else len(names)
    nodes = wait_for_supernodes(exchange.grid, least, rules.wait_timeout)
    exchange.expect_reports(len(names), 0)
    parties: dict[str, tuple[int, Party]] = {}
    faults: dict[str, str] = {}
    data: dict[str, str] = {}
    content = pack_order(Order("hello", session, 0, {}))
    timeout = max(rules.round_timeout, rules.wait_timeout)
    for reply in exchange([Message(content, node, MessageType.QUERY, ttl=timeout) for node in nodes], timeout):
        node = reply.metadata.src_node_id
        try:
            if reply.has_error():
                raise ValueError(reply.error.reason)
            found, about = unpack_answers(reply.content)
            if about["code"] != code_digest():
                raise ValueError("it runs other code than this ServerApp: give it the same version")
            if about["fault"]:
                raise ValueError(about["fault"])
        except Exception as error:  # whatever it is, it is the sender's
            faults[f"SuperNode {node}"] = said_of(error)
            continue
        for name, answer in found.items():
            if answer.fault or answer.joined is None:
                faults[f"party {name}"] = answer.fault or "did not introduce itself"
            elif name in parties:
                faults[f"party {name}"] = f"SuperNodes {parties[name][0]} and {node} both say that they are it"
            else:
                parties[name] = node, answer.joined
                data |= {f"party {name}": answer.facts["data"]} if "data" in answer.facts else {}
    missing = [name for name in names if name not in parties]
    if missing or faults:
        reasons = "".join(f"\n  {who}: {why}" for who, why in sorted(faults.items()))
        lacking = f"parties {', '.join(missing)} are not there" if missing else "not all parties can take part"
        raise FederationError(f"{lacking}; vertical learning needs all of {', '.join(names)}{reasons}")
    view = View(session, rules.digest, tuple(parties[name][1] for name in names))
    rows = max(party.rows for party in view.parties)
    values = max(rules.batch, rows) * max(8 * rules.embedding, 2 * POINT_BYTES)
    exchange.payload_bytes = min(2 * len(names) * (values + 4096), LARGEST)
    relay = Relay(exchange, view, {name: parties[name][0] for name in names}, rules.round_timeout)
    return relay, data
