"""A process that reads what others have encrypted: should SEAL crash on it, the process ends, and not the run.

As a program (`python -m fedapp.aggregation.bfv.seal_worker`) it answers requests on its standard input. Each is a list
of bytes: what to do, and with what. So is each answer: `ok` and results, or `bad` and why.
"""

import os
import resource
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

__all__ = ["read_parts", "write_parts"]

MOST_BYTES = 1 << 33  # of one part
MOST_PARTS = 1 << 20
ADDRESS_SPACE = 1 << 36  # bytes: the process ends before it takes more


def write_parts(stream: BinaryIO, parts: Sequence[bytes | memoryview]) -> None:
    stream.write(struct.pack(">I", len(parts)))
    for part in parts:
        stream.write(struct.pack(">Q", len(part)))
        stream.write(part)
    stream.flush()


def read_parts(stream: BinaryIO) -> list[bytes]:
    """Raises EOFError where the other side has gone."""
    (count,) = struct.unpack(">I", _exactly(stream, 4))
    if count > MOST_PARTS:
        raise EOFError
    found = []
    for _ in range(count):
        (size,) = struct.unpack(">Q", _exactly(stream, 8))
        if size > MOST_BYTES:
            raise EOFError
        found.append(_exactly(stream, size))
    return found


def _exactly(stream: BinaryIO, size: int) -> bytes:
    found = stream.read(size)
    if len(found) != size:
        raise EOFError
    return found


class Ciphertexts:
    """Those of one sum. `most`: bytes of a ciphertext at most; `slots`: values in each, of `count`."""

    def __init__(self, context: bytes, degree: int, modulus: int, primes: Sequence[int], count: int, most: int) -> None:
        import tenseal

        self._tenseal = tenseal
        self.context = open_context(context, degree, modulus, primes)
        self._degree, self._count, self._most = degree, count, most
        self._level = self.context.seal_context().data.first_parms_id()
        self._total: list[Any] = []

    def _loaded(self, ciphertexts: Sequence[bytes]) -> list[Any]:
        """Raises ValueError for what is none of this context, or hides nothing."""
        if len(ciphertexts) != self._count:
            raise ValueError(f"{len(ciphertexts)} ciphertexts, {self._count} are needed")
        found = []
        for number, content in enumerate(ciphertexts):
            if not 0 < len(content) <= self._most:
                raise ValueError(f"ciphertext {number} has {len(content)} bytes, and may have {self._most}")
            try:
                vector = self._tenseal.bfv_vector_from(self.context, content)
                (inner,) = vector.ciphertext()
                level = inner.parms_id() == self._level  # others cannot be added to this one, nor hold as much noise
                good = vector.size() == self._degree and inner.size() == 2 and not inner.is_ntt_form() and level
            except Exception as error:  # SEAL's reader has kinds of its own
                raise ValueError(f"ciphertext {number} is malformed, or of other parameters ({error})") from None
            if not good:
                raise ValueError(f"ciphertext {number} has another form than an encryption of {self._degree} values")
            if inner.is_transparent():
                raise ValueError(f"ciphertext {number} is transparent: it can be read without a key")
            found.append(vector)
        return found

    def add(self, ciphertexts: Sequence[bytes]) -> list[bytes]:
        new = self._loaded(ciphertexts)
        try:
            if not self._total:  # whatever cannot be added must not be what others are added to
                zero = self._tenseal.bfv_vector(self.context, [0] * self._degree)
                for one in new:
                    one.add(zero)
            self._total = [one.add(other) for one, other in zip(self._total, new, strict=True)] if self._total else new
        except Exception as error:  # as where the sum would be transparent
            raise ValueError(f"cannot be added: {error}") from None
        return []

    def total(self, _: Sequence[bytes]) -> list[bytes]:
        return [vector.serialize() for vector in self._total]

    def decrypt(self, ciphertexts: Sequence[bytes]) -> list[bytes]:
        import numpy as np

        return [np.array(v.decrypt(), np.int64).tobytes() for v in self._loaded(ciphertexts)]

    def budget(self, ciphertexts: Sequence[bytes]) -> list[bytes]:
        """Bits of noise that are left, of each."""
        import tenseal.sealapi

        own = self.context
        decryptor = tenseal.sealapi.Decryptor(own.seal_context().data, own.secret_key().data)
        loaded = self._loaded(ciphertexts)
        return [struct.pack(">i", decryptor.invariant_noise_budget(v.ciphertext()[0])) for v in loaded]


def open_context(content: bytes, degree: int, modulus: int, primes: Sequence[int]) -> Any:
    """Raises ValueError for a context of other parameters: those of the table are safe, others may not be."""
    import tenseal
    import tenseal.sealapi  # without it parameters cannot be read

    try:
        context = tenseal.context_from(content)
        found = context.seal_context().data.key_context_data().parms()
        said = (found.poly_modulus_degree(), found.plain_modulus().value())
        bits = [prime.value().bit_length() for prime in found.coeff_modulus()]
    except Exception as error:  # SEAL's reader has kinds of its own
        raise ValueError(f"no context of BFV: {error}") from None
    if said != (degree, modulus) or bits != list(primes):
        raise ValueError(f"a context of degree {said[0]}, modulus {said[1]} and primes of {bits} bits, not the table's")
    return context


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    ciphertexts: Ciphertexts | None = None
    while True:
        what, *parts = read_parts(requests)
        try:
            if what == b"context":
                context, numbers = parts
                degree, modulus, count, most, *primes = struct.unpack(f">{len(numbers) // 8}q", numbers)
                ciphertexts, found = Ciphertexts(context, degree, modulus, primes, count, most), []
            else:
                if ciphertexts is None:
                    raise ValueError("no context")
                known: dict[bytes, Callable[[Sequence[bytes]], list[bytes]]] = {
                    b"add": ciphertexts.add,
                    b"total": ciphertexts.total,
                    b"decrypt": ciphertexts.decrypt,
                    b"budget": ciphertexts.budget,
                }
                found = known[what](parts)
        except Exception as error:
            write_parts(answers, [b"bad", str(error)[:500].encode()])
        else:
            write_parts(answers, [b"ok", *found])


if __name__ == "__main__":
    # SEAL prints to standard output what it has to say; that goes elsewhere.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        serve(sys.stdin.buffer, answers)
    except (EOFError, BrokenPipeError):
        os._exit(0)
