"""Checks whether the served model is up to date with the workspace's records and settings."""

from __future__ import annotations

from lmeraser.errors import NoModelError
from lmeraser.models.manifest import Model
from lmeraser.workspace.workspace import Workspace


def current_model(workspace: Workspace) -> Model:
    """The served model, if it is up to date.

    Raises:
        NoModelError: it is not, or there is none.
    """
    model = workspace.generations.require()
    if not up_to_date(workspace, model):
        raise NoModelError(
            "Model is not up to date",
            got=f"records or settings changed after generation {model.generation}",
            next_step="run 'lmeraser train'",
        )
    return model


def up_to_date(workspace: Workspace, model: Model) -> bool:
    """Whether the model was derived from the records and settings that the workspace holds now."""
    return model.revision == workspace.records.changes.revision and same_settings(workspace, model)


def same_settings(workspace: Workspace, model: Model) -> bool:
    """Whether the model was derived with the settings and backbone that the workspace names now."""
    return model.matches(workspace.config)
