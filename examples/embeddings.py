"""Train a scikit-learn classifier on vectors, forget records by id and by subject, and compare with training anew.

    python examples/embeddings.py

The vectors are scikit-learn's handwritten digits, 64 numbers each, which stand for embeddings that you have
computed elsewhere; every 30 of them in a row are taken to be one person's. Needs no data, no backbone, no network.
"""

from __future__ import annotations

import time

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split

from lmeraser.sklearn import ExactUnlearningClassifier, NotTaughtError


def same(one: ExactUnlearningClassifier, other: ExactUnlearningClassifier) -> bool:
    """Whether all parameters of two classifiers are the same bytes."""
    names = ("classes_", "coef_", "intercept_")
    return all(getattr(one, name).tobytes() == getattr(other, name).tobytes() for name in names)


def main() -> int:
    vectors, labels = load_digits(return_X_y=True)
    ids = np.array([f"digit {number}" for number in range(len(vectors))])
    subjects = np.array([f"person {number // 30}" for number in range(len(vectors))])
    train, test = train_test_split(np.arange(len(vectors)), test_size=300, random_state=0)

    # What is chosen by looking at records stays when they are forgotten: choose on data that nobody takes back.
    search = GridSearchCV(ExactUnlearningClassifier(), {"shrinkage": [0.01, 0.1, "oas"]}, cv=3)
    classifier = search.fit(vectors[test], labels[test]).best_estimator_

    classifier.fit(vectors[train], labels[train], ids=ids[train], subjects=subjects[train])
    print(f"{len(train)} records: accuracy {classifier.score(vectors[test], labels[test]):.3f}")

    started = time.perf_counter()
    classifier.forget(ids=ids[train[:3]], subjects=["person 7"])
    seconds = time.perf_counter() - started
    left = train[3:][subjects[train[3:]] != "person 7"]
    print(f"3 records and person 7 forgotten in {1000 * seconds:.0f} ms: {len(left)} records are left")
    print(f"accuracy {classifier.score(vectors[test], labels[test]):.3f}")

    anew = ExactUnlearningClassifier(**classifier.get_params()).fit(vectors[left][::-1], labels[left][::-1])
    identical = same(classifier, anew)
    print(f"identical to training without them, in another order: {'yes' if identical else 'NO'}")

    try:
        classifier.forget(subjects=["person 7"])
    except NotTaughtError as error:
        print(error)
    return 0 if identical else 1


if __name__ == "__main__":
    raise SystemExit(main())
