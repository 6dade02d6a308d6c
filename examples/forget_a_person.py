"""Recognise people by their faces, then forget one of them.

    python examples/forget_a_person.py --data PATH/TO/orl_faces --person 7

``--data`` is a folder with ``train.parquet`` and ``test.parquet`` whose column ``subject`` names the person. After
the person is forgotten, the model is the one that never saw them: it takes their held-out pictures for someone
else's, and still recognises everyone else.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Image, load_dataset

from lmeraser import Columns, Eraser
from lmeraser.config.presets import PresetName


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--person", default="7", help="subject to forget")
    parser.add_argument("--clusters", type=int, default=6)
    parser.add_argument("--prompts", action="store_true", help="tune a prompt and a head for every cluster")
    parser.add_argument("--image-size", type=int, default=96, help="side of the backbone's input, px")
    parser.add_argument("--epochs", type=int, default=20)
    return parser.parse_args()


def held_out(data: str) -> Dataset:
    stream = load_dataset(
        "parquet", data_files={"test": str(Path(data) / "test.parquet")}, split="test", streaming=True
    )
    return Dataset.from_list(list(stream.cast_column("image", Image(decode=False))), features=stream.features)


def show(eraser: Eraser, pictures: Dataset, person: str) -> None:
    """Print the predictions for the person's held-out pictures, and the accuracy on everyone else's."""
    rows = list(pictures.cast_column("image", Image(decode=False)))
    answers = eraser.predict([row["image"]["bytes"] for row in rows])
    theirs = [answer for row, answer in zip(rows, answers, strict=True) if str(row["subject"]) == person]
    right = [
        row["label"] == answer.label
        for row, answer in zip(rows, answers, strict=True)
        if str(row["subject"]) != person
    ]
    predictions = ", ".join(f"{answer.class_name} ({answer.probability:.2f})" for answer in theirs)
    print(f"  pictures of person {person}: {predictions}")
    print(f"  everyone else's {len(right)} pictures: {share(right)} right")


def share(right: Sequence[bool]) -> str:
    return f"{sum(right) / len(right):.1%}" if right else "-"


def run(options: argparse.Namespace, folder: Path) -> bool:
    settings: dict[str, Any] = {"backbone": {"image_size": options.image_size}}
    if options.prompts:
        settings |= {"partition": {"clusters": options.clusters}, "tuning": {"epochs": options.epochs}}
    preset: PresetName = "prompts" if options.prompts else "instant"
    pictures = held_out(options.data)
    with Eraser.create(folder / "workspace", settings, preset=preset) as eraser:
        eraser.add(Path(options.data) / "train.parquet", columns=Columns(subject="subject"))
        eraser.train()
        print(f"before ({eraser.status().records} pictures of {eraser.status().subjects} people):")
        show(eraser, pictures, options.person)

        plan = eraser.plan(subjects=[options.person])
        report = eraser.unlearn(subjects=[options.person])
        tuned = f"{plan.clusters_to_tune} of {eraser.status().clusters} clusters"
        print(
            f"person {options.person} is forgotten: {plan.records} pictures deleted, "
            f"{tuned if options.prompts else 'nothing'} tuned again in {report.seconds:.1f} s"
        )
        print(f"after ({eraser.status().records} pictures of {eraser.status().subjects} people):")
        show(eraser, pictures, options.person)
        identical = eraser.audit().identical
        print(f"identical to retraining without person {options.person}: {'yes' if identical else 'NO'}")
        return identical


def main() -> int:
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        return 0 if run(options, Path(folder)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
