"""Extras of the package: libraries that only some features need."""

from __future__ import annotations

from importlib.util import find_spec

from lmeraser.errors import InputError


def require_extra(extra: str, purpose: str, *packages: str) -> None:
    """Check that the packages of an extra are installed, without importing them.

    Args:
        extra: its name.
        purpose: what it is for, in the message.
        packages: names of the modules to look for.

    Raises:
        InputError: some are missing.
    """
    if lacking := [package for package in packages if find_spec(package) is None]:
        raise InputError(
            f"The extra for {purpose} is not installed",
            got=f"missing: {', '.join(lacking)}",
            next_step=f"pip install 'lmeraser[{extra}]'",
        )
