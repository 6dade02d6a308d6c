"""The backbone of an exported model: its public name, its licence, and its files where they are copied.

The path of a folder on this machine is not public, so such a backbone is either copied or given by whoever loads
the export. Imports torch only to check copied files.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from lmeraser.config.schema import Config
from lmeraser.core.digests import Digest
from lmeraser.errors import BackboneError, InputError
from lmeraser.models.backbone_names import ALIASES, BUNDLED, BUNDLED_TEXT, HUB, IDENTITY, locate_in_workspace

_LICENSES = {  # as their publishers state them
    BUNDLED: "apache-2.0",
    BUNDLED_TEXT: "apache-2.0",
    **dict.fromkeys(ALIASES, "apache-2.0"),
}
_SUFFIXES = {".json", ".safetensors", ".txt", ".model"}  # no pickles, no code
_TERMS = ("LICENSE", "LICENCE", "NOTICE", "COPYING")
_CARD = "README.md"


def folder_of(config: Config, root: Path) -> Path | None:
    """The local folder that ``backbone.name`` means; None for one that others can load by its name.

    Args:
        config: all settings.
        root: the workspace's folder, near which it is looked for.
    """
    name = config.backbone.name
    located = Path(locate_in_workspace(config, root).backbone.name)
    return located if not is_known(name) and (located / "config.json").is_file() else None


def is_known(name: str) -> bool:
    """Whether a name means the same backbone everywhere."""
    return name in (BUNDLED, BUNDLED_TEXT, *ALIASES) or name.partition(":")[0] == IDENTITY or name.startswith(HUB)


def hub_name(name: str | None) -> str | None:
    """OWNER/NAME on the Hugging Face hub, where a backbone is from there."""
    if name in ALIASES:
        return ALIASES[name]
    return name.removeprefix(HUB) if name is not None and name.startswith(HUB) else None


def license_of(name: str, folder: Path | None) -> str | None:
    """SPDX identifier of a backbone's licence, from what is known or the model card in its folder."""
    if folder is None:
        return _LICENSES.get(name)
    try:
        lines = (folder / _CARD).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    if lines[:1] != ["---"]:
        return None
    for line in lines[1:]:
        field, _, value = line.partition(":")
        if line == "---":
            break
        if field == "license" and (given := value.strip().strip("'\"")):
            return given
    return None


def copy_files(config: Config, folder: Path | None, target: Path) -> None:
    """Copy a backbone's files.

    Args:
        config: the model's settings.
        folder: where they are; None: in the cache of the hub.
        target: folder to create.

    Raises:
        InputError: the backbone comes with an installation and has no files to copy.
        BackboneError: it has no weights as safetensors.
    """
    name = config.backbone.name
    if folder is None and hub_name(name) is None:
        raise InputError(
            "The backbone has no files to copy",
            got=f"{name!r} comes with an installation of lmeraser, or is somebody else's model",
            next_step="export without the backbone's files",
        )
    source = folder if folder is not None else _cached(name)
    for path in _to_copy(source):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def _cached(name: str) -> Path:
    from lmeraser.models.backbones.location import Location

    try:
        found = Location.of(name).file("config.json")
    except OSError:
        found = None
    if found is None:
        raise BackboneError(
            "The backbone's files are not on this machine",
            got=repr(name),
            next_step="run 'lmeraser doctor' once with network",
        )
    return found.parent


def _to_copy(source: Path) -> Iterator[Path]:
    for path in sorted(source.rglob("*")):
        terms = path.name.upper().startswith(_TERMS) or path.relative_to(source) == Path(_CARD)
        if path.is_file() and (path.suffix in _SUFFIXES or terms):
            yield path


def check_copy(config: Config, copied: Path, digest: Digest) -> None:
    """Load copied files, and compare the backbone with that of the model; needs as much memory as the backbone.

    Raises:
        BackboneError: it is another one.
    """
    from lmeraser.models.modalities import load_backbone

    own = config.backbone.model_copy(update={"name": str(copied.resolve())})
    found = load_backbone(config.model_copy(update={"backbone": own})).digest
    if found != digest:
        raise BackboneError(
            "The backbone's files are not those that the model was tuned on",
            got=f"backbone {found.short}; the model was tuned on {digest.short}",
            next_step="restore the backbone's files, or run 'lmeraser train'",
        )
