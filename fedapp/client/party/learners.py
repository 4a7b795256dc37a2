"""What a party trains, from what it knows in a session."""

from fedapp.client.party.party_run import PartyRun
from fedapp.client.party.session_member import SessionMember
from fedapp.vertical.parts import Learner, build_part

__all__ = ["build_learner"]


def build_learner(run: PartyRun, member: SessionMember) -> Learner:
    """A party's part at its beginning. At the label party the targets to train on are drawn, unless they have been.
    Raises FedappError where its model does not fit."""
    table, rows = run.table(member.me.name), member.rows["train"]
    if member.me.labels and "targets" not in member.rows:
        assert table.targets is not None
        classes = len(run.options.task.schema.classes)
        drawn = run.options.label_privacy.training_targets(table.targets[rows], classes)
        member.rows = {**member.rows, "targets": drawn}
    return build_part(run.config, run.options, table, rows, member.rows.get("targets"))
