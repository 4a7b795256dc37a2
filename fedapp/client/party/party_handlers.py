"""What a SuperNode does with an order, for each party that it hosts."""

import logging
from collections.abc import Callable
from functools import lru_cache

from flwr.app import Context, RecordDict

from fedapp.client.party.learners import build_learner
from fedapp.client.party.matching_stages import align, blind, double_blind, find_matches, hello
from fedapp.client.party.party_run import PartyRun, hosted_parties, open_party_run
from fedapp.client.party.prediction_stages import align_new, embed_new, find_new, predict_new
from fedapp.client.party.session_member import SessionMember, forget, keep, kept, version_of
from fedapp.client.party.training_stages import judge, judge_labelled, keep_result, restore, train, train_labelled
from fedapp.common.code_digest import code_digest
from fedapp.common.errors import FedappError, told
from fedapp.config import compose, split_overrides
from fedapp.vertical.orders import Order, PartyAnswer, pack_answers, unpack_order
from fedapp.vertical.party_error import PartyError

__all__ = ["PARTY_HANDLERS", "has_parties"]

log = logging.getLogger("flwr")

Stage = Callable[[PartyRun, SessionMember, Order], PartyAnswer]
# By stage, what the label party does, and what any other one does; None: it has no part in it.
STAGES: dict[str, tuple[Stage | None, Stage | None]] = {
    "blind": (blind, blind),
    "double": (None, double_blind),
    "match": (find_matches, None),
    "align": (None, align),
    "train": (train_labelled, train),
    "judge": (judge_labelled, judge),
    "restore": (restore, restore),
    "keep": (keep_result, keep_result),
}
# The same where parts that were kept predict new rows.
PREDICTION: dict[str, tuple[Stage | None, Stage | None]] = {
    "blind": (blind, blind),
    "double": (None, double_blind),
    "match": (find_new, None),
    "align": (None, align_new),
    "embed": (None, embed_new),
    "predict": (predict_new, None),
}
# Parties as this process has them. What is in a SuperNode's state counts; it is read where it is newer.
LIVE: dict[str, SessionMember] = {}


def party_query(content: RecordDict, context: Context) -> RecordDict:
    """The preflight: which parties are hosted here, and their keys for a new session."""
    about = {"code": code_digest(), "fault": "", "site": str(context.node_config.get("site-name", ""))}
    answers = []
    try:
        run = open_party_run(context)
        order = unpack_order(content, run.digest)
        for name, client in hosted_parties(context.node_config, context.node_id, run.options.names).items():
            forget(context.state, name)
            try:
                member, answer = hello(run, name, client, order.session)
            except FedappError as error:
                answers.append(_fault(name, error, run.on_device))
                continue
            _remember(context, member)
            answers.append(answer)
    except FedappError as error:
        log.error("this SuperNode takes no part: %s", error)
        about["fault"] = told(error, "data-path" in context.node_config)
    return pack_answers(answers, about)


def party_stage(content: RecordDict, context: Context) -> RecordDict:
    """One stage, for the parties named in the order."""
    run = open_party_run(context)
    order = unpack_order(content, run.digest)
    own = hosted_parties(context.node_config, context.node_id, run.options.names)
    answers = []
    for name in order.payloads:
        try:
            if name not in own:
                raise PartyError("wrong stage", "this SuperNode does not host that party")
            answers.append(_do(run, context, order, name))
        except Exception as error:
            LIVE.pop(_key(context, name), None)  # it may be half changed; the state is as it was
            answers.append(_fault(name, error, run.on_device))
    return pack_answers(answers, {"code": code_digest()})


PARTY_HANDLERS: dict[str, Callable[[RecordDict, Context], RecordDict]] = {"query": party_query, "train": party_stage}


def has_parties(context: Context) -> bool:
    """Whether the run's clients are parties with different columns."""
    return _by_columns(str(context.run_config["overrides"]))


@lru_cache(maxsize=4)
def _by_columns(overrides: str) -> bool:
    try:
        return compose(split_overrides(overrides)).task.by_columns
    except FedappError:  # whoever opens the run says so
        return False


def _do(run: PartyRun, context: Context, order: Order, name: str) -> PartyAnswer:
    member = _member(run, context, name, order.session)
    if order.number <= member.number:
        raise PartyError("repetition", f"number {order.number} after number {member.number}")
    stage = (PREDICTION if run.predicts else STAGES).get(order.stage, (None, None))[0 if member.me.labels else 1]
    if stage is None:
        raise PartyError("wrong stage", f"this party has no part in the stage {order.stage}")
    answer = stage(run, member, order)
    member.number = order.number
    _remember(context, member)
    return answer


def _member(run: PartyRun, context: Context, name: str, session: str) -> SessionMember:
    live = LIVE.get(_key(context, name))
    if live is not None and live.session == session and live.version == version_of(context.state, name):
        return live
    member, state = kept(context.state, name, session)
    if state:
        member.learner = build_learner(run, member)
        member.learner.part.load(state)
    return member


def _remember(context: Context, member: SessionMember) -> None:
    keep(context.state, member)
    LIVE[_key(context, member.me.name)] = member


def _key(context: Context, name: str) -> str:
    return f"{context.run_id}/{context.node_id}/{name}"


def _fault(name: str, error: Exception, on_device: bool) -> PartyAnswer:
    """What the server is told: of an error that nobody foresaw its kind alone, since its text may hold data."""
    log.error("party %s: %s", name, error, exc_info=None if isinstance(error, FedappError) else error)
    if isinstance(error, FedappError):
        return PartyAnswer(name, fault=told(error, on_device))
    return PartyAnswer(name, fault=f"{type(error).__name__} (see the party's log)")
