"""A parquet file is read in batches that fit in memory, and one that unpacks to gigabytes is refused unread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from lmeraser.data import parquet_files
from lmeraser.data.parquet_files import open_parquet
from lmeraser.data.sources import open_source
from lmeraser.errors import InputError


def table(path: Path, rows: int, cell: bytes, **options: Any) -> Path:
    columns = {"image": pa.array([cell] * rows), "label": pa.array([0] * rows)}
    parquet.write_table(pa.table(columns), path, compression="zstd", **options)
    return path


def test_a_small_file_with_a_huge_cell_is_refused_by_its_footer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_files, "LARGEST_FILE", 1 << 20)
    path = table(tmp_path / "x.parquet", 1, bytes(2 << 20))
    assert path.stat().st_size < 4000
    pool = pa.default_memory_pool()
    before = pool.max_memory()
    with pytest.raises(InputError, match="unpacks to too much"):
        list(open_source(path).rows)
    assert pool.max_memory() == before, "nothing was unpacked"


def test_columns_that_unpack_at_an_implausible_ratio_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_files, "_MAX_UNPACKED", 1 << 20)
    path = table(tmp_path / "x.parquet", 40, bytes(1 << 16), use_dictionary=False)
    with pytest.raises(InputError, match="column image"):
        list(open_source(path).rows)
    assert len(list(open_parquet([path]).read(["label"]))) == 40, "other columns can be read"


def test_a_cell_that_stands_in_many_rows_is_unpacked_a_few_times_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_files, "_BATCH_BYTES", 2 << 20)
    path = table(tmp_path / "x.parquet", 600, bytes(100_000))
    assert path.stat().st_size < 4000
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    most = 0
    for number, row in enumerate(open_parquet([path]).read(["image", "label"])):
        most = max(most, pool.bytes_allocated() - before)
        assert len(row["image"]) == 100_000
        if number == 100:
            break
    assert 0 < most < 8 << 20, "of 60 MB"


def test_files_that_declare_different_classes_are_refused(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, Value

    for name, classes in (("a", ["cat", "dog"]), ("b", ["dog", "cat"])):
        features = Features({"image": Value("binary"), "label": ClassLabel(names=classes)})
        Dataset.from_dict({"image": [b"x"], "label": [0]}, features=features).to_parquet(
            tmp_path / f"{name}.parquet"
        )
    with pytest.raises(InputError, match=r"dog, cat \(before: cat, dog\)"):
        open_parquet([tmp_path / "a.parquet", tmp_path / "b.parquet"])


@pytest.mark.parametrize(
    "metadata", [b"", b"[]", b"{}", b'{"info": {"features": {"label": 3, "x": {"_type": []}}}}']
)
def test_metadata_that_declare_nothing_are_passed_over(tmp_path: Path, metadata: bytes) -> None:
    schema = pa.schema([("image", pa.binary()), ("label", pa.int64())], {b"huggingface": metadata})
    parquet.write_table(pa.table([[b"x"], [1]], schema=schema), tmp_path / "x.parquet")
    opened = open_parquet([tmp_path / "x.parquet"])
    assert (opened.length, list(opened.columns), opened.class_names) == (1, ["image", "label"], {})


def test_what_was_read_of_a_large_file_is_not_held(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    cells = [number.to_bytes(2, "big") * 50_000 for number in range(100)]
    columns = {"image": pa.array(cells), "label": pa.array([0] * len(cells))}
    parquet.write_table(pa.table(columns), path, compression="none", use_dictionary=False, row_group_size=5)
    pool = pa.default_memory_pool()
    del columns
    before = pool.bytes_allocated()
    most = max(
        pool.bytes_allocated() - before
        for _ in zip(open_parquet([path]).read(["image", "label"]), cells, strict=True)
    )
    assert most < path.stat().st_size / 2
