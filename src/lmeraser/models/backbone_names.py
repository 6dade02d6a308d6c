"""Names of backbones in the settings, and the folders that they mean. Needs no torch.

- ``efficientnet-lite0`` comes with the installation;
- ``all-MiniLM-L6-v2`` for texts comes with the extra ``text``;
- ``identity`` and ``identity:NAME`` for vectors mean somebody else's model;
- ``vit-b-22k`` and others are aliases of models of the Hugging Face hub;
- ``hub:OWNER/NAME`` is a model of the Hugging Face hub;
- anything else is a folder. A relative path is looked for beside the settings, whatever the working directory is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lmeraser.config.schema import Config

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BUNDLED = "efficientnet-lite0"
ALIASES = {
    "vit-b-22k": "google/vit-base-patch16-224-in21k",
    "vit-b-1k": "google/vit-base-patch16-224",
    "swin-b-22k": "microsoft/swin-base-patch4-window7-224-in22k",
    "swin-b-1k": "microsoft/swin-base-patch4-window7-224",
}
IDENTITY = "identity"  # of vectors that somebody else's model has computed; "identity:NAME" names it
BUNDLED_TEXT = "all-MiniLM-L6-v2"  # comes with the extra 'text'
HUB = "hub:"  # begins the name of a model of the Hugging Face hub


def given_features(config: Config) -> Callable[[bytes], NDArray[np.float32]] | None:
    """What reads the features of a record from its payload, where that has them; None: a network computes them.

    They are what embeddings are made of, in every view.
    """
    if config.backbone.name.partition(":")[0] != IDENTITY or config.data.length is None:
        return None
    if config.embedding.layers not in (("auto",), ("final",)):  # else each of them is scaled by itself
        return None
    from lmeraser.data.modalities.vector import read_vector

    return partial(read_vector, length=config.data.length)


def locate_in_workspace(config: Config, root: Path) -> Config:
    """Settings of a workspace that name the backbone's folder by an absolute path.

    A workspace may have moved together with the folder, which is then found by the ends of the path that the
    settings have. Models remember the backbone's digest, so that other files there are refused.

    Args:
        config: all settings.
        root: the workspace's folder.
    """
    located = locate_backbone(config, root, root.parent)
    path = Path(located.backbone.name)
    if located != config or not path.is_absolute() or (path / "config.json").is_file():
        return located
    ends = [Path(*path.parts[-length:]) for length in range(len(path.parts) - 1, 0, -1)]
    for folder in (root, root.parent):
        for end in ends:
            if (folder / end / "config.json").is_file():
                name = str((folder / end).resolve())
                return config.model_copy(update={"backbone": config.backbone.model_copy(update={"name": name})})
    return config


def locate_backbone(config: Config, *folders: Path) -> Config:
    """Settings that name the backbone's folder by an absolute path, if they mean a folder that exists.

    Args:
        config: all settings.
        folders: where a relative path may begin, in this order; the working directory comes last.
    """
    name = config.backbone.name
    if name in (BUNDLED, BUNDLED_TEXT, *ALIASES) or name.partition(":")[0] == IDENTITY or name.startswith(HUB):
        return config
    for folder in (*folders, Path()):
        path = folder / Path(name).expanduser()
        if (path / "config.json").is_file():
            backbone = config.backbone.model_copy(update={"name": str(path.resolve())})
            return config.model_copy(update={"backbone": backbone})
    return config
