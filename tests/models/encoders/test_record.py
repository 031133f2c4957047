from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tilestream.errors import ConfigError
from tilestream.models.encoders.record import read_record, ready_records, record_of, variable_name

PEOPLE_USE = (
    "uni uni2-h virchow virchow2 conch conch-v1.5 h-optimus-0 h-optimus-1 h0-mini gigapath phikon-v2 midnight-12k"
)


def test_ready_records_are_there() -> None:
    assert set(PEOPLE_USE.split()) | {"prithvi-eo-2.0-300m", "dofa-base"} <= set(ready_records())


@pytest.mark.parametrize("name", sorted(ready_records()))
def test_ready_record_is_whole(name: str) -> None:
    record = ready_records()[name]
    assert record.name == name
    assert record.source is not None
    assert record.source.startswith("https://")
    if name == "dofa-base":  # whose scaling is the sensor's
        return
    channels = record.channels if isinstance(record.channels, tuple) else ("r", "g", "b")
    assert record.mean is not None
    assert record.std is not None
    assert len(record.mean) == len(record.std) == len(channels)
    assert record.px is not None
    assert record.dim is not None
    assert record.licence is not None
    assert record.mpp is not None or record.scale == 1.0


def test_record_survives_json() -> None:
    for record in ready_records().values():
        assert record_of(json.loads(json.dumps(record.to_json())), what="it") == record


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"name": "a", "library": "timm"}, "no `model`"),
        ({"name": "a", "library": "tf", "model": "b"}, "tf"),
        ({"name": "a", "library": "timm", "model": "b", "pooling": "max"}, "max"),
        ({"name": "a", "library": "timm", "model": "b", "size": 3}, "size"),
        ([], "list"),
    ],
)
def test_wrong_record_is_refused(document: Any, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=reason):
        read_record(path)


def test_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text("{")
    with pytest.raises(ConfigError, match=r"mine\.json"):
        read_record(tmp_path / "mine.json")


@pytest.mark.parametrize(
    ("text", "name"),
    [("timm/vit_small", "vit_small"), ("a b/c d+e", "c_d_e"), ("ViT-B-32", "ViT-B-32"), ("//", "encoder")],
)
def test_variable_name(text: str, name: str) -> None:
    assert variable_name(text) == name
