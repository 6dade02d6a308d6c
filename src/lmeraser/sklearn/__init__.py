"""Exact unlearning as scikit-learn classifiers.

    from lmeraser.sklearn import ExactUnlearningClassifier

    classifier = ExactUnlearningClassifier().fit(X, y, ids=ids, subjects=subjects)
    classifier.forget(ids=["ticket 17"], subjects=["customer 4"])

`ExactUnlearningClassifier` keeps its records in memory; `WorkspaceClassifier` keeps them in a workspace, with
everything else that a workspace has: ledger, certificates, audits. Records are vectors or, with a backbone, texts
or images.
"""

from __future__ import annotations

from lmeraser.sklearn.classifier import ExactUnlearningClassifier
from lmeraser.sklearn.errors import NoRecordsError, NotTaughtError, VectorError
from lmeraser.sklearn.workspace import WorkspaceClassifier

__all__ = ["ExactUnlearningClassifier", "NoRecordsError", "NotTaughtError", "VectorError", "WorkspaceClassifier"]
