"""The exceptions of lmeraser, classed by what their reader can do about them.

    LmeraserError
    ├── InputError            what was handed in cannot be used: change the input
    │   ├── ConfigError       settings: unknown keys, values out of range
    │   ├── SourceError       a source of records: every fault of it at once
    │   ├── ImageError        one image file
    │   └── UnknownRecordError  record ids or subjects that the workspace does not hold
    ├── WorkspaceError        the folder on disk is not in the state the command needs
    │   ├── FormatError       written by another version
    │   ├── LockedError       another process is writing
    │   ├── CorruptError      bytes on disk do not match their digest
    │   ├── NoModelError      nothing has been trained, or nothing is left to predict with
    │   └── StorageError      the disk refused (full, read-only)
    ├── VerificationError     evidence does not hold: a signature, chain or digest does not match
    ├── BackboneError         weights cannot be found or loaded
    ├── WorkerError           workers in other processes or on other machines cannot do the work
    └── StoppedError         the user stopped it; running it again continues

Every error states the rule, the value got and the next step. Knows nothing about any other module.
"""

from __future__ import annotations

from collections.abc import Sequence

_SHOWN = 20


class LmeraserError(Exception):
    """Base of every error that lmeraser raises on purpose.

    Args:
        rule: what has to hold.
        got: what was found instead.
        next_step: what the reader can do now.
    """

    exit_code = 2

    def __init__(self, rule: str, *, got: str = "", next_step: str = "") -> None:
        super().__init__(rule)
        self.rule = rule
        self.got = got
        self.next_step = next_step

    def diagnostics(self) -> str:
        """The whole message, as the command line prints it."""
        lines = [self.rule]
        if self.got:
            lines.append(f"got: {self.got}")
        if self.next_step:
            lines.append(f"next: {self.next_step}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.diagnostics()


class InputError(LmeraserError):
    """What was handed in cannot be used."""


class ConfigError(InputError):
    """Settings with unknown keys or values out of range; all of them are listed."""


class ImageError(InputError):
    """One image cannot be decoded to RGB pixels."""


class SourceError(InputError):
    """A source of records has faults; nothing of it was imported.

    Args:
        rule: what has to hold for a source.
        faults: one line per fault, in the order of the source.
        next_step: what the reader can do now.
    """

    def __init__(self, rule: str, *, faults: Sequence[str], next_step: str = "") -> None:
        super().__init__(rule, got=listing(faults), next_step=next_step)
        self.faults = tuple(faults)


class UnknownRecordError(InputError):
    """Record ids or subjects that this workspace has never held."""


class WorkspaceError(LmeraserError):
    """The workspace is not in the state that the command needs."""


class FormatError(WorkspaceError):
    """The workspace was written in a format that this version cannot read."""


class LockedError(WorkspaceError):
    """Another process is writing to the workspace."""


class CorruptError(WorkspaceError):
    """Bytes on disk do not have the digest they are stored under."""


class NoModelError(WorkspaceError):
    """There is no model to use: never trained, or nothing left to predict with."""


class StorageError(WorkspaceError):
    """The operating system refused to store bytes; nothing was half-written."""


class VerificationError(LmeraserError):
    """Evidence does not hold: a signature, a chain or a digest does not match."""

    exit_code = 1


class BackboneError(LmeraserError):
    """A backbone's weights cannot be found or loaded."""


class WorkerError(LmeraserError):
    """Workers in other processes or on other machines cannot do the work."""


class StoppedError(LmeraserError):
    """The user stopped the work; finished parts are kept."""

    exit_code = 130


def listing(items: Sequence[str]) -> str:
    """Items one per line, the first few in full and the rest as a count.

    >>> print(listing(["a", "b"]))
    2:
      - a
      - b
    """
    shown = [f"  - {item}" for item in items[:_SHOWN]]
    if len(items) > _SHOWN:
        shown.append(f"  ... and {len(items) - _SHOWN} more")
    return "\n".join([f"{len(items)}:", *shown])
