"""Several encoders in one pass: one variable each, the bits of each alone, tiles that suit all or a refusal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import tilestream as ts
from tests.pipelines.faults.runs import stores
from tilestream.cluster.client import open_client
from tilestream.errors import ConfigError
from tilestream.pipelines.cohort import read_cohort
from tilestream.pipelines.embed import EmbedConfig, run_embed
from tilestream.pipelines.encoders import EncoderChoice, Geometry, require_different, shared_geometry
from tilestream.testing.slide import write_slide
from tilestream.types import Shape


def means(samples: np.ndarray) -> np.ndarray:
    """Mean and largest value of the first channel."""
    return np.stack([samples[:, 0].mean((1, 2)), samples[:, 0].max((1, 2))], 1)


means.contract = {"px": 128, "mpp": 0.5, "dim": 2, "pooling": "mean of pixels"}  # type: ignore[attr-defined]


def sums(samples: np.ndarray) -> np.ndarray:
    """Sum of all samples, and no value for every other tile."""
    found = samples.sum((1, 2, 3), dtype=np.float64)[:, None]
    return np.where(np.arange(len(found))[:, None] % 2, np.nan, found)


sums.contract = {"px": 128, "mpp": 0.5, "dim": 1}  # type: ignore[attr-defined]


def embed(slide: Path, out: Path, *choices: EncoderChoice, **options: Any) -> Any:
    config = EmbedConfig(out=out, where="all", super_tile_px=512, encoders=choices, **options)
    with open_client("threads:1") as client:
        return run_embed(read_cohort([str(slide)]), config, client=client)


def choice(function: str, **params: Any) -> EncoderChoice:
    return EncoderChoice(name=f"{__name__}:{function}", params=params)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("slides") / "a.svs", Shape(y=600, x=900), seed=1)


def rows(out: Path, name: str) -> np.ndarray:
    with xr.open_datatree(out / "a.svs.features.zarr", engine="zarr") as tree:
        return np.asarray(tree["tile"][name].values)


def test_each_gives_what_it_gives_alone(slide: Path, tmp_path: Path) -> None:
    assert embed(slide, tmp_path / "both", choice("means"), choice("sums", name="total")).exit_code() == 0
    for name, other in (("means", {}), ("sums", {"name": "total"})):
        assert embed(slide, tmp_path / name, choice(name, **other)).exit_code() == 0
    np.testing.assert_array_equal(rows(tmp_path / "both", "means"), rows(tmp_path / "means", "means"))
    np.testing.assert_array_equal(rows(tmp_path / "both", "total"), rows(tmp_path / "sums", "total"))
    status = rows(tmp_path / "both", "total_status")
    assert set(status.tolist()) > {0}  # where one has no value the other has one
    assert not rows(tmp_path / "both", "means_status").any()
    with xr.open_datatree(tmp_path / "both" / "a.svs.features.zarr", engine="zarr") as tree:
        contract = tree["tile"]["means"].attrs["contract"]
        assert {"px", "dim"} <= set(tree["tile"]["total"].attrs["contract"])
    assert (contract["px"], contract["mpp"], contract["pooling"]) == (128, 0.5, "mean of pixels")
    said = json.loads((tmp_path / "both" / "report.json").read_text())["options"]
    assert said["encoders"] == [
        {"name": f"{__name__}:means"},
        {"name": f"{__name__}:sums", "params": {"name": "total"}},
    ]
    assert said["chain"] == {}


def test_a_second_run_goes_on_and_another_contract_is_refused_with_what_differs(slide: Path, tmp_path: Path) -> None:
    assert embed(slide, tmp_path, choice("means")).exit_code() == 0
    before = stores(tmp_path)
    assert embed(slide, tmp_path, choice("means")).exit_code() == 0
    assert stores(tmp_path) == before
    (row,) = embed(slide, tmp_path, choice("means", scale=0.5)).rows
    assert row.status == "failed"
    assert "stages.means.contract.scale 1.0 there, 0.5 now" in row.reason
    assert stores(tmp_path) == before


def test_slides_of_two_contracts_are_not_put_together(slide: Path, tmp_path: Path) -> None:
    other = write_slide(tmp_path / "b.svs", Shape(y=300, x=300), seed=2)
    embed(slide, tmp_path / "out", choice("means"))
    embed(other, tmp_path / "out", choice("means", mean=[10.0]))
    with pytest.raises(ConfigError, match="one set") as caught:
        ts.open_cohort(tmp_path / "out")
    assert "stage.contract.mean [] in `a.svs`, [10.0] in `b.svs`" in str(caught.value)


def make_flat() -> Any:
    """A network that takes tiles of 128 px only."""
    import torch

    return torch.nn.Sequential(torch.nn.AvgPool2d(32), torch.nn.Flatten(), torch.nn.Linear(48, 4))


def test_tiles_of_another_size_are_refused_with_the_right_one(slide: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    record = {"name": "flat", "library": "callable", "model": f"{__name__}:make_flat", "px": 128, "mpp": 0.5, "dim": 4}
    (tmp_path / "flat.json").write_text(json.dumps({**record, "mean": [0.5] * 3, "std": [0.5] * 3}))
    flat = EncoderChoice(name=str(tmp_path / "flat.json"), params={"random_weights": 0})
    assert embed(slide, tmp_path / "right", flat).exit_code() == 0
    (row,) = embed(slide, tmp_path / "wrong", flat, tile_px=64).rows
    assert row.status == "failed"
    assert "tiles of 128 px, as its contract says" in row.reason


def test_two_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 encoders called `a`"):
        require_different(["a", "b", "a"])


def tiles(px: int, mpp: float | None, *, is_free: bool = False) -> Geometry:
    return Geometry(px=px, mpp=mpp, needs_mpp=mpp is not None, is_free=is_free)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([tiles(224, 0.5), tiles(224, 0.5)], (224, 0.5)),
        ([tiles(256, 0.5, is_free=True), tiles(512, 0.25, is_free=True)], (512, 0.25)),
        ([tiles(512, 0.25, is_free=True), tiles(256, 0.5)], (256, 0.5)),
        ([tiles(224, 0.5714, is_free=True), tiles(256, 0.5)], (256, 0.5)),
        ([tiles(64, None), tiles(64, None)], (64, None)),
        ([tiles(256, 0.5), tiles(224, 0.5)], None),
        ([tiles(256, 0.5, is_free=True), tiles(224, 0.5)], None),
        ([tiles(64, None, is_free=True), tiles(32, None)], None),
        ([tiles(64, None), tiles(64, 0.5)], None),
    ],
)
def test_tiles_that_suit_all(wanted: list[Geometry], expected: tuple[int, float | None] | None) -> None:
    names = [f"e{k}" for k in range(len(wanted))]
    if expected is None:
        with pytest.raises(ConfigError, match=r"`e0` for tiles of .* px .*, `e1` for tiles of"):
            shared_geometry(names, wanted)
    else:
        found = shared_geometry(names, wanted)
        assert (found.px, found.mpp) == expected
