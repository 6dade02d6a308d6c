"""
Your own photos, with people's names
====================================

A record can only be found by a person's name if the name came in with it. Three ways to say whom a photo is
about, what happens when a name is written in two ways, and how duplicates are found.
"""

import csv
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from lmeraser import Eraser, LmeraserError

folder = Path(tempfile.mkdtemp())
rng = np.random.default_rng(0)


def photo(path: Path, hue: int) -> None:
    """A picture of something green (a garden) or grey (a street)."""
    pixels = rng.integers(0, 90, (48, 48, 3), dtype=np.uint8)
    pixels[..., hue] += 120
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


# %%
# Names in a file
# ---------------
#
# Photos lie in ``photos/CLASS/FILE``; a CSV file with the columns ``id`` and ``subject`` names the people. The
# id of a record is its path inside the folder.

people = ["Ann Smith", "Zoë Meyer", "Ben Li"]
rows = []
for number in range(24):
    name = f"{'garden' if number % 2 else 'street'}/{number:02d}.png"
    photo(folder / "photos" / name, 1 if number % 2 else 2)
    rows.append((name, people[number % 3]))
with (folder / "people.csv").open("w", newline="") as file:
    csv.writer(file).writerows([("id", "subject"), *rows])

eraser = Eraser.create(folder / "workspace", {"backbone": {"image_size": 32}})
print(eraser.add(folder / "photos", subjects=folder / "people.csv").added, "photos")

# %%
# Names in folders and file names
# -------------------------------
#
# ``photos/CLASS/PERSON/FILE`` needs ``subject_level=2``; a pattern finds names in file names. A photo in whose
# path no name is found is a fault, so none comes in without one.

for person in ("p17", "p18"):
    for number in range(3):
        photo(folder / "more" / "garden" / f"{person}_{number}.png", 1)
print(eraser.add(folder / "more", subject_pattern=r"(p[0-9]+)_").added, "photos")
eraser.train()
print(eraser.status().records, "records of", eraser.status().subjects, "people")

# %%
# One name, several spellings
# ---------------------------
#
# Accents may be composed or not, and white space around a name does not matter: that is the same name.

print(eraser.plan(subjects=[" Zoe\u0308 Meyer "]).records, "records of Zoë Meyer")

# %%
# Another case is another name. Nothing is guessed: what looks alike is shown, and you decide.

try:
    eraser.plan(subjects=["ann smith"])
except LmeraserError as error:
    print(error)

# %%
# Duplicates
# ----------
#
# The same file may be in the data a second time, under another name. A deletion does what it was asked to; the
# plan counts what would be left.

for path in (folder / "photos" / "garden").iterdir():
    copy = folder / "album" / "garden" / f"album-p19_{path.name}"
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, copy)
report = eraser.add(folder / "album", subject_pattern=r"(p[0-9]+)_")
print(f"{report.added} photos, {report.duplicates} of which are duplicates")
eraser.train()
plan = eraser.plan(subjects=["Ann Smith"])
print(f"{plan.records} records named; {plan.duplicates} others hold the same picture as one of them")
plan = eraser.plan(subjects=["Ann Smith"], with_duplicates=True)
print(f"with duplicates: {plan.records} records")

# %%
# Delete them all, and check:

done = eraser.unlearn(subjects=["Ann Smith"], with_duplicates=True)
print(len(done.selection.ids), "records deleted")
assert eraser.audit().identical
found = eraser.residue([folder / "photos" / rows[3][0]])
print("left of one of her photos in the workspace:", len(found.finds), "places")
eraser.close()
