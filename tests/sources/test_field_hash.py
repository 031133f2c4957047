"""Stores of fields whose tiles are hash fields: near the image on each level, the same whoever decodes them."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr

from tests.sources.assembled import whole_level
from tests.sources.madefields import save_fields
from tilestream.codecs.quality import psnr
from tilestream.codecs.tilecodec import FieldCodec
from tilestream.errors import ConfigError
from tilestream.kernels.language import SIMULATED, cuda
from tilestream.sources.opening import open_source

pytest.importorskip("torch")  # makes the fields


def test_a_store_of_hash_fields_is_what_zarr_reads_of_it_and_near_the_image_on_each_level(tmp_path):
    y, x = np.mgrid[:32, :64]
    smooth = np.stack([2 * y, 3 * x, y + x]).astype("uint8")
    codec = FieldCodec(steps=30, quality=80)
    levels = save_fields(tmp_path / "a.zarr", smooth, tile_px=32, codec=codec)
    source = open_source(str(tmp_path / "a.zarr"))
    assert len(levels.pixels) == 2
    for number, expected in enumerate(levels.pixels):
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda n: whole_level(source, n)[0], [number] * 4))
        for pixels in found:
            np.testing.assert_array_equal(pixels, found[0])
        reached = psnr(found[0].transpose(2, 0, 1), expected)
        assert reached > 20
        assert reached == pytest.approx(source.coding()["psnr"][number], abs=1e-3)
    plain = zarr.open_array(tmp_path / "a.zarr/0/image", mode="r")[...]
    np.testing.assert_array_equal(plain, whole_level(source)[0].transpose(2, 0, 1))
    parameters = source.coding()["parameters"]
    assert {"table", "network"} <= parameters.keys()


IN_SIMULATOR = """
import os, sys
import numpy as np
if hasattr(os, "sched_setaffinity"):  # as in tests/conftest.py
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
from tilestream.sources.opening import open_source
plain, on_device = (open_source(sys.argv[1] + choice) for choice in ("", "#decode=cuda"))
blocks = [source.read_block(1, 0, 0).pixels.astype(int) for source in (plain, on_device)]
assert blocks[0].std() > 1
print(np.abs(blocks[0] - blocks[1]).max())
"""


@pytest.mark.slow
@pytest.mark.skipif(SIMULATED, reason="starts the process that this one is")
def test_hash_fields_are_decoded_by_cuda_too(tmp_path):
    y, x = np.mgrid[:32, :64]
    save_fields(
        tmp_path / "a.zarr", np.stack([y * x % 200, 3 * x]).astype("uint8"), tile_px=32, codec=FieldCodec(steps=9)
    )
    done = subprocess.run(
        [sys.executable, "-c", IN_SIMULATOR, str(tmp_path / "a.zarr")], capture_output=True, text=True, check=False,
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}, timeout=150,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) <= 1


@pytest.mark.skipif(cuda.is_available(), reason="there is a device, or what stands for one")
def test_without_a_device_it_says_so(tmp_path):
    y, x = np.mgrid[:16, :16]
    save_fields(tmp_path / "a.zarr", np.stack([y * x]).astype("uint8"), tile_px=16, codec=FieldCodec(steps=2))
    with pytest.raises(ConfigError, match="`backend`"):
        open_source(f"{tmp_path}/a.zarr#decode=cuda").read_block(0, 0, 0)
