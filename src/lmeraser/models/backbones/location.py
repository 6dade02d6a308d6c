"""Where a model of ``transformers`` is loaded from, and the files that it consists of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmeraser.models.backbone_names import ALIASES, HUB

_WEIGHTS = "model.safetensors"
_SHARDS = "model.safetensors.index.json"


@dataclass(frozen=True)
class Location:
    """Where a model is loaded from.

    Attributes:
        name: a folder, or a model's name on the hub.
        local_files_only: ask no server. Only a name that says so is looked for on the hub: the path of a folder
            that does not exist may be private, and would be sent there.
    """

    name: str
    local_files_only: bool

    @classmethod
    def of(cls, name: str) -> Location:
        """The location that ``backbone.name`` means; a name without prefix is a folder, or in the hub's cache."""
        if name in ALIASES:
            return cls(ALIASES[name], local_files_only=False)
        if name.startswith(HUB):
            return cls(name.removeprefix(HUB), local_files_only=False)
        return cls(name, local_files_only=True)

    @property
    def loading(self) -> dict[str, Any]:
        """Arguments of every ``from_pretrained``: never code from the model's folder or from the hub."""
        return {"local_files_only": self.local_files_only, "trust_remote_code": False}

    def file(self, name: str) -> Path | None:
        """The path of one of the model's files; None if it has none of this name.

        Raises:
            OSError: the hub cannot be reached.
        """
        from transformers.utils import cached_file

        path: str | None = cached_file(
            self.name,
            name,
            local_files_only=self.local_files_only,
            _raise_exceptions_for_missing_entries=False,
        )
        return None if path is None else Path(path)

    def tensor_names(self) -> list[str]:
        """Names of the checkpoint's tensors, sorted; none if it cannot be read or lies elsewhere."""
        from safetensors import safe_open

        try:
            if (index := self.file(_SHARDS)) is not None:
                return sorted(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
            if (path := self.file(_WEIGHTS)) is None:
                return []
            with safe_open(path, framework="np") as file:
                return sorted(file.keys())
        except Exception:  # for a message about something else
            return []

    def tensor(self, name: str) -> NDArray[np.float32] | None:
        """One of the checkpoint's tensors, in one file or split into several; None if it has none of this name."""
        from safetensors import safe_open

        path = self.file(_WEIGHTS)
        if path is None and (index := self.file(_SHARDS)) is not None:
            shard = json.loads(index.read_text(encoding="utf-8"))["weight_map"].get(name)
            path = None if shard is None else self.file(shard)
        if path is None:
            return None
        with safe_open(path, framework="pt") as file:  # numpy has no bfloat16
            if name not in file.keys():  # noqa: SIM118 - not a dictionary
                return None
            tensor: NDArray[np.float32] = file.get_tensor(name).float().numpy()
        return tensor
