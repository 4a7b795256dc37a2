"""A model that the server passes on and cannot read: sealed by the helper that made it, for the clients.

It is two tensors of bytes: the sealed model, and in JSON what must be known of it: which run, config and version, made
in which round from which model, its SHA-256, and by client the key of the run, sealed for that client's device. The
helper's device signs all of it. A client takes no version older than one that it has seen; a device notes that on its
disk.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from flwr.app import ConfigRecord, RecordDict
from safetensors.torch import load
from torch import Tensor

from fedapp.aggregation.whole_numbers.noted_file import NotedFile
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.common.device_keys import Identity, Peers, is_signed, seal_for, signer
from fedapp.common.sealed_boxes import Part, decrypt, derived, encrypt
from fedapp.common.state_digest import State, state_sha256, trained_sha256
from fedapp.common.tensor_file import tensor_file
from fedapp.wire.instruction import Instruction
from fedapp.wire.records import count, text, whole

__all__ = ["SEEN_FILE", "About", "ModelOpener", "about_of", "is_sealed", "open_sealed_model", "sealed_model"]

SEALED, ABOUT = "sealed-model", "sealed-about"
PURPOSE, RUN_KEY = "sealed model", "helper run key"
SEEN = "sealed-seen"  # of a SuperNode's state: the run, and the newest version that it has seen
SEEN_FILE = "sealed.jsonl"  # in a device's keep-path, the same
SALT_BYTES = 16
SAID = ("run", "config", "version", "model", "trained", "previous", "length", "salt")


@dataclass(frozen=True)
class About:
    """`version` counts the models of a run from 1. `server_round`: in which it was made. `model`: SHA-256 of it;
    `trained`, `previous`: of what is trained of it, and of the one that it was made from. `length`: how many values
    that is. `keys`: by client, in hexadecimal, the run's key for its device; in a simulation the key itself, as -1."""

    run: str
    config: str
    version: int
    server_round: int
    model: str
    trained: str
    previous: str
    length: int
    salt: str
    keys: Mapping[int, str]
    signature: str = ""

    def told(self) -> tuple[Part, ...]:
        """What the model's key is derived for."""
        parts = (self.run, self.config, self.version, self.server_round, self.model, self.trained)
        return *parts, self.previous, self.length, self.salt

    def signed(self, content: bytes) -> tuple[Part, ...]:
        keys = json.dumps(sorted(self.keys.items()))
        return *self.told(), keys, hashlib.sha256(content).digest()


def is_sealed(model: State) -> bool:
    return SEALED in model


def about_of(model: State) -> About:
    """Raises ProtocolError for what is no sealed model."""
    try:
        found = json.loads(_bytes(model[ABOUT]))
        run, config, model_sha256, trained, previous, salt = (
            text(found[name]) for name in ("run", "config", "model", "trained", "previous", "salt")
        )
        return About(
            run=run,
            config=config,
            version=count(found["version"]),
            server_round=whole(found["round"]),
            model=model_sha256,
            trained=trained,
            previous=previous,
            length=count(found["length"]),
            salt=salt,
            keys={int(client): str(key) for client, key in found["keys"].items()},
            signature=str(found["signature"]),
        )
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        raise ProtocolError("truncated", "a sealed model that is malformed") from None


def sealed_model(
    model: State,
    key: bytes,
    *,
    run: str,
    config: str,
    version: int,
    server_round: int,
    previous: str,
    identity: Identity | None,
    peers: Peers | None,
) -> dict[str, Tensor]:
    """`key`: of the run."""
    length = sum(value.numel() for value in model.values() if value.is_floating_point())
    keys = (
        {-1: key.hex()}
        if peers is None
        else {
            client: seal_for(public, key, RUN_KEY, run, config).hex() for client, public in sorted(peers.keys.items())
        }
    )
    about = About(
        run=run,
        config=config,
        version=version,
        server_round=server_round,
        model=state_sha256(model),
        trained=trained_sha256(model),
        previous=previous,
        length=length,
        salt=os.urandom(SALT_BYTES).hex(),
        keys=keys,
    )
    names = json.dumps(list(model)).encode()  # a file of tensors has an order of its own
    content = encrypt(derived(key, "fedapp sealed model 1", *about.told()), names + b"\n" + tensor_file(model))
    signature = identity.sign(PURPOSE, *about.signed(content)).hex() if identity is not None else ""
    said = {
        **{name: getattr(about, name) for name in SAID},
        "round": server_round,
        "keys": {str(client): sealed for client, sealed in keys.items()},
        "signature": signature,
    }
    return {SEALED: _tensor(content), ABOUT: _tensor(json.dumps(said).encode())}


