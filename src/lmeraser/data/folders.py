"""Listing of folders of images: which files are pictures, which folders are splits, and what is passed over.

Rules:
- a file is a picture by its suffix (`IMAGE_SUFFIXES`), in upper or lower case;
- what a computer puts into folders by itself is no data: hidden files and folders, resource forks, thumbnails, and
  the pictures that a workspace draws;
- everything else that is not listed as a picture is counted by its kind, so that nothing is dropped in silence;
- symbolic links are never followed, because they may lead out of the folder; they are listed as links;
- files are listed in the order of their paths.

Knows nothing about records.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from lmeraser.errors import InputError

IMAGE_SUFFIXES = frozenset(
    {
        *(".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".jpx", ".mpo"),
        *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
    }
)

# Names of what systems put into folders, in lower case; whatever begins with a point is hidden anyway.
_SYSTEM_NAMES = {
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "$recycle.bin", "lost+found"),
    *("@eadir", "@tmp", "@recycle", "#recycle", "#snapshot", "system volume information", "__pycache__"),
}
_HIDDEN_NAMES = {".ds_store", ".ipynb_checkpoints", ".git", ".thumbnails", ".cache"}  # named in reports
_WORKSPACE = {"workspace.json", "lmeraser.toml"}  # beside each other in a workspace, which may lie among the data
_LONGEST_SUFFIX = 10  # characters that a report shows

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_BESIDE_SPLIT = {"", "set", "split", "data", "images", "image", "imgs", "img"}  # train2017, test_images


@dataclass(frozen=True, slots=True)
class FoundImage:
    """A picture in a folder, or a link.

    Attributes:
        path: relative to the folder.
        is_link: whether it is, or lies behind, a symbolic link.
    """

    path: PurePosixPath
    is_link: bool = False


@dataclass
class Listing:
    """What a folder holds.

    Attributes:
        images: pictures and links, in the order of their paths.
        others: files that are no pictures, relative to the folder.
        passed_over: how many files and folders of each kind are not among the images.
    """

    images: list[FoundImage] = field(default_factory=list)
    others: list[PurePosixPath] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)


def list_folder(root: Path, suffixes: Collection[str] = IMAGE_SUFFIXES) -> Listing:
    """List a folder and all folders in it.

    A link to a folder that lies directly in ``root`` is listed by the pictures behind it, so that a report names
    them; deeper links are listed by themselves.

    Args:
        root: the folder.
        suffixes: of the files that are listed, for instance of texts instead of images; in lower case.

    Raises:
        InputError: a folder cannot be read.
    """
    listing = Listing()
    waiting = [(PurePosixPath(), False)]
    while waiting:  # not recursive: folders may lie deeper in each other than Python's stack allows
        folder, behind_link = waiting.pop()
        waiting += _list(root, folder, listing, suffixes, behind_link=behind_link)
    listing.images.sort(key=lambda image: image.path.parts)
    listing.others.sort(key=lambda path: path.parts)
    return listing


def _list(
    root: Path, inside: PurePosixPath, listing: Listing, suffixes: Collection[str], *, behind_link: bool
) -> list[tuple[PurePosixPath, bool]]:
    """List one folder; returns those in it that are still to be listed, and whether they lie behind a link."""
    further = []
    try:
        entries = list(os.scandir(root / inside))
    except OSError as error:
        raise InputError(
            "Cannot read folder",
            got=f"{root / inside}: {error.strerror}",
            next_step="check the path and its permissions",
        ) from error
    if inside.parts and _WORKSPACE.issubset(entry.name for entry in entries):
        listing.passed_over["workspace folders"] += 1
        return []
    for entry in entries:
        path = inside / entry.name
        is_folder = entry.is_dir(follow_symlinks=False)
        if kind := _system_kind(entry.name, is_folder=is_folder):
            listing.passed_over[kind] += 1
        elif is_folder:
            further.append((path, behind_link))
        elif entry.is_symlink():
            if inside.parts or not entry.is_dir():
                listing.images.append(FoundImage(path, is_link=True))
            else:
                further.append((path, True))
        elif not entry.is_file():
            listing.passed_over["special files"] += 1
        elif path.suffix.lower() in suffixes:
            listing.images.append(FoundImage(path, is_link=behind_link))
        else:
            listing.others.append(path)
            listing.passed_over[file_kind(entry.name)] += 1
    return further


def file_kind(name: str) -> str:
    """The kind of a file by its suffix, for reports.

    >>> file_kind("a.HEIC"), file_kind("README"), file_kind("minutes of 12.November")
    ('.heic', 'files without suffix', 'other files')
    """
    suffix = PurePosixPath(name).suffix.lower()
    if not suffix:
        return "files without suffix"
    plain = len(suffix) <= _LONGEST_SUFFIX and suffix[1:].isalnum() and suffix.isascii()
    return suffix if plain else "other files"


def _system_kind(name: str, *, is_folder: bool) -> str:
    """The kind of a file or folder that is no data; empty: it is."""
    folded = name.casefold()
    end = "/" if is_folder else ""
    if folded in _SYSTEM_NAMES or folded in _HIDDEN_NAMES:
        return name.strip() + end
    if folded.startswith("._"):
        return "._*" + end
    if folded.startswith("."):
        return "hidden folders" if is_folder else "hidden files"
    return ""


def describe_passed_over(passed_over: Mapping[str, int]) -> str:
    """One line about what was passed over.

    >>> describe_passed_over({".txt": 2, "@eaDir/": 1})
    '3 files and folders passed over: 2 x .txt, 1 x @eaDir/'
    """
    kinds = sorted(passed_over.items(), key=lambda item: (-item[1], item[0]))
    total = sum(passed_over.values())
    what = "files and folders" if any(kind.endswith(("/", "folders")) for kind in passed_over) else "files"
    what = what if total > 1 else what.removesuffix("s") if what == "files" else "folder"
    return f"{total} {what} passed over: {', '.join(f'{count} x {kind}' for kind, count in kinds)}"


# --- splits --------------------------------------------------------------------------------------------------


def split_of(name: str) -> str | None:
    """The split that a folder's name stands for: train, validation or test; None: it stands for none.

    >>> split_of("Training"), split_of("val2017"), split_of("test tube"), split_of("cat")
    ('train', 'validation', None, None)
    """
    words = re.findall(r"[a-z]+|[^\W\d_a-z]+", name.casefold())
    if any(word not in _SPLITS and word not in _BESIDE_SPLIT for word in words):
        return None
    found = {_SPLITS[word] for word in words if word in _SPLITS}
    return found.pop() if len(found) == 1 else None


def are_splits(folders: Sequence[str]) -> bool:
    """Whether folders beside each other are splits rather than classes.

    They are if all of them are named as splits, or several of them as different ones. A single such name among
    others is a class: a train among cars and buses.
    """
    found = [split_of(name) for name in folders]
    return bool(found) and (None not in found or len(set(found) - {None}) > 1)


def split_folder(root: Path, split: str) -> Path | None:
    """The folder of a split, by its name or by another one for the same split; None: there is none."""
    if (root / split).is_dir():
        return root / split
    wanted = split_of(split)
    alike = [name for name in folder_names(root) if wanted is not None and split_of(name) == wanted]
    return root / alike[0] if len(alike) == 1 else None


def folder_names(root: Path) -> list[str]:
    """Names of the folders in a folder that are data, sorted."""
    with os.scandir(root) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not _system_kind(e.name, is_folder=True))


def is_data_file(path: Path) -> bool:
    """Whether a file was put where it is by a person, and not by a computer."""
    return not _system_kind(path.name, is_folder=False)


def folders_with_images(images: Iterable[FoundImage], level: int = 0) -> tuple[str, ...]:
    """Names of the folders that hold images, at any depth, sorted.

    Args:
        images: that were listed.
        level: of the folders; 0: those directly in the listed folder.
    """
    return tuple(sorted({image.path.parts[level] for image in images if len(image.path.parts) > level + 1}))


def doubts_about_classes(root: Path, images: Sequence[FoundImage]) -> list[str]:
    """Hints for a folder whose class folders may not be what was meant by them.

    Raises:
        InputError: the folder only wraps another one, which holds splits.
    """
    classes, inner = folders_with_images(images), folders_with_images(images, level=1)
    depth = min((len(image.path.parts) for image in images), default=0)
    if len(classes) == 1 and depth > 2:
        if are_splits(inner) and depth > 3:
            raise InputError(
                "The folders are splits, not classes",
                got=f"{root / classes[0]}: {', '.join(inner)}",
                next_step=f"give the folder {root / classes[0]}, and choose one with --split",
            )
        return [
            f"{classes[0]!r} is the only class, and all of its images lie in folders ({_first(inner)}); "
            f"if these are the classes, add {root / classes[0]}"
        ]
    splits = [name for name in inner if split_of(name) is not None]
    if splits and are_splits(splits) and len(splits) == len(inner):
        return [f"the class folders hold splits, all of which are read ({_first(splits)})"]
    return []


def _first(names: Sequence[str], most: int = 5) -> str:
    return ", ".join([*names[:most], *(["..."] if len(names) > most else [])])
