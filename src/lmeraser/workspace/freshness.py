"""Whether the served model is the model of the records and settings that the workspace holds now.

Follows `workspace`; knows nothing about how a model is derived.
"""

from __future__ import annotations

from lmeraser.errors import NoModelError
from lmeraser.models.manifest import Model
from lmeraser.workspace.workspace import Workspace


def current_model(workspace: Workspace) -> Model:
    """The served model, if it is the model of the workspace's records and settings.

    Raises:
        NoModelError: it is not, or there is none.
    """
    model = workspace.generations.require()
    if not up_to_date(workspace, model):
        raise NoModelError(
            "This needs a model that is up to date with the records and settings.",
            got=f"records or settings changed after generation {model.generation}",
            next_step="run 'lmeraser train'",
        )
    return model


def up_to_date(workspace: Workspace, model: Model) -> bool:
    """Whether the model was derived from the records and settings that the workspace holds now."""
    return model.revision == workspace.records.changes.revision and same_settings(workspace, model)


def same_settings(workspace: Workspace, model: Model) -> bool:
    """Whether the model was derived with the settings and backbone that the workspace names now."""
    config = workspace.config
    return model.settings == config.model_settings() and model.backbone_name == config.backbone.name
