"""
Embeddings in scikit-learn
==========================

Vectors that another model has computed, a classifier in memory, and records that can be taken out of it again,
to the bit. No workspace, no certificate: ``ExactUnlearningClassifier`` is an estimator like any other.

The vectors are scikit-learn's handwritten digits, 64 numbers each; every thirty of them in a row are taken to
be one person's.
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split

from lmeraser.sklearn import ExactUnlearningClassifier, NotTaughtError

vectors, labels = load_digits(return_X_y=True)
ids = np.array([f"digit {number}" for number in range(len(vectors))])
people = np.array([f"person {number // 30}" for number in range(len(vectors))])
train, test = train_test_split(np.arange(len(vectors)), test_size=300, random_state=0)

# %%
# Choose settings on data that nobody takes back
# ----------------------------------------------
#
# What is chosen by looking at records stays when they are forgotten. So the search sees the test set only,
# which in this tutorial stands for public data.

search = GridSearchCV(ExactUnlearningClassifier(), {"shrinkage": [0.01, 0.1, "oas"]}, cv=3)
classifier = search.fit(vectors[test], labels[test]).best_estimator_
print(search.best_params_)

# %%
# Learn, with names
# -----------------

classifier.fit(vectors[train], labels[train], ids=ids[train], subjects=people[train])
print(f"{len(train)} records, accuracy {classifier.score(vectors[test], labels[test]):.3f}")

# %%
# Forget three records and a person
# ---------------------------------

classifier.forget(ids=ids[train[:3]], subjects=["person 7"])
left = train[3:][people[train[3:]] != "person 7"]
print(
    f"{int(classifier.class_count_.sum())} records, accuracy {classifier.score(vectors[test], labels[test]):.3f}"
)
assert classifier.class_count_.sum() == len(left)

# %%
# Compare with learning from the others alone, in another order, byte for byte:

anew = ExactUnlearningClassifier(**classifier.get_params()).fit(vectors[left][::-1], labels[left][::-1])
assert classifier.coef_.tobytes() == anew.coef_.tobytes()
assert classifier.intercept_.tobytes() == anew.intercept_.tobytes()

# %%
# What was not taught cannot be forgotten, and nothing happens:

try:
    classifier.forget(subjects=["person 7"])
except NotTaughtError as error:
    print(error)
