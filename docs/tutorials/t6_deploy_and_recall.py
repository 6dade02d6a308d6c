"""
Deploy an export, and recall it
===============================

A model leaves the house: as a folder with tensors and a signature, without records and keys. When somebody
whose records it learned from is forgotten later, the copy is on the list of those that have to come back.
"""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import lmeraser
from lmeraser import Eraser

folder = Path(tempfile.mkdtemp())
rng = np.random.default_rng(0)
for number in range(24):
    pixels = rng.integers(0, 90, (48, 48, 3), dtype=np.uint8)
    pixels[..., number % 2] += 120
    place = folder / "photos" / ("red", "green")[number % 2] / f"person-{number % 6}" / f"{number}.png"
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(place)

eraser = Eraser.create(folder / "workspace", {"backbone": {"image_size": 32}})
eraser.add(folder / "photos", subject_level=2)
eraser.train()

# %%
# Export
# ------
#
# Note who gets it: that is who has to be told when it is recalled.

export = eraser.export(folder / "out", holder_contact="model desk of the branch office")
print(sorted(path.name for path in (folder / "out").iterdir()))

# %%
# Predict elsewhere
# -----------------
#
# Whoever holds the folder verifies the signature with the key that they got from you, and predicts. In the same
# environment the probabilities have the bits that the workspace's own predictions have.

predictor = lmeraser.load_predictor(folder / "out", key=folder / "workspace" / "signing.pub")
here = eraser.predict_proba([place])
there = predictor.predict_proba([place])
print(there, "same bits:", here.tobytes() == there.tobytes())
assert here.tobytes() == there.tobytes()

# %%
# Somebody asks to be forgotten
# -----------------------------
#
# The workspace's model forgets in a moment. The copy does not: it is now *recalled*.

eraser.unlearn(subjects=["person-3"], regulation="gdpr")
for held in eraser.exports():
    print(held.copy.state, "-", held.copy.records_erased, "of its records were erased;", held.holder.contact)

# %%
# Tell the holder, send them a new export, and note that the old one is gone:

copy = eraser.exports()[0].copy
eraser.tell_export(copy.id)
eraser.export(folder / "new", holder_contact="model desk of the branch office")
eraser.confirm_export(copy.id)
print([held.copy.state for held in eraser.exports()])

# %%
# All of this is in the ledger, without any name:

print([entry.kind for entry in eraser.check_ledger().entries])
assert eraser.check_ledger().sound
eraser.close()
