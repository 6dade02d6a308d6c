"""Names of records and subjects: their canonical form, what they may not hold, and names that look alike.

Ids and subjects come from other people's systems, where one name is written in several ways that look the same:
with composed or decomposed accents, with a space behind it, as the float that a number became in a table. What is
named must be what is deleted, so every name has one canonical form, in which names are compared:

1. text is normalised to NFC (Unicode Standard Annex 15), which composes accents and changes nothing visible;
2. white space (Unicode's White_Space) at the beginning and at the end is left out; inside, it stays as it is;
3. whole numbers are written in decimal digits, whether they come as integers or as floats (17.0 is 17);
4. upper and lower case are different, and so are letters that look alike: such names are two names.

A name is refused if nothing is left of it, if it is longer than 1,024 characters, or if it holds a character that
hides what the name is and that no writing system needs in a name: control characters, separators of lines and
paragraphs, lone surrogates, noncharacters, and the embeddings, overrides and isolates of the bidirectional
algorithm (U+202A to U+202E, U+2066 to U+2069). No-break spaces, joiners and marks of direction are allowed: the
file names of screenshots, Persian and emoji need them.

`near_key` is the same for names that a reader may take for one another. It selects nothing; it finds what to warn
of.
"""

from __future__ import annotations

import functools
import math
import unicodedata
import uuid
from collections.abc import Sequence
from datetime import date, time
from decimal import Decimal
from numbers import Integral, Real
from pathlib import PurePath

LONGEST = 1024  # characters of a name

_WHITE_SPACE = "".join(
    map(
        chr,
        [
            *range(0x9, 0xE),
            0x20,
            0x85,
            0xA0,
            0x1680,
            *range(0x2000, 0x200B),
            0x2028,
            0x2029,
            0x202F,
            0x205F,
            0x3000,
        ],
    )
)
_REFUSED_CATEGORIES = {
    "Cc": "a control character",
    "Cs": "a lone surrogate",
    "Zl": "a line separator",
    "Zp": "a paragraph separator",
}
_BIDIRECTIONAL_CONTROLS = frozenset([*range(0x202A, 0x202F), *range(0x2066, 0x206A)])
_MISSING_IN_PANDAS = {"NAType", "NaTType"}  # by name, because pandas need not be there
_LARGEST_WHOLE_FLOAT = 2**53  # beyond, a float does not tell which whole number it was

# Letters and digits that look like a Latin letter, in lower case: common ones of Unicode Technical Standard 39.
_LOOK_ALIKES = {
    ord(character): letter
    for letter, alike in {
        "a": "аα",  # noqa: RUF001 - Cyrillic and Greek letters, as in all of these
        "b": "в",
        "c": "с",  # noqa: RUF001
        "d": "ԁ",  # noqa: RUF001
        "e": "е",  # noqa: RUF001
        "g": "ɡ",  # noqa: RUF001
        "h": "һн",
        "j": "ј",  # noqa: RUF001
        "k": "кκ",
        "l": "iıіιӏ1|",  # noqa: RUF001
        "m": "м",
        "o": "оο0",  # noqa: RUF001
        "p": "рρ",  # noqa: RUF001
        "q": "ԛ",  # noqa: RUF001
        "s": "ѕ",  # noqa: RUF001
        "t": "тτ",
        "u": "υ",  # noqa: RUF001
        "v": "ν",  # noqa: RUF001
        "w": "ԝ",  # noqa: RUF001
        "x": "хχ",
        "y": "у",  # noqa: RUF001
    }.items()
    for character in alike
}


def as_text(value: object) -> str:
    """The text of a name as somebody gives it: numbers in digits, everything else letter by letter.

    Args:
        value: text, a whole number (also as a float, a decimal, or of numpy), a path, a date, a time or a UUID.

    Raises:
        ValueError: it is of another type, or not whole; says so without the value.

    >>> as_text(17.0), as_text("17 ")
    ('17', '17 ')
    """
    if isinstance(value, str):
        return str(value)
    if isinstance(value, PurePath):
        return value.as_posix()
    if isinstance(value, (uuid.UUID, date, time)):
        return str(value)
    if isinstance(value, bool) or not isinstance(value, (Real, Decimal)):
        raise ValueError(f"a value of type {type(value).__name__} is no name; give a text or a whole number")
    if isinstance(value, Integral):
        return str(int(value))
    number = value if isinstance(value, Decimal) else float(value)
    if is_missing(number) or number != int(number):
        raise ValueError("a number that is not whole is no name")
    if isinstance(number, float) and abs(number) > _LARGEST_WHOLE_FLOAT:
        raise ValueError("the number is too large to be known exactly as a float; give it as a text")
    return str(int(number))


