r"""Text on a terminal: the one place where lines are printed, with control characters made visible.

Ids, column names, file names and fields of unsigned files come from other people. Written to a terminal as they
are, their control characters could move the cursor and draw an answer that was never given, such as "verified".
So `echo` prints lines, each of which stays one line, and `printable` shows as escapes:

- control characters (C0, DEL, C1), line and paragraph separators, line breaks and tabs among them;
- characters that reverse the direction of writing, by which text appears in another order than it is stored;
- surrogates, which stand for bytes of file names that are no UTF-8.

Tables and progress (`console`) use `printable`, too. Imports no table library.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from typing import Any

_ESCAPED = {"Cc", "Cs", "Zl", "Zp"}  # Unicode categories
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    r"""The text on one line, with control characters as escapes.

    >>> print(printable("cat\x1b[2Kverified\n"))
    cat\x1b[2Kverified\n
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_escape, text))


def echo(*lines: str, err: bool = False) -> None:
    """Print lines.

    Args:
        lines: each is one line, whatever it contains.
        err: on standard error.
    """
    stream = sys.stderr if err else sys.stdout
    stream.write("".join(f"{printable(line)}\n" for line in lines))
    stream.flush()


def print_json(value: Any) -> None:
    """Print a report as JSON."""
    echo(*json.dumps(value, indent=1).replace("\x7f", r"\u007f").split("\n"))


def _escape(character: str) -> str:
    if unicodedata.category(character) in _ESCAPED or character in _DIRECTIONS:
        return ascii(character)[1:-1]
    return character
