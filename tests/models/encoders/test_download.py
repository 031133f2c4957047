from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest

from tilestream.errors import ConfigError
from tilestream.models.encoders import download
from tilestream.models.encoders.record import EncoderRecord, ready_records

COMMIT = "0123456789" * 4


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, ...]]:
    """A hub on no network: what it was asked for."""
    found: list[tuple[Any, ...]] = []

    def one(repository: str, file: str, *, revision: str | None) -> str:
        found.append((repository, file, revision))
        if "Virchow" in repository:
            raise PermissionError("403: ask for access")
        path = tmp_path / "snapshots" / COMMIT / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"weights")
        return str(path)

    def several(repository: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        found.append((repository, tuple(allow_patterns), revision))
        return str(tmp_path / "snapshots" / COMMIT)

    hub = types.SimpleNamespace(hf_hub_download=one, snapshot_download=several)
    monkeypatch.setattr(download, "import_library", lambda name: hub)
    download._fetched.cache_clear()
    return found


@pytest.mark.parametrize(("place", "revision"), [("download", None), ("download@v2", "v2")])
def test_file_of_a_revision_is_fetched_and_pinned(asked: Any, place: str, revision: str | None) -> None:
    record = ready_records()["uni2-h"]
    assert download.pin(record, place) == f"download@{COMMIT}"
    assert asked == [("MahmoodLab/UNI2-h", "pytorch_model.bin", revision)]
    assert download.fetched(record, place).read_bytes() == b"weights"
    assert len(asked) == 1


def test_model_of_transformers_is_fetched_without_its_code(asked: Any) -> None:
    download.fetched(ready_records()["phikon-v2"], "download")
    ((repository, patterns, _),) = asked
    assert repository == "owkin/phikon-v2"
    assert not any(pattern.endswith(".py") for pattern in patterns)


def test_refused_access_says_where_to_ask(asked: Any) -> None:
    with pytest.raises(ConfigError, match=r"403.*ask for it at https://huggingface\.co/paige-ai/Virchow2"):
        download.fetched(ready_records()["virchow2"], "download")


def test_unknown_repository_is_said(asked: Any) -> None:
    record = EncoderRecord(name="a", library="timm", model="b")
    with pytest.raises(ConfigError, match="no repository"):
        download.fetched(record, "download")
    assert not asked


@pytest.mark.parametrize(("place", "found"), [("download", True), ("download@x", True), ("downloads/a.pth", False)])
def test_word(place: str, found: bool) -> None:
    assert download.is_download(place) is found
