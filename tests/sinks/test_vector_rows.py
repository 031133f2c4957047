"""How vectors are packed: as they are where that is fast and costs little, and read back by any Zarr library."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr

from tilestream.codecs.metadata import encode_json, group_metadata
from tilestream.errors import DamagedError
from tilestream.sinks.rows import RowArray, encode_rows
from tilestream.sinks.rowsread import RowLayout, read_rows

VECTORS = np.random.default_rng(0).normal(size=(1000, 96)).astype(np.float32)
HALF = VECTORS.astype(np.float16).astype(np.float32)
HOLES = np.where(np.arange(1000)[:, None] % 3 == 0, VECTORS, np.float32("nan"))


def store(folder, values, *, chunk_bytes=40_000):
    with RowArray(
        folder / "a", values.dtype, row_shape=values.shape[1:], fill_value=np.nan, chunk_bytes=chunk_bytes
    ) as a:
        a.append(values)
        document = a.close(("row", "value")[: values.ndim])
    (folder / "a" / "zarr.json").write_bytes(encode_json(document))
    (folder / "zarr.json").write_bytes(encode_json(group_metadata({})))
    return folder / "a", RowLayout.of(document)


@pytest.mark.parametrize("values", [VECTORS, HALF, HOLES, VECTORS[:, 0]])
@pytest.mark.parametrize("rows", [None, range(0), range(3, 999), range(0, 1000, 7), np.array([0, 5, 104, 105, 999])])
def test_rows_come_back_to_the_bit(tmp_path, values, rows):
    path, layout = store(tmp_path, values)
    expected = values if rows is None else values[np.asarray(rows, np.int64)]
    np.testing.assert_array_equal(read_rows(path, layout, rows), expected)
    np.testing.assert_array_equal(zarr.open_group(tmp_path, mode="r")["a"][:], values)


def test_what_hardly_shrinks_is_left_alone_and_what_does_is_packed():
    assert len(encode_rows(VECTORS)) > 0.99 * VECTORS.nbytes
    assert len(encode_rows(HALF)) < 0.7 * HALF.nbytes
    assert len(encode_rows(HOLES)) < 0.5 * HOLES.nbytes
    assert encode_rows(VECTORS) == encode_rows(VECTORS.copy(order="F"))


@pytest.mark.parametrize("spoil", ["bit", "cut", "other size"])
def test_damage_is_told(tmp_path, spoil):
    path, layout = store(tmp_path, VECTORS)
    file = path / "c" / "0" / "0"
    data = bytearray(file.read_bytes())
    if spoil == "bit":
        data[20_000] ^= 1
    elif spoil == "cut":
        data = data[:30_000]
    else:
        layout = RowLayout.of(json.loads((path / "zarr.json").read_text()))
        layout = RowLayout(**{**vars(layout), "shape": (1000, 97)})
    file.write_bytes(data)
    with pytest.raises(DamagedError):
        read_rows(path, layout)
