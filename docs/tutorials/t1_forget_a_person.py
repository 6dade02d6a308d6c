"""
Forget a person
===============

A model recognises people by their faces. One of them asks to be forgotten. Afterwards the model is the one that
never saw them: it takes their pictures for somebody else's, and recognises everybody else as before.

The faces are drawn here, so that nothing has to be downloaded. ``examples/forget_a_person.py`` does the same
with photos.
"""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from lmeraser import Eraser

PEOPLE = ["ann", "ben", "cleo", "dan", "eve", "finn", "gus", "hana"]


def face(person: int, picture: int) -> Image.Image:
    """A face with the features of a person, in the mood and the light of a picture."""
    features = np.random.default_rng(person)
    mood = np.random.default_rng([person, picture])
    skin = tuple(features.integers(120, 240, 3).tolist())
    hair = tuple(features.integers(0, 160, 3).tolist())
    drawn = Image.new("RGB", (64, 64), tuple(mood.integers(170, 220, 3).tolist()))
    pen = ImageDraw.Draw(drawn)
    x, y = mood.integers(-3, 4, 2).tolist()
    wide, high = features.integers(16, 26), features.integers(20, 28)
    pen.ellipse((32 - wide + x, 34 - high + y, 32 + wide + x, 34 + high + y), fill=skin)
    pen.pieslice((32 - wide + x, 30 - high + y, 32 + wide + x, 34 + high + y), 180, 360, fill=hair)
    apart, size = features.integers(6, 12), features.integers(2, 5)
    for side in (-1, 1):
        pen.ellipse(
            (32 + side * apart - size + x, 36 - size + y, 32 + side * apart + size + x, 36 + size + y),
            fill="black",
        )
    smile = features.integers(6, 12) + mood.integers(-2, 3)
    pen.arc((32 - smile + x, 40 + y, 32 + smile + x, 54 + y), 10, 170, fill="darkred", width=2)
    return drawn


folder = Path(tempfile.mkdtemp())
for person, name in enumerate(PEOPLE):
    for picture in range(8):
        place = folder / ("faces" if picture < 6 else "new") / name / f"{picture}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        face(person, picture).save(place)

# %%
# Train
# -----
#
# The class is the person, and so is the *subject*, whom a record is about: the first folder is both.
# ``subject_level=1`` says so.

eraser = Eraser.create(folder / "workspace", {"backbone": {"image_size": 64}})
eraser.add(folder / "faces", subject_level=1)
eraser.train()
print(eraser.status().records, "pictures of", eraser.status().subjects, "people")


def recognised() -> dict[str, list[str]]:
    """Whom the model sees in the two pictures of each person that it was not trained on."""
    return {
        name: [answer.class_name for answer in eraser.predict(sorted((folder / "new" / name).iterdir()))]
        for name in PEOPLE
    }


before = recognised()
print(before)

# %%
# Ask what forgetting would do
# ----------------------------

plan = eraser.plan(subjects=["eve"], regulation="gdpr")
print(f"{plan.records} pictures, {plan.records_to_tune} records tuned again; the answer is due {plan.due:.10}")

# %%
# Forget
# ------

done = eraser.unlearn(subjects=["eve"], regulation="gdpr", audit=True)
after = recognised()
print(f"{len(done.selection.ids)} pictures deleted in {done.seconds:.1f} s, audit included")
print("eve is taken for", after["eve"])

# %%
# Nobody else was affected more than by training without her, because that is what the model is:

assert "eve" not in after["eve"]
assert eraser.audit().identical
changed = [name for name in PEOPLE if name != "eve" and before[name] != after[name]]
print("identical to retraining; recognised otherwise:", changed or "nobody")

# %%
# Her pictures cannot come back by accident: the same source again adds nothing of what was deleted.

again = eraser.add(folder / "faces", subject_level=1)
print(
    f"{again.added} added, {again.present} already present, {again.suppressed} left out, because they were deleted"
)
assert (again.added, again.suppressed) == (0, 6)
eraser.close()
