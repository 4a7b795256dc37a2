"""Federated averaging in which the server opens the sum of a cohort's updates, and sees no single one.

Four stages a round, each a message to every SuperNode with clients that are still in it: keys, shares, masked vectors,
unmasking. Who drops out at a stage is rejected with it; the sum of those who remain is opened where enough of them are
left, and otherwise the round changes nothing and says why.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from logging import INFO, WARNING
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from fedapp.errors import FederationError
from fedapp.federation.exchange import Late
from fedapp.federation.strategy import Ask, State, WeightedFedAvg
from fedapp.fingerprint import state_sha256
from fedapp.secure.figures import decode
from fedapp.secure.quantise import unpack
from fedapp.secure.refusal import Refused
from fedapp.secure.server import Collector, Opened
from fedapp.secure.settings import Settings
from fedapp.wire.instruction import Instruction
from fedapp.wire.records import state_to_arrays, text
from fedapp.wire.reply import ClientReport
from fedapp.wire.secure import (
    Header,
    content_bytes,
    pack_masked,
    pack_question,
    pack_view,
    unpack_answers,
    unpack_header,
    unpack_masked_reply,
    unpack_revealed,
    unpack_shared,
)

__all__ = ["SecureFedAvg", "Timeouts"]

Take = Callable[[Header, RecordDict], None]


@dataclass(frozen=True)
class Timeouts:
    """Seconds to wait for the replies of each stage; the masked vectors are the one in which clients train."""

    keys: float
    shares: float
    masked: float
    unmask: float


class SecureFedAvg(WeightedFedAvg):
    """`figures`: by name, the largest value of each figure that goes along with the updates."""

    def __init__(
        self, *arguments: Any, settings: Settings, timeouts: Timeouts, figures: Mapping[str, float], **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.settings, self.timeouts, self.figures = settings, timeouts, dict(figures)

    def train(
        self,
        server_round: int,
        arrays: ArrayRecord,
        config: ConfigRecord,
        ask: Ask,
        grid: Grid,
        late: Iterable[Late] = (),
    ) -> ArrayRecord | None:
        """One round; None where nothing could be opened."""
        self._begin(server_round, arrays)
        self.outcome.add_late(late)
        template = {key: value for key, value in self._state.items() if value.is_floating_point()}
        length = sum(value.numel() for value in template.values())
        collector = Collector(
            self.settings,
            run=str(config["run"]),
            server_round=server_round,
            model=state_sha256(self._state),
            weights=self.outcome.weights,
            length=length + 2 * len(self.figures),
            minimum=self.min_clients,
        )
        mean: State | None = None
        try:
            opened = self._stages(_Stages(self, collector, ask), arrays)
            mean = self._mean(opened, collector, template)
        except Refused as refused:
            self._nothing(collector, str(refused))
        self._close(self.outcome)
        if mean is None:
            return None
        self._state = self.server_optimizer.step(self._state, mean, self.server_lr(server_round))
        self.outcome.changed = True
        return state_to_arrays(self._state)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        raise FederationError("secure aggregation takes four messages a round: call `train`, as fedapp's own loop does")

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        raise FederationError("secure aggregation takes four messages a round: call `train`, as fedapp's own loop does")

    def _stages(self, stages: "_Stages", arrays: ArrayRecord) -> Opened:
        stages.keys()
        stages.shares()
        stages.masked(arrays)
        return stages.unmask()

    def _mean(self, opened: Opened, collector: Collector, template: State) -> State:
        """The weighted mean update over the survivors, as float64. Raises Refused for one that is too large."""
        members = [collector.view.by_client[client] for client in opened.survivors]
        weight = math.fsum(member.weight for member in members) * len(collector.view.members)
        if weight <= 0:
            raise Refused("too few", "those who remain have no weight")
        for share in opened.shares_refused:
            log(WARNING, "round %d: %s", self.outcome.server_round, share)
        mean = torch.from_numpy(opened.total.astype(np.float64) * (self.settings.step / weight))
        found, start = {}, 0
        for key, value in template.items():
            found[key] = mean[start : start + value.numel()].reshape(value.shape)
            start += value.numel()
        self._screen(found, len(members), start)
        self.outcome.summed = decode(mean[start:].numpy(), self.figures)
        return found

    def _screen(self, mean: State, cohort: int, length: int) -> None:
        """Clients screen their own updates; the mean of such updates is no larger than the largest may be, but for
        rounding, which adds less than one unit a value and client."""
        if self.max_update_norm is None:
            return
        norm = math.sqrt(math.fsum(float(value.square().sum()) for value in mean.values()))
        slack = self.settings.step * math.sqrt(length) * cohort
        if norm > self.max_update_norm + slack:
            raise Refused("forged", f"the mean update's norm {norm:.4g} is above {self.max_update_norm:g}")

    def _nothing(self, collector: Collector, why: str) -> None:
        """Nothing was opened: those who did nothing wrong are not in any mean."""
        log(WARNING, "round %d changes nothing: %s", self.outcome.server_round, why)
        for client in self.outcome.weights:
            if client in collector.heard and client not in self.outcome.reports:
                self.outcome.reports[client] = ClientReport(client)
            if client in self.outcome.reports and self.outcome.reports[client].rejected is None:
                self.outcome.unused.setdefault(client, f"nothing was opened: {why}")


class _Stages:
    """The messages of one round. Whoever does not answer a stage, or badly, is rejected and not asked again."""

    def __init__(self, strategy: SecureFedAvg, collector: Collector, ask: Ask) -> None:
        self._strategy, self._collector, self._ask = strategy, collector, ask
        self._outcome = strategy.outcome
        self._run = collector.run

    def keys(self) -> None:
        wanted = self._strategy.cohort_size
        asked = set(self._outcome.weights)

        def add(client: int, record: ConfigRecord) -> None:
            self._collector.add_keys(client, *_keys(record))

        def enough() -> bool:
            return len(asked) > wanted <= len(self._collector.heard)

        self._stage("keys", asked, pack_question, self._each(add), self._strategy.timeouts.keys, enough)
        if enough():  # more were asked than are needed
            surplus = asked - self._collector.heard - self._outcome.reports.keys()
            self._outcome.unused.update(dict.fromkeys(surplus, "surplus: the round had its replies"))
        self._collector.close_keys()

    def shares(self) -> None:
        view = self._collector.view

        def question(header: Header) -> RecordDict:
            content = pack_question(header)
            content["view"] = pack_view(view)
            return content

        def add(client: int, record: ConfigRecord) -> None:
            self._collector.add_shares(client, unpack_shared(record))

        self._stage("shares", view.by_client, question, self._each(add), self._strategy.timeouts.shares)
        present = self._collector.close_shares()
        for client in view.by_client:
            if client not in present and client not in self._outcome.reports:
                self._outcome.reject(client, "too few of those who hold its shares are left")

    def masked(self, arrays: ArrayRecord) -> None:
        strategy, collector = self._strategy, self._collector
        weights = collector.view.by_client

        def question(header: Header) -> RecordDict:
            instruction = Instruction(
                header.server_round,
                header.clients,
                tuple(weights[client].weight for client in header.clients),
                lr_factor=strategy.client_lr(header.server_round),
                run=header.run,
            )
            sealed = {client: collector.sealed_for(client) for client in header.clients}
            return pack_masked(header, instruction, arrays, collector.present, sealed)

        self._stage("masked", collector.present, question, self._take_masked, strategy.timeouts.masked)
        collector.close_masked()

    def _take_masked(self, header: Header, content: RecordDict) -> None:
        reply, packed = unpack_masked_reply(content)
        if tuple(sorted(report.client for report in reply.reports)) != header.clients:
            raise ValueError("it is not about the clients that were asked")
        good = [report.client for report in reply.reports if report.rejected is None and not report.declined]
        if good:
            if packed is None:
                raise ValueError("it has no masked vector")
            vector = unpack(packed.numpy(), self._strategy.settings, self._collector.length)
            self._collector.add_masked(good, vector)
        for report in reply.reports:
            # What a single client says of its training is not asked for, and not kept.
            kept = ClientReport(report.client, report.rejected, report.declined, privacy=report.privacy)
            self._outcome.reports[report.client] = kept
            if report.declined:
                self._outcome.unused[report.client] = "declined: its privacy budget is spent"

    def unmask(self) -> Opened:
        collector, silent = self._collector, set(self._collector.survivors)

        def question(header: Header) -> RecordDict:
            return pack_question(header, survivors=list(collector.survivors), dropped=list(collector.dropped))

        def take(header: Header, content: RecordDict) -> None:
            answers, refused = unpack_answers(content, header.clients)
            for client, why in refused.items():
                log(WARNING, "round %d: client %d reveals nothing: %s", header.server_round, client, why)
            for client, record in answers.items():
                try:
                    collector.add_revealed(client, unpack_revealed(record))
                    silent.discard(client)
                except (Refused, ValueError, KeyError, TypeError) as error:
                    log(WARNING, "round %d: client %d: %s", header.server_round, client, text(error))

        self._stage("unmask", collector.survivors, question, take, self._strategy.timeouts.unmask, blame=False)
        if silent:
            log(INFO, "round %d: clients %s are in the sum, and gone", self._outcome.server_round, sorted(silent)[:20])
        return collector.open()

    # --- messages -----------------------------------------------------------------------------------------------

    def _stage(
        self,
        stage: str,
        clients: Iterable[int],
        question: Callable[[Header], RecordDict],
        take: Take,
        timeout: float,
        enough: Callable[[], bool] = lambda: False,
        *,
        blame: bool = True,
    ) -> None:
        """Ask every SuperNode about its clients, and `take` the answers as they come. With `blame`, clients without a
        good one are rejected: their update is not in the sum."""
        by_node: dict[int, list[int]] = defaultdict(list)
        for client in sorted(clients):
            by_node[self._strategy.roster.nodes[client]].append(client)
        digest = self._collector.view.digest if stage != "keys" else b""
        headers = {
            node: Header(stage, self._run, self._outcome.server_round, tuple(found), digest)
            for node, found in by_node.items()
        }
        log(INFO, "round %d: %s of %d clients", self._outcome.server_round, stage, sum(map(len, by_node.values())))
        answered: set[int] = set()
        messages = [self._message(node, header, question(header)) for node, header in headers.items()]
        for reply in self._ask(messages, timeout):
            self._take(reply, headers, answered, take, blame)
            if enough():
                return
        for node in headers.keys() - answered:
            self._reject(headers[node], f"no reply in time ({stage})", blame)

    def _message(self, node: int, header: Header, content: RecordDict) -> Message:
        self._outcome.bytes_down += content_bytes(content)
        kind = f"train.{header.stage}"
        return Message(content, node, kind, ttl=self._strategy.message_ttl, group_id=str(header.server_round))

    def _take(self, reply: Message, headers: Mapping[int, Header], answered: set[int], take: Take, blame: bool) -> None:
        """One reply; whatever is wrong with it costs no more than its sender's part."""
        node, outcome = reply.metadata.src_node_id, self._outcome
        if node not in headers or node in answered:
            outcome.strays.append(f"SuperNode {node} {'answered twice' if node in answered else 'was not asked'}")
            return
        answered.add(node)
        header = headers[node]
        try:
            if reply.has_error():
                raise ValueError(f"error {reply.error.code}: {reply.error.reason}")
            outcome.bytes_up += content_bytes(reply.content)
            unpack_header(reply.content).expect(header)
            take(header, reply.content)
        except Exception as error:  # whatever it is, it is the sender's
            self._reject(header, f"bad reply ({header.stage}): {text(error) or type(error).__name__}", blame)

    def _each(self, add: Callable[[int, ConfigRecord], None]) -> Take:
        """Take each client's answer by `add`, or reject that client."""

        def take(header: Header, content: RecordDict) -> None:
            answers, refused = unpack_answers(content, header.clients)
            for client, why in refused.items():
                self._outcome.reject(client, f"{header.stage}: {why}")
            for client, record in answers.items():
                try:
                    add(client, record)
                except (Refused, ValueError, KeyError, TypeError) as error:
                    self._outcome.reject(client, f"{header.stage}: bad reply: {text(error) or type(error).__name__}")

        return take

    def _reject(self, header: Header, why: str, blame: bool) -> None:
        for client in header.clients:
            if not blame:
                log(WARNING, "round %d: client %d reveals nothing: %s", header.server_round, client, why)
            else:
                self._outcome.reject(client, why)


def _keys(record: ConfigRecord) -> tuple[bytes, bytes, bytes]:
    found = tuple(record[name] for name in ("cipher-key", "mask-key", "signature"))
    if not all(isinstance(item, bytes) for item in found):
        raise TypeError("keys are bytes")
    return found  # type: ignore[return-value]
