"""What cannot be sent to workers is refused before anything is written, and models go where devices are."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tilestream.errors import ConfigError
from tilestream.pipelines.encoder import encoder_spec, profile_for
from tilestream.pipelines.map import map_tiles
from tilestream.plan.tiles import plan_tiles
from tilestream.pyramid.pyramid import open_pyramid
from tilestream.types import StageSpec, SuperTile


def model(x: Any) -> Any:
    """Return the mean of each channel of a tensor."""
    return x.float().mean(dim=(2, 3))


model.contract = {"px": 64, "framework": "torch"}  # type: ignore[attr-defined]


class Sink:
    """Holds what cannot be pickled, or nothing."""

    def __init__(self, held: object = None) -> None:
        self.held = held

    def write(self, unit: SuperTile, results: Any) -> dict[str, str]:
        return {}

    def finish(self, receipts: Any) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    ("stage", "sink", "says"),
    [
        (lambda x: x, Sink(), "stage: got a function, expected a registered name, `module:callable`"),
        (StageSpec(target="entropy", params={"f": print}), Sink(), "parameters of `entropy`: got Object of type"),
        ("entropy", Sink(threading.Lock()), "sink `Sink`: got TypeError: cannot pickle"),
        ("entropy", Sink(lambda: None), "sink `Sink`: got .*pickle"),
    ],
)
def test_what_cannot_be_sent_to_workers(stage: Any, sink: Sink, says: str, tmp_path: Path) -> None:
    pyramid = open_pyramid(np.zeros((300, 300, 3), np.uint8))
    plan = plan_tiles(pyramid, where="all")
    with pytest.raises(ConfigError, match=says):
        map_tiles(pyramid, plan, stage, sink, receipts=tmp_path / "receipts")
    assert not (tmp_path / "receipts").exists()


@pytest.mark.parametrize("visible", [(), ("0",)])
def test_models_go_where_devices_are(visible: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tilestream.cluster.client.visible_devices", lambda: visible)
    assert profile_for(encoder_spec(f"{__name__}:model", {})) == ("gpus" if visible else "threads")
    assert profile_for(encoder_spec("handcrafted", {})) == "threads"
