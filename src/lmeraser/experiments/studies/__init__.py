"""The experiments in the order of the report, one module per kind."""

from __future__ import annotations

from lmeraser.experiments.studies import accuracies, data, removal, requests
from lmeraser.experiments.studies.base import Study

STUDIES: tuple[Study, ...] = (*data.STUDIES, *requests.STUDIES, *accuracies.STUDIES, *removal.STUDIES)
