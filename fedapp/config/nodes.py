"""Objects from config nodes: a `_target_` that names a class or a function, and its arguments.

Hydra's own `instantiate` would take half of a small run's time for its containers and merges, look for code in what is
deeper in a node, and read text such as "${x}" as an interpolation.
"""

import copy
import difflib
import functools
import inspect
import json
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from hydra.utils import get_object
from pydantic import ConfigDict, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError

from fedapp.common.errors import ConfigError, FedappError

__all__ = ["Node", "instantiate", "option"]

Node = dict[str, Any]
T = TypeVar("T")
RANGES = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("greater than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}


def instantiate(key: str, node: Node, *args: Any, partial: bool = False, **kwargs: Any) -> Any:
    """The object that `node` describes. Raises ConfigError, naming `key` and the argument, if it cannot be made."""
    target = str(node.get("_target_", ""))
    try:
        made = get_object(target)
    except Exception as error:
        raise ConfigError(f"{key}._target_={target}: cannot be imported: {error}") from None
    _check_arguments(key, node, made)
    given = {name: copy.deepcopy(value) for name, value in node.items() if name != "_target_"} | kwargs
    try:
        return functools.partial(made, *args, **given) if partial else made(*args, **given)
    except FedappError:
        raise
    except Exception as error:
        raise ConfigError(f"{key}: {target} refused its arguments: {error}") from None


def option(key: str, node: Node, kind: type[T], **kwargs: Any) -> T:
    """The object that `node` describes. Raises ConfigError, as `instantiate`, and where it is no `kind`."""
    made = instantiate(key, node, **kwargs)
    if not isinstance(made, kind):
        raise ConfigError(f"{key}._target_={node['_target_']}: is no {kind.__module__}.{kind.__qualname__}")
    return made


def _check_arguments(key: str, node: Node, made: Callable[..., Any]) -> None:
    """Refuse unknown arguments, and values that do not fit the type hints of `made`."""
    parameters = inspect.signature(made).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    # With their extras: Annotated[float, Field(gt=0)] gives a range.
    hints = get_type_hints(made.__init__ if inspect.isclass(made) else made, include_extras=True)
    for name, value in node.items():
        if name == "_target_":
            continue
        if name.startswith("_"):
            raise ConfigError(
                f"{key}.{name}: no such argument of {node['_target_']}; of Hydra's own keys only _target_ is"
            )
        if name not in parameters and not takes_any:
            near = difflib.get_close_matches(name, parameters, n=1)
            takes = f"; it takes {', '.join(parameters)}" if parameters else "; it takes none"
            hint = f"; did you mean {near[0]}?" if near else takes
            raise ConfigError(f"{key}.{name}: no such argument of {node['_target_']}{hint}")
        if isinstance(value, dict) and "_target_" in value:
            raise ConfigError(f"{key}.{name}._target_={value['_target_']}: an argument is made by no code of its own")
        if name not in hints:
            continue
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(hints[name], config=ConfigDict(arbitrary_types_allowed=True))
        except (PydanticSchemaGenerationError, PydanticUserError):
            continue  # a hint that pydantic cannot read (some of torch's) is left to the target itself
        try:
            adapter.validate_json(json.dumps(value), strict=True)  # as JSON: YAML has lists, and no tuples
        except ValidationError as error:
            shown = "null" if value is None else repr(value)
            raise ConfigError(f"{key}.{name}={shown}: {_wanted(hints[name], error)}") from None


def _wanted(hint: Any, error: ValidationError) -> str:
    if get_origin(hint) is Literal:
        return f"must be one of {', '.join(str(option) for option in get_args(hint))}"
    for found in error.errors():
        if found["type"] in RANGES:
            words, limit = RANGES[found["type"]]
            return f"must be {words} {found['ctx'][limit]:g}"
        if found["type"] == "literal_error":
            return f"must be one of {str(found['ctx']['expected']).replace(' or ', ', ')}"
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    name = getattr(hint, "__name__", str(hint)) if inspect.isclass(hint) else hint
    return f"expected {name} ({error.errors()[0]['msg']})"
