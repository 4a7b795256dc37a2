"""The kind of task that the data asks for."""

from fedapp.common.errors import ConfigError
from fedapp.config import instantiate, options_of
from fedapp.data.source import Schema
from fedapp.learning.task import Task

__all__ = ["by_schema"]

GROUP = "task/kind"


def by_schema(schema: Schema) -> Task:
    """The option of conf/task/kind/ that the schema names. Raises ConfigError where there is none of that name."""
    known = options_of(GROUP)
    if schema.kind not in known:
        raise ConfigError(
            f"task.kind=auto: the data is for tasks of the kind {schema.kind}; known: {', '.join(known)}. Add"
            f" conf/task/kind/{schema.kind}.yaml, or choose one by task/kind=..."
        )
    made = instantiate(f"task.kind ({schema.kind})", known[schema.kind], partial=True)(schema)
    assert isinstance(made, Task)
    return made
