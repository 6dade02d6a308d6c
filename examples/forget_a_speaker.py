"""Recognise emotions in lines of dialogue, then forget all lines of one speaker.

    python examples/forget_a_speaker.py --data PATH/TO/tv_dialogue --speaker "Monica Geller"

``--data`` is a folder with ``train.parquet`` and ``test.parquet``. Their columns are ``id``, ``text``, ``label``
and ``subject``: the speaker, or several with " & " between them. What is named is what is deleted, so the request
names every subject that the speaker is part of. Afterwards the model is the one that never saw their lines.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from datasets import Dataset, load_dataset

from lmeraser import Columns, Eraser

COLUMNS = Columns(id="id", subject="subject")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--speaker", help="subject to forget; default: the one with the most lines")
    parser.add_argument("--rows", type=int, help="take the first lines only, of each split")
    return parser.parse_args()


def load(data: str, split: str, rows: int | None) -> Dataset:
    """The first lines of a split; nothing is cached outside of memory."""
    files = {split: str(Path(data) / f"{split}.parquet")}
    stream = load_dataset("parquet", data_files=files, split=split, streaming=True)
    chosen = stream if rows is None else stream.take(rows)
    return Dataset.from_list(list(chosen), features=stream.features)


def run(options: argparse.Namespace, folder: Path) -> bool:
    lines = load(options.data, "train", options.rows)
    held_out = load(options.data, "test", options.rows)
    speakers = [str(name) for name in lines["subject"]]
    speaker = options.speaker or max(sorted(set(speakers)), key=speakers.count)
    with Eraser.create(folder / "workspace", {"data": {"modality": "text"}}) as eraser:
        eraser.add(lines, columns=COLUMNS)
        eraser.train()
        before = eraser.status()
        accuracy = eraser.evaluate(held_out, columns=COLUMNS, linear=False).accuracy
        print(f"before: {before.records} lines of {before.subjects} speakers, accuracy {accuracy:.3f}")

        theirs = sorted(name for name in set(speakers) if speaker in name.split(" & "))
        report = eraser.unlearn(subjects=theirs)
        print(f"{speaker} is forgotten: {len(report.selection.ids)} lines deleted in {report.seconds:.1f} s")
        after = eraser.status()
        accuracy = eraser.evaluate(held_out, columns=COLUMNS, linear=False).accuracy
        print(f"after: {after.records} lines of {after.subjects} speakers, accuracy {accuracy:.3f}")
        identical = eraser.audit().identical
        print(f"identical to retraining without {speaker}: {'yes' if identical else 'NO'}")
        return identical


def main() -> int:
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        return 0 if run(options, Path(folder)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
