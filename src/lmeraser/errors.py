"""The exceptions of lmeraser, classed by what their reader can do about them.

    LmeraserError
    ├── InputError            the input cannot be used: change it
    │   ├── ConfigError       settings: unknown keys, values out of range
    │   ├── SourceError       a source of records, with all of its faults
    │   ├── ImageError        one image file
    │   ├── RequestConflictError  the id of a request that says something else, or was cancelled
    │   ├── UnknownRecordError  record ids or subjects that the workspace does not hold
    │   └── AmbiguousNameError  names that mean several of those that it holds
    ├── WorkspaceError        the folder on disk is not in the state the command needs
    │   ├── FormatError       written by another version
    │   ├── LockedError       another process is writing
    │   ├── CorruptError      bytes on disk do not match their digest
    │   ├── NoModelError      nothing has been trained, or nothing is left to predict with
    │   └── StorageError      a disk or server refused (full, read-only, unavailable)
    ├── VerificationError     evidence does not hold: a signature, chain or digest does not match
    ├── BackboneError         weights cannot be found or loaded
    ├── WorkerError           workers in other processes or on other machines cannot do the work
    └── StoppedError         the user stopped it; running it again continues

Every error says what is wrong, the value got and the next step. What is wrong never contains a value that a caller
sent, so that it can be shown where such values must not appear (HTTP responses, logs). Imports no other module.
"""

from __future__ import annotations

from collections.abc import Sequence

LISTED = 20  # items that `listing` shows in full


class LmeraserError(Exception):
    """Base of every error that lmeraser raises on purpose.

    Args:
        message: what is wrong, without a full stop; contains no value that a caller sent.
        got: the value that is wrong, and what is possible instead.
        next_step: what the reader can do now.

    >>> print(InputError("Split not found", got="'test2' (there are: train, test)", next_step="name one"))
    Split not found: 'test2' (there are: train, test)
    next: name one
    """

    exit_code = 2

    def __init__(self, message: str, *, got: str = "", next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.got = got
        self.next_step = next_step

    @property
    def summary(self) -> str:
        """What is wrong and the value got."""
        return f"{self.message}: {self.got}" if self.got else self.message

    def diagnostics(self) -> str:
        """The whole error, as the command line prints it.

        Lines of the value are indented, so that none of them can be taken for a line of lmeraser's own.
        """
        parts = [self.summary, *([f"next: {self.next_step}"] if self.next_step else [])]
        return "\n".join(map(_indented, parts))

    def __str__(self) -> str:
        return self.diagnostics()


class InputError(LmeraserError):
    """The input cannot be used."""


class ConfigError(InputError):
    """Settings with unknown keys or values out of range; all of them are listed."""


class ImageError(InputError):
    """One image cannot be decoded to RGB pixels."""


class SourceError(InputError):
    """A source of records has faults; nothing of it was imported.

    Args:
        message: what is wrong with the source.
        faults: one line per fault, in the order of the source.
        next_step: what the reader can do now.
    """

    def __init__(self, message: str, *, faults: Sequence[str], next_step: str = "") -> None:
        super().__init__(message, got=listing(faults), next_step=next_step)
        self.faults = tuple(faults)


class UnknownRecordError(InputError):
    """Record ids or subjects that this workspace has never held."""


class AmbiguousNameError(InputError):
    """Record ids that mean several records, or subjects that are held in several spellings."""


class RequestConflictError(InputError):
    """The id of a deletion request belongs to one with other content, or to one that was cancelled."""


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
    """A disk or server refused to store or read bytes; nothing was written in part."""


class VerificationError(LmeraserError):
    """Evidence does not hold: a signature, a chain or a digest does not match."""

    exit_code = 1


class BackboneError(LmeraserError):
    """A backbone's weights cannot be found or loaded."""


class WorkerError(LmeraserError):
    """Workers in other processes or on other machines cannot do the work."""


class StoppedError(LmeraserError):
    """The user stopped the work; finished parts are kept, and running it again continues."""

    exit_code = 130


def _indented(text: str) -> str:
    """The text with all lines but the first indented."""
    first, *rest = text.split("\n")
    return "\n".join([first, *(line if line.startswith(" ") else f"  {line}" for line in rest)])


def listing(items: Sequence[str]) -> str:
    """The number of items, then one item per line: the first ones in full, the rest as a count.

    >>> print(listing(["a", "b"]))
    2
      - a
      - b
    """
    lines = [f"  - {item}" for item in items[:LISTED]]
    if len(items) > LISTED:
        lines.append(f"  ... and {len(items) - LISTED} more")
    return "\n".join([str(len(items)), *lines])
