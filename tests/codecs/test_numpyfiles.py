"""NumPy's files come back as they were, and never two at a time."""

from __future__ import annotations

import io
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tilestream.codecs.numpyfiles import read_npy, read_npz

ARRAYS = {"b": np.arange(6.0).reshape(2, 3), "a": np.array([], np.int16), "text": np.array(["ä", "bc"])}


def test_arrays_come_back_by_name_in_order(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **ARRAYS)
    np.save(tmp_path / "a.npy", ARRAYS["b"])
    found = read_npz(tmp_path / "a.npz")
    assert list(found) == list(ARRAYS)
    for name, wanted in ARRAYS.items():
        np.testing.assert_array_equal(found[name], wanted)
        assert found[name].dtype == wanted.dtype
    np.testing.assert_array_equal(read_npy(tmp_path / "a.npy"), ARRAYS["b"])


@pytest.mark.parametrize("read", [read_npy, read_npz])
def test_objects_are_refused(read, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.array([{}], object))
    np.save(tmp_path / "a.npy", np.array([{}], object))
    with pytest.raises(ValueError, match="allow_pickle"):
        read(tmp_path / ("a.npy" if read is read_npy else "a.npz"))


def test_headers_are_read_by_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer, inside, most = io.BytesIO(), [], []
    np.savez(buffer, **ARRAYS)
    data, real = buffer.getvalue(), np.lib.format.read_array

    def slow(*given, **options):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.002)
        found = real(*given, **options)
        inside.pop()
        return found

    monkeypatch.setattr(np.lib.format, "read_array", slow)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: read_npz(io.BytesIO(data)), range(12)))
    assert len(most) == 12 * len(ARRAYS)
    assert max(most) == 1
