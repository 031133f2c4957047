"""A torch module as the encoder of the main job."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from tests.pipelines.faults.runs import embed, stores
from tilestream.cluster.client import open_client
from tilestream.testing.slide import write_slide
from tilestream.types import Shape

torch = pytest.importorskip("torch")

ENCODER = "tests.pipelines.smallmodel:SmallModel"


def test_a_module_gives_the_same_bits_however_many_tasks_and_threads_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.pipelines.smallmodel import SmallModel

    slide = write_slide(tmp_path / "made.svs", Shape(y=1200, x=1500), seed=3)
    found = []
    for number, (profile, cores) in enumerate((("threads:2", 2), ("threads:1", 1), ("threads:1", 4))):
        monkeypatch.setattr("tilestream.stream.work.usable_cores", lambda cores=cores: cores)
        with open_client(profile) as client:
            outcome = embed(client, slide, tmp_path / f"{number}", encoder=ENCODER, super_tile_px=1024, batch=4)
        assert outcome.exit_code(strict=True) == 0, outcome.rows[0].reason
        decoded_ahead = "wait" in outcome.rows[0].seconds
        assert decoded_ahead == (cores > int(profile[-1]) or torch.cuda.is_available())
        found.append(stores(tmp_path / f"{number}"))
    assert found[0] == found[1] == found[2]
    with xr.open_datatree(tmp_path / "0" / "made.svs.features.zarr", engine="zarr") as tree:
        vectors = tree["tile"]["small"].values
        y, x = int(tree["tile"]["y"].values[3]), int(tree["tile"]["x"].values[3])
    with xr.open_datatree(slide, engine="tilestream") as tree:
        tile = tree["0/image"].values[:, y : y + 256, x : x + 256]
    samples = (
        torch.from_numpy(tile[None].astype("f4") / 255) - torch.tensor([0.7, 0.5, 0.7]).reshape(1, 3, 1, 1)
    ) / 0.2
    with torch.inference_mode():
        np.testing.assert_allclose(vectors[3], SmallModel()(samples).numpy()[0], rtol=1e-4, atol=1e-5)