def open_sealed_model(sealed: State, key: bytes) -> dict[str, Tensor]:
    """Raises ProtocolError for what was not sealed under this key."""
    about = about_of(sealed)
    content = decrypt(derived(key, "fedapp sealed model 1", *about.told()), _bytes(sealed[SEALED]))
    if content is None:
        raise ProtocolError("forged", "the model was sealed under another key, or changed")
    names, _, tensors = content.partition(b"\n")
    found = load(tensors)
    model = {name: found[name] for name in json.loads(names)}
    if state_sha256(model) != about.model or trained_sha256(model) != about.trained:
        raise ProtocolError("forged", "the sealed model is another one than it says")
    return model


@dataclass(frozen=True)
class ModelOpener:
    """`identity`: of this device. `pinned`: the helpers that it accepts, the first of which makes the models; None in a
    simulation. `noted`: where it has a folder of its own, which versions it has seen."""

    config_sha256: str
    identity: Identity | None = None
    pinned: Sequence[bytes] | None = None
    noted: NotedFile | None = None

    def opened(self, instruction: Instruction, model: State, state: RecordDict) -> State:
        """The model in clear: the run's first one is, before another was seen. Raises ProtocolError."""
        newest = self._newest(instruction.run, state)
        about = about_of(model) if is_sealed(model) else None
        if (version := about.version if about is not None else 0) < newest:
            raise ProtocolError("replayed", f"version {version} of the model, after version {newest} of this run")
        if about is None:
            return model
        if (about.run, about.config) != (instruction.run, self.config_sha256):
            raise ProtocolError("wrong run", "the sealed model is of another run or config")
        if about.server_round > instruction.server_round:
            raise ProtocolError("wrong round", "the sealed model is of a later round")
        if self.pinned is not None:
            signature = _hex(about.signature)
            if signer(signature) != self.pinned[0] or not is_signed(
                signature, PURPOSE, *about.signed(_bytes(model[SEALED]))
            ):
                raise ProtocolError("forged", "the sealed model is not signed by the helper that this site has pinned")
        found = open_sealed_model(model, self._key(about, instruction))
        if about.version > newest:
            self._note(instruction.run, about.version, state)
        return found

    def _newest(self, run: str, state: RecordDict) -> int:
        """The newest version of a run that was seen; 0 where none was, and a model in clear may be the first."""
        if self.noted is not None:
            with self.noted.opened() as file:
                return max((int(line["version"]) for line in file.of(run)), default=0)
        last = state.config_records.get(SEEN)
        return whole(last["version"]) if last is not None and last["run"] == run else 0

    def _note(self, run: str, version: int, state: RecordDict) -> None:
        if self.noted is None:
            state[SEEN] = ConfigRecord({"run": run, "version": version})
            return
        with self.noted.opened() as file:
            file.append(run, {"version": version})

    def _key(self, about: About, instruction: Instruction) -> bytes:
        if self.identity is None or self.pinned is None:
            return _hex(about.keys.get(-1, ""))
        client = instruction.clients[0] if instruction.clients else -1
        key = self.identity.unseal(_hex(about.keys.get(client, "")), RUN_KEY, about.run, about.config)
        if key is None:
            raise ProtocolError("forged", "the helper has sealed no key of this run for this device (see its peers)")
        return key


def _hex(value: str) -> bytes:
    try:
        return bytes.fromhex(value)
    except ValueError:
        return b""


def _bytes(value: Tensor) -> bytes:
    if value.dtype != torch.uint8:
        raise ProtocolError("truncated", "a sealed model that is no bytes")
    return value.numpy().tobytes()


def _tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def said(about: About) -> Mapping[str, Any]:
    """What the server may show of a model that it cannot read."""
    return {"version": about.version, "model_sha256": about.model}