def is_missing(value: object) -> bool:
    """Whether a cell of a table has no value: None, an empty text, a number that is none, or pandas' NA and NaT.

    >>> is_missing(float("nan")), is_missing(0)
    (True, False)
    """
    if value is None or (isinstance(value, str) and not value) or type(value).__name__ in _MISSING_IN_PANDAS:
        return True
    return isinstance(value, (Real, Decimal)) and not math.isfinite(value)


def canonical_name(value: object) -> str:
    """The canonical form of a record id or a subject.

    Args:
        value: as `as_text` takes it.

    Raises:
        ValueError: it cannot be a name; says why, without the value.

    >>> canonical_name("Rene\u0301e ") == canonical_name("Ren\u00e9e")
    True
    """
    name = unicodedata.normalize("NFC", as_text(value)).strip(_WHITE_SPACE)
    if not name:
        raise ValueError("it is empty")
    if len(name) > LONGEST:
        raise ValueError(f"it is longer than {LONGEST} characters")
    if not (name.isascii() and name.isprintable()):
        for character in name:
            if reason := _refusal(character):
                raise ValueError(f"it holds {reason} (U+{ord(character):04X})")
    return name


def canonical_or_none(value: object) -> str | None:
    """The canonical form, or None if there is none."""
    try:
        return canonical_name(value)
    except ValueError:
        return None


def class_key(name: str) -> str:
    """What names of classes are compared by: the canonical form, or the name itself if it has none.

    A class is kept and shown as it was spelled first.

    >>> class_key("Lo\u0308we") == class_key("L\u00f6we ")
    True
    """
    return canonical_or_none(name) or name


def find_class(name: str, classes: Sequence[str]) -> int | None:
    """The index of a class in a list: of this spelling, else of any spelling of it; None if there is none."""
    if name in classes:
        return classes.index(name)
    return _indices_by_key(tuple(classes)).get(class_key(name))


@functools.lru_cache(maxsize=8)
def _indices_by_key(classes: tuple[str, ...]) -> dict[str, int]:
    """Indices by `class_key`; the first of two spellings, which workspaces of version 0.1 may have, counts."""
    return {class_key(name): index for index, name in reversed(list(enumerate(classes)))}


def spellings(name: str) -> set[str]:
    r"""Ways to write a name that earlier versions kept apart and that can be told from the name.

    They noted deleted names by keyed digests of what was given, from which no other spelling can be computed.

    >>> sorted(map(ascii, spellings("Ren\u00e9e")))
    ["'Ren\\xe9e'", "'Rene\\u0301e'"]
    """
    canonical = canonical_or_none(name)
    if canonical is None or (canonical == name and name.isascii()):
        return {name}
    return {name, canonical, unicodedata.normalize("NFD", canonical)}


def show(name: str, *, beside: str) -> str:
    r"""A name in quotes; with escapes if it is another spelling of the name that stands beside it.

    >>> print(show("Rene\u0301e", beside="Ren\u00e9e"), show("renee", beside="Renee"))
    'Rene\u0301e' 'renee'
    """
    if canonical_or_none(name) == canonical_or_none(beside):
        return ascii(name)
    return repr(name)


def near_key(name: str) -> str:
    """A key that names have in common which a reader may take for one another; for warnings only.

    It ignores case, accents, white space, invisible characters, compatibility forms such as full-width letters,
    the ``.0`` of a number that was a float, and which of several letters that look alike are used.

    >>> near_key("Ren\u00e9e  M\u00fcller") == near_key("renee muller")
    True
    """
    if not name.isascii():
        name = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold())
        name = "".join(c for c in name if unicodedata.category(c) not in ("Mn", "Me", "Cf"))
    folded = "".join(name.casefold().split())
    if folded.endswith(".0") and folded[:-2].isdigit():
        folded = folded[:-2]
    return folded.translate(_LOOK_ALIKES)


def _refusal(character: str) -> str | None:
    """What is wrong with a character in a name; None if it may be there."""
    code = ord(character)
    if code in _BIDIRECTIONAL_CONTROLS:
        return "a bidirectional control character"
    if code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF:
        return "a noncharacter"
    return _REFUSED_CATEGORIES.get(unicodedata.category(character))
