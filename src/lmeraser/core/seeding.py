r"""Hashed randomness: every random choice of lmeraser is a hash of names, called a *coin*.

A coin is a function of (seed, purpose, names) and of nothing else. No generator carries state from one draw to the
next, so removing a record changes no other record's coins. This property makes ``unlearn(train(D), U) =
train(D \ U)`` possible; a global generator or a per-worker seed anywhere in the training function would break it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Name = str | int


def _encode(seed: int, purpose: str, names: tuple[Name, ...]) -> bytes:
    """Concatenate length-prefixed parts, so that no two different lists of names have the same encoding."""
    parts = [str(seed), purpose, *(str(name) for name in names)]
    raw = [part.encode("utf-8", "surrogatepass") for part in parts]
    return b"".join(b"%d:%s" % (len(part), part) for part in raw)


def coin(seed: int, purpose: str, *names: Name) -> bytes:
    """32 pseudo-random bytes, determined by these names.

    Args:
        seed: of the settings.
        purpose: what is drawn; keeps different uses of the same names independent. Part of the stored format.
        names: of what is drawn for, such as a record's id and the number of a pass.
    """
    return hashlib.sha256(_encode(seed, purpose, names)).digest()


def order(seed: int, purpose: str, ids: Iterable[str], *names: Name) -> list[str]:
    """Shuffle ``ids`` by their coins; the relative order of two ids does not depend on the others."""
    return sorted(ids, key=lambda record_id: (coin(seed, purpose, *names, record_id), record_id))


def below(seed: int, purpose: str, bounds: tuple[int, ...], *names: Name) -> tuple[int, ...]:
    """Draw an integer in ``[0, bound)`` for each of at most eight bounds.

    Each integer uses 32 bits of one coin; for bounds below 2**16 the modulo bias is below 2**-16.
    """
    words = np.frombuffer(coin(seed, purpose, *names), dtype="<u4")
    return tuple(int(word) % bound for word, bound in zip(words, bounds, strict=False))


def uniform(seed: int, purpose: str, count: int) -> NDArray[np.float64]:
    """Draw ``count`` numbers uniformly from the open interval (0, 1), float64 [count]."""
    raw = hashlib.shake_256(_encode(seed, purpose, ())).digest(8 * count)
    bits = np.frombuffer(raw, dtype="<u8") >> np.uint64(11)
    numbers: NDArray[np.float64] = (bits.astype(np.float64) + 0.5) * 2.0**-53
    return numbers


def normal(seed: int, purpose: str, count: int) -> NDArray[np.float32]:
    """Draw ``count`` standard normal numbers, float32 [count], by inversion of `uniform`."""
    from scipy.special import ndtri

    return np.asarray(ndtri(uniform(seed, purpose, count)), dtype=np.float32)
