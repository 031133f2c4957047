"""Hierarchies through the main job: the same to the bit as in memory, whoever does the work and however often."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from distributed import Client

from tests.pipelines.faults.faulty import mean
from tests.pipelines.faults.runs import embed, stopped_after, stores
from tilestream.pipelines.chain import ChainChoice
from tilestream.pyramid.pyramid import open_pyramid
from tilestream.types import Box

torch = pytest.importorskip("torch")

TILE_PX, REGION_PX = 64, 256
STAGES = "tests.models.gridstages"
VIT = ChainChoice(region=f"{STAGES}_torch:SmallViT")


def run(client: Client, slide: Path, out: Path, chain: ChainChoice = VIT, **options: Any) -> Any:
    given = {"tile_px": TILE_PX, "super_tile_px": 512, "chain": chain, **options}
    return embed(client, slide, out, **given)


def groups(out: Path, name: str = "made.svs") -> tuple[xr.Dataset, ...]:
    with xr.open_datatree(out / f"{name}.features.zarr", engine="zarr") as tree:
        return tuple(tree[group].ds.load() for group in ("tile", "region", "slide"))


@pytest.fixture(scope="module")
def vit_stores(slide: Path, client: Client, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """What an undisturbed run makes."""
    out = tmp_path_factory.mktemp("vit")
    outcome = run(client, slide, out)
    assert outcome.exit_code(strict=True) == 0, outcome.rows[0].reason
    return out, stores(out)


def test_streamed_is_what_one_big_array_gives(slide: Path, vit_stores: tuple[Path, dict[str, bytes]]) -> None:
    """Cut, encode and pool the whole image in memory, with torch and NumPy alone: the same bits."""
    from tests.models.gridstages_torch import SmallViT

    pyramid = open_pyramid(str(slide))
    shape = pyramid.info.shape
    image = pyramid.read(Box(y=0, x=0, height=shape.y, width=shape.x))
    edge = REGION_PX // TILE_PX
    rows, columns = -(-shape.y // TILE_PX), -(-shape.x // TILE_PX)
    across, down = -(-columns // edge), -(-rows // edge)
    padded = np.zeros((3, rows * TILE_PX, columns * TILE_PX), image.dtype)
    padded[:, : shape.y, : shape.x] = image
    tiles = padded.reshape(3, rows, TILE_PX, columns, TILE_PX).transpose(1, 3, 0, 2, 4)
    vectors = mean(tiles.reshape(-1, 3, TILE_PX, TILE_PX)).reshape(rows, columns, 3)
    grid = np.zeros((down * edge, across * edge, 3), np.float32)
    mask = np.zeros(grid.shape[:2], bool)
    grid[:rows, :columns], mask[:rows, :columns] = vectors, True
    stage = SmallViT().eval()
    tile, region, whole = groups(vit_stores[0])
    assert region.sizes["region"] == down * across
    assert rows % edge  # regions at the edge are partial, and there
    found = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for number in range(region.sizes["region"]):
        y, x = int(region["y"][number]) // TILE_PX, int(region["x"][number]) // TILE_PX
        cut = slice(y, y + edge), slice(x, x + edge)
        with torch.inference_mode():
            vector = stage(
                torch.from_numpy(grid[cut].transpose(2, 0, 1)[None].copy()), torch.from_numpy(mask[cut][None])
            )
        found[y, x] = vector.numpy()[0]
        np.testing.assert_array_equal(region["mean"].values[number], found[y, x])
        assert int(region["n"][number]) == mask[cut].sum()
    torch.set_num_threads(threads)
    assert len(found) == down * across
    at = tile["y"].values.astype(int) // TILE_PX, tile["x"].values.astype(int) // TILE_PX
    np.testing.assert_array_equal(tile["mean"], vectors[at])
    np.testing.assert_allclose(whole["mean"], np.mean(list(found.values()), axis=0), rtol=1e-5, atol=1e-6)


def test_processes_batches_and_an_interrupt_do_not_change_a_bit(
    slide: Path, client: Client, processes: Client, vit_stores: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    assert run(processes, slide, tmp_path / "two", batch=7).exit_code(strict=True) == 0
    assert stores(tmp_path / "two") == vit_stores[1]
    stopped_after(3, client, slide, tmp_path / "on", tile_px=TILE_PX, super_tile_px=512, chain=VIT)
    (row,) = run(processes, slide, tmp_path / "on", batch=5).rows
    assert row.supertiles_reused >= 3
    assert stores(tmp_path / "on") == vit_stores[1]
