"""How busy a device is while JPEG tiles are decoded for it, beside the same model on a batch that lies there.

Besides what other device benchmarks need, this one needs the whole package: it reads, plans and decodes a slide.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from tests.bench.contestants import NullSink, all_tiles
from tests.bench.gigapixel import shape_of, write_gigapixel
from tests.bench.table import at_least, make_row, rates
from tilestream.models.runners import torch_device
from tilestream.pyramid.pyramid import open_pyramid
from tilestream.stream.journal import Journal
from tilestream.stream.supply import usable_cores
from tilestream.stream.work import TileWork, make_stage
from tilestream.types import StageContract, StageSpec

GIGAPIXELS = 2.0
BUSY_BAR = 0.9
"""Of the rate of the model alone: the device is idle for the rest."""
TILE_PX, PATCH_PX, BATCH = 256, 16, 128


class VisionTransformer(torch.nn.Module):
    """A ViT-S/16 (22 M weights, 12 blocks of 384 values) with fixed weights."""

    contract = StageContract(
        name="vit", px=TILE_PX, channels=3, dim=384, framework="torch", scale=1 / 255, dtype="bfloat16",
        mean=(0.7, 0.5, 0.7), std=(0.2, 0.2, 0.2),
    )  # fmt: skip

    def __init__(self, blocks: int = 12, width: int = 384) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = torch.nn.Conv2d(3, width, PATCH_PX, stride=PATCH_PX)
        self.place = torch.nn.Parameter(torch.randn(1, (TILE_PX // PATCH_PX) ** 2, width) / 50)
        block = torch.nn.TransformerEncoderLayer(
            width, width // 64, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = torch.nn.TransformerEncoder(block, blocks, enable_nested_tensor=False)

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(samples).flatten(2).transpose(1, 2) + self.place
        return self.blocks(tokens).mean(dim=1)


@lru_cache(maxsize=1)
def _alone() -> tuple[Any, torch.Tensor]:
    model = VisionTransformer().eval().to(torch_device(), torch.bfloat16)
    return model, torch.zeros(BATCH, 3, TILE_PX, TILE_PX, device=torch_device(), dtype=torch.bfloat16)


def model_alone(batches: int) -> int:
    """Return how many tiles the model did that lay on the device, scaled, from the start."""
    model, samples = _alone()
    with torch.inference_mode():
        for _ in range(batches):
            found = model(samples)
    float(found.sum())  # waits
    return batches * BATCH


def busy_row(path: Path, folder: Path, *, rounds: int, bar: float = BUSY_BAR) -> dict[str, Any]:
    """Return the rate of a ViT-S fed from a JPEG slide by this machine's cores, and its rate without feeding.

    Parameters
    ----------
    path : Path
        The slide.
    folder : Path
        For receipts.
    rounds : int
        How often each is measured.
    bar : float
        Least share of the rate alone.

    Returns
    -------
    dict
        One row.
    """
    pyramid = open_pyramid(path, cache_bytes=0)
    plan, cores, number = all_tiles(pyramid, TILE_PX), usable_cores(), count()
    spec = make_stage(StageSpec(target="callable", params={"target": f"{__name__}:VisionTransformer"})).for_image(
        pyramid.info
    )
    units = list(plan.start())

    def fed() -> float:
        journal = Journal(root=folder / f"receipts-{next(number)}", recipe="benchmark")
        journal.open({"made": "by a benchmark"})
        work = TileWork(
            pyramid=pyramid, stages={"vit": spec}, sink=NullSink(), journal=journal, batch=BATCH, tasks=cores
        )
        with ThreadPoolExecutor(cores) as tasks:
            return float(sum(receipt.tiles for receipt in tasks.map(work, units)))

    fed()
    model_alone(1)
    found = rates([fed, lambda: float(model_alone(-(-len(plan) // BATCH)))], rounds=rounds)
    return make_row(
        f"ViT-S fed from a JPEG slide, {cores} cores",
        found[0],
        "tiles/s",
        rival=("the model alone, on tiles that lie on the device", found[1]),
        bar=at_least(bar),
        note=f"{len(plan)} tiles of {TILE_PX} px, bfloat16, batches of {BATCH}, {torch_device()}; decoding, sending, "
        "scaling, receipts and fetching the vectors included; less than the bar is how long the device is idle",
    )


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    with TemporaryDirectory() as folder:
        path = write_gigapixel(Path(folder) / "slide.svs", shape_of(GIGAPIXELS))
        return [busy_row(path, Path(folder), rounds=3)]
