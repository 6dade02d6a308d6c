"""Errors of the classifiers, which are scikit-learn's kinds of errors as well."""

from __future__ import annotations

from sklearn.exceptions import NotFittedError

from lmeraser.errors import InputError, NoModelError, UnknownRecordError


class VectorError(InputError, ValueError):
    """Parameters, ids, subjects, labels or vectors that cannot be used; a `ValueError`, as in scikit-learn."""


class NotTaughtError(UnknownRecordError, ValueError):
    """Ids, subjects or vectors that were not taught, or are forgotten already; all of them are listed."""


class NoRecordsError(NoModelError, NotFittedError):  # type: ignore[misc]  # scikit-learn is untyped
    """Nothing is left to predict with, or the records were left out of a pickle."""
