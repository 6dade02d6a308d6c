"""A session: a workspace together with the executors and the progress report that every verb needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmeraser.core.progress import Progress, silent
from lmeraser.pipeline.executors.provider import ExecutorProvider
from lmeraser.workspace.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lmeraser.core.digests import Digest
    from lmeraser.models.backbones import Backbone


@dataclass(frozen=True)
class Session:
    """What a verb works on and with.

    Attributes:
        workspace: where records, requests and generations are.
        executors: run the expensive stages; the workspace's settings choose them.
        progress: receives progress reports.
    """

    workspace: Workspace
    executors: ExecutorProvider
    progress: Progress = silent

    @classmethod
    def of(cls, workspace: Workspace, *, backbone: Backbone | None = None, progress: Progress = silent) -> Session:
        """A session with executors for the workspace's settings.

        Args:
            workspace: an open workspace.
            backbone: the network that the settings name, if the caller has loaded it already.
            progress: receives progress reports.
        """

        def preferred() -> Iterable[Digest]:
            model = workspace.generations.current()
            return model.fingerprints if model is not None else ()

        executors = ExecutorProvider(
            lambda: workspace.config,
            preferred=preferred,
            backbone=backbone,
            root=workspace.root,
            progress=progress,
        )
        return cls(workspace, executors, progress)

    def close(self) -> None:
        """Release the workspace's database and stop workers."""
        self.workspace.close()
        self.executors.close()
