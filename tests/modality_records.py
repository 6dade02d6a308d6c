"""Small sets of records of each modality, by number, with subjects; the same in every process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from conftest import DIGIT_CLASSES, DIGIT_COLUMNS, digits
from lmeraser.data.rows import Columns

LENGTH = 6  # of a vector
_CLASSES = ("card", "money", "account")
_WORDS = {
    "card": ("lost", "card", "blocked", "pin"),
    "money": ("refund", "transfer", "charged", "twice"),
    "account": ("close", "login", "password", "address"),
}


def classes_of(modality: str) -> Sequence[str]:
    """Class names."""
    return DIGIT_CLASSES if modality == "image" else _CLASSES


def columns_of(modality: str) -> Columns:
    """Columns of `records_of`."""
    return DIGIT_COLUMNS if modality == "image" else Columns(id="id", subject="subject")


def records_of(modality: str, numbers: Sequence[int]) -> Any:
    """Records with these numbers: ids ``digit-0001``..., subjects ``w0`` to ``w4``."""
    return digits(numbers) if modality == "image" else [_record(modality, number) for number in numbers]


def _record(modality: str, number: int) -> dict[str, Any]:
    label = _CLASSES[number % 3]
    generator = np.random.default_rng(number)
    payload: Any = generator.standard_normal(LENGTH) + number % 3
    if modality == "text":  # of one to some windows
        payload = " ".join(generator.choice([*_WORDS[label], "please", "now"], size=2 + number**2 % 37))
    return {"id": f"digit-{number:04d}", "subject": f"w{number % 5}", "label": label, modality: payload}
