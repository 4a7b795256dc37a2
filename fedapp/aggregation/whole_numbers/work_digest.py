"""One number for all that decides what an update is, apart from the model and the client."""

import hashlib
import json

from fedapp.wire.instruction import Instruction

__all__ = ["work_digest"]


def work_digest(instruction: Instruction, config_sha256: str) -> str:
    """SHA-256 of what a client is asked to do in a round, and of the resolved config by which it does it."""
    asked = [instruction.lr_factor, instruction.each, instruction.deliver]
    plan = {name: dict(params) for name, params in instruction.plan.items()}
    text = json.dumps([asked, plan, config_sha256], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
