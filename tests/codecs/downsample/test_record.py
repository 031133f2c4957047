"""Files of downsamplers: read without torch, and nothing believed of them that does not hold."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

pytest.importorskip("safetensors")

from tests.codecs.downsamplers import untrained
from tilestream.codecs.downsample.record import KEY, DownsamplerRecord, read_downsampler, write_downsampler
from tilestream.errors import ConfigError, SourceError


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("file") / "a.safetensors"
    untrained(path)
    return path.read_bytes()


def test_what_is_written_is_read(tmp_path) -> None:
    record = DownsamplerRecord(levels=2, window_px=4, width=5, up_width=6, training={"steps": 3})
    parameters = {name: np.full(shape, 0.5, np.float32) for name, shape in record.shapes.items()}
    written = write_downsampler(tmp_path / "a.safetensors", record, parameters)
    assert written.record == record
    for name, values in written.parameters.items():
        assert_array_equal(values, parameters[name])
    again = write_downsampler(tmp_path / "b.safetensors", record, parameters)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert again.digest == written.digest


@pytest.mark.parametrize(
    "sizes", [{"window_px": 7}, {"window_px": 14}, {"levels": 0}, {"levels": "2"}, {"width": 10**9}, {"up_layers": 1}]
)
def test_sizes_that_nothing_has_are_refused(sizes) -> None:
    with pytest.raises(ConfigError, match=f"`{next(iter(sizes))}` of a downsampler"):
        DownsamplerRecord(**sizes)


@given(data=st.data())
def test_a_damaged_file_is_none_or_says_the_same(data, whole, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("damaged") / "a.safetensors"
    broken = bytearray(whole)
    if data.draw(st.booleans()):
        broken = broken[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        at = data.draw(st.integers(0, len(whole) - 1))
        broken[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(broken))
    try:
        found = read_downsampler(path)
    except SourceError:
        return
    assert all(np.isfinite(values).all() for values in found.parameters.values())
    assert {name: values.shape for name, values in found.parameters.items()} == found.record.shapes


@pytest.mark.parametrize("change", [{"format": 2}, {"kind": "scorer"}, {"levels": 3}, {"unknown": 1}])
def test_what_is_of_another_kind_is_refused(change, whole, tmp_path) -> None:
    from safetensors.numpy import load, save

    length = int.from_bytes(whole[:8], "little")
    document = json.loads(json.loads(whole[8 : 8 + length])["__metadata__"][KEY])
    path = tmp_path / "a.safetensors"
    path.write_bytes(save(load(whole), metadata={KEY: json.dumps({**document, **change})}))
    with pytest.raises(SourceError, match="no downsampler of tilestream"):
        read_downsampler(path)


def test_what_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(SourceError, match="a folder"):
        read_downsampler(tmp_path)
    with pytest.raises(SourceError, match="No such file"):
        read_downsampler(tmp_path / "a.safetensors")
