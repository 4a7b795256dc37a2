"""Values as overrides write them, whatever characters they have."""

import re
import shlex
from collections.abc import Mapping, Sequence

__all__ = ["Written", "decoded_key", "decoded_keys", "override", "pasted", "quoted"]

PLAIN = re.compile(r"[A-Za-z_][\w-]*", re.ASCII)
WORDS = {"null", "true", "false", "nan", "inf", "none"}  # that are no text in Hydra's grammar, or none in YAML's
ENCODED = re.compile(r"\$([0-9a-f]{2,6})\$")


class Written(str):
    """A value that is written as it is to be read."""


def quoted(text: object) -> str:
    """A text, such as a path, as Hydra's grammar takes it."""
    # Backslashes are literal there, except before a quote, the closing one included.
    return "'" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), str(text)) + "'"


def override(key: str, value: object) -> str:
    """`key=value` in Hydra's grammar, for text, numbers, true, false and null, and lists and mappings of them."""
    return f"{key}={_written(value)}"


def pasted(key: str, value: object) -> str:
    """The same, as it is pasted into a shell."""
    return shlex.quote(override(key, value))


def _written(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_key(key)}:{_written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(map(_written, value)) + "]"
    text = str(value)
    if isinstance(value, Written) or (PLAIN.fullmatch(text) and text.casefold() not in WORDS):
        return text
    # In double quotes where that is the same, since whatever is pasted into a shell goes in single ones.
    return f'"{text}"' if '"' not in text and "\\" not in text else quoted(text)


def _key(key: object) -> str:
    """Keys of mappings can neither be quoted there nor hold other than ASCII letters; the rest goes as $hex$."""
    text = str(key)
    if PLAIN.fullmatch(text) and text.casefold() not in WORDS:
        return text
    kept = r"[A-Za-z_]" if text.casefold() not in WORDS else "_"
    return "".join(letter if re.match(kept, letter) else f"${ord(letter):02x}$" for letter in text) or "$$"


def decoded_keys(value: object) -> object:
    """A config's value with the keys that `override` encoded as they were."""
    if isinstance(value, dict):
        return {decoded_key(key): decoded_keys(item) for key, item in value.items()}
    return [decoded_keys(item) for item in value] if isinstance(value, list) else value


def decoded_key(key: object) -> object:
    """A mapping's key that `override` encoded, as it was."""
    if not isinstance(key, str) or "$" not in key:
        return key
    return "" if key == "$$" else ENCODED.sub(lambda found: chr(int(found[1], 16)), key)
