"""What is tuned at the input of the frozen network for each cluster: pixels of an image, or tokens.

The tuners of prompts (`prompt_head`, `shared_head`, `mapping`) are the same for both. Which of the two a modality
has, its settings say (`ModalityRules.prompt`); a constituent of kind 'tokens' has tokens for images, too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from lmeraser.data.crops import Corner
from lmeraser.models.tuners.gradient_tuner import MicroBatch


class InputPrompt(ABC):
    """A prompt at the input of the frozen network.

    Attributes:
        name: of its tensor in an artifact.
    """

    name: str

    @abstractmethod
    def initial(self) -> Tensor:
        """The values that every tuning starts with, float32 [...], on the backbone's device."""

    @abstractmethod
    def rates(self) -> tuple[float, float]:
        """Learning rate and weight decay."""

    @abstractmethod
    def features(self, values: Tensor, batch: MicroBatch) -> Tensor:
        """Features of a micro-batch with prompts, as in `GradientTuner.features`.

        Args:
            values: of one prompt for all rows, or of one for each, float32 [1 or micro_batch, ...].
            batch: the rows.
        """

    @abstractmethod
    def query_features(self, values: Tensor, clean: Tensor) -> Tensor:
        """Features of queries with prompts, float32 [micro_batch, d].

        Args:
            values: of a prompt for each row, float32 [micro_batch, ...].
            clean: clean views as input of the backbone.
        """

    def corners(self, ids: Sequence[str], epoch: int | None) -> list[Corner]:
        """As in `GradientTuner.corners`; (0, 0) where a prompt has no place that could move."""
        return [(0, 0)]
