r"""All randomness of lmeraser: coins that are hashes of names.

A coin is a function of (seed, purpose, names) and of nothing else: no generator carries state from one draw to
the next, so removing a record changes no other record's coins. This is the property that makes
``unlearn(train(D), U) = train(D \ U)`` possible; a global generator or a worker seed anywhere in F would break
it. Knows nothing about tensors' devices, files or the clock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Name = str | int


def _encode(seed: int, purpose: str, names: tuple[Name, ...]) -> bytes:
    """Length-prefixed parts, so that no two different lists of names share an encoding."""
    parts = [str(seed), purpose, *(str(name) for name in names)]
    raw = [part.encode("utf-8", "surrogatepass") for part in parts]
    return b"".join(b"%d:%s" % (len(part), part) for part in raw)


def coin(seed: int, purpose: str, *names: Name) -> bytes:
    """32 pseudo-random bytes that belong to these names."""
    return hashlib.sha256(_encode(seed, purpose, names)).digest()


def order(seed: int, purpose: str, ids: Iterable[str], *names: Name) -> list[str]:
    """``ids`` in pseudo-random order. The relative order of two ids does not depend on the others."""
    return sorted(ids, key=lambda record_id: (coin(seed, purpose, *names, record_id), record_id))


def below(seed: int, purpose: str, bounds: tuple[int, ...], *names: Name) -> tuple[int, ...]:
    """One integer in ``[0, bound)`` for each bound, at most eight of them.

    Each uses 32 bits of one coin; for bounds below 2**16 the modulo bias is below 2**-16.
    """
    words = np.frombuffer(coin(seed, purpose, *names), dtype="<u4")
    return tuple(int(word) % bound for word, bound in zip(words, bounds, strict=False))


def uniform(seed: int, purpose: str, count: int) -> NDArray[np.float64]:
    """``count`` numbers between 0 and 1, neither included, float64 [count]."""
    raw = hashlib.shake_256(_encode(seed, purpose, ())).digest(8 * count)
    bits = np.frombuffer(raw, dtype="<u8") >> np.uint64(11)
    numbers: NDArray[np.float64] = (bits.astype(np.float64) + 0.5) * 2.0**-53
    return numbers


def normal(seed: int, purpose: str, count: int) -> NDArray[np.float32]:
    """``count`` standard normal numbers, float32 [count], by inversion of hashed uniforms."""
    from scipy.special import ndtri

    return np.asarray(ndtri(uniform(seed, purpose, count)), dtype=np.float32)
