"""Write scikit-learn's handwritten digits as pictures of people who never were: DIGIT/WRITER/FILE.png.

    python examples/digits.py digits --count 300

Needs no network. The folders are what `lmeraser add digits --subject-level 2` reads: the first level is the class,
the second one whom a record is about. The last tenth is written to FOLDER-new, to try predictions with.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

WRITERS = 20


def write(folder: Path, count: int) -> None:
    """Write the pictures."""
    found = load_digits()
    kept = count - count // 10
    for number in range(count):
        place = folder if number < kept else folder.with_name(f"{folder.name}-new")
        path = place / str(found.target[number]) / f"writer-{number % WRITERS:02d}" / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = (found.images[number] * 255 / 16).round().astype("uint8")
        Image.fromarray(pixels).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=300)
    options = parser.parse_args()
    write(options.folder, options.count)
    print(f"{options.count} digits of {WRITERS} writers")


if __name__ == "__main__":
    main()
