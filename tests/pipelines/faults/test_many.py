"""Very many images in one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from distributed import Client
from PIL import Image

from tests.pipelines.faults.runs import embed
from tilestream.stream.engine import Event

IMAGES = 80


@pytest.mark.slow
def test_small_images_beside_one_that_somebody_else_works_on(client: Client, slide: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    (folder / "0.svs").write_bytes(slide.read_bytes())
    for number in range(IMAGES):
        Image.fromarray(np.full((64, 64, 3), number, np.uint8)).save(folder / f"{number:04}.png")
    order: list[str] = []
    memory: list[int] = []
    leases: list[Any] = []

    def hear(event: Event) -> None:
        if event.kind == "prepared" and event.job.key == "0.svs" and event.prepared is not None:
            leases.append(event.prepared.work.journal.claim("L0-y2-x2"))
        if event.kind == "finished":
            order.append(event.job.key)
            memory.append(psutil.Process().memory_info().rss)
            if len(order) == IMAGES:
                with leases[0]:
                    pass

    assert embed(client, folder, out, on_event=hear).exit_code() == 0
    assert order[-1] == "0.svs"  # one image that waits does not hold up the others
    assert len(order) == IMAGES + 1
    assert memory[-1] - memory[30] < 16 << 20
