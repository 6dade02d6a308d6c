"""Creating the folder of a workspace, and checking the format of an existing one.

``workspace.json`` is written last: a folder in which creation was interrupted is not yet a workspace, and creation
can be repeated in it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmeraser.config.schema import Config
from lmeraser.config.toml_file import to_toml
from lmeraser.core.atomic_files import TEMPORARY, make_private_folder, storage_errors, write_atomic
from lmeraser.data.records import check_classes
from lmeraser.errors import CorruptError, FormatError, InputError, WorkspaceError
from lmeraser.evidence.dsse import SigningKey
from lmeraser.workspace import key_files
from lmeraser.workspace.layout import Layout

FORMAT = 1


def create_folder(layout: Layout, config: Config, *, classes: Sequence[str], signing_key: SigningKey) -> None:
    """Write the first files of a workspace.

    Raises:
        InputError: the folder holds something else, or the class names cannot be used (`check_classes`).
    """
    folder = layout.root
    if folder.exists() and (not folder.is_dir() or _has_other_files(layout)):
        contents = "a workspace" if layout.marker.exists() else "other files"
        raise InputError(
            "Folder is not empty",
            got=f"{folder} holds {contents}",
            next_step="choose an empty or missing folder with -w, or use the workspace that is there",
        )
    if classes:
        check_classes(classes)
    with storage_errors(folder):
        make_private_folder(folder)
        folder.chmod(0o700)  # it may have existed, empty
    write_atomic(layout.settings, to_toml(config).encode())
    key_files.write(layout, signing_key)
    write_atomic(layout.marker, json.dumps({"format": FORMAT}).encode())


def check_format(layout: Layout) -> None:
    """Check that a folder is a workspace of a format that this version reads.

    Raises:
        WorkspaceError: it is not a workspace.
        CorruptError: its format cannot be read.
        FormatError: a newer version wrote it.
    """
    if not layout.marker.is_file():
        raise WorkspaceError(
            "Not a workspace",
            got=f"no {layout.marker.name} in {layout.root.resolve()}",
            next_step="create one with 'lmeraser -w DIR init', or name an existing one with -w DIR",
        )
    try:
        value: Any = json.loads(layout.marker.read_bytes())
        found = int(value["format"])
    except (OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise CorruptError(
            "Cannot read the format of the workspace",
            got=f"{layout.marker}: {error!r}",
            next_step="restore the file from a backup",
        ) from error
    if found > FORMAT:
        raise FormatError(
            "Workspace was written by a newer version of lmeraser",
            got=f"{layout.root} has format {found} (this version reads {FORMAT})",
            next_step="upgrade lmeraser; nothing was changed",
        )


def _has_other_files(layout: Layout) -> bool:
    """Whether a folder holds more than what an interrupted creation leaves."""
    written_first = {layout.settings, *key_files.paths(layout)}
    return any(path not in written_first and not _temporary(path) for path in layout.root.iterdir())


def _temporary(path: Path) -> bool:
    return path.name.startswith(TEMPORARY)
