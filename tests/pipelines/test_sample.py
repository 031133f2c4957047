import hashlib
import socket
from pathlib import Path
from typing import ClassVar

import pytest
import requests

from tilestream.pipelines import sample
from tilestream.pipelines.sample import SLIDE_NAME, SLIDE_SHA256, download_slide, find_sample, find_scene, make_slide
from tilestream.pyramid import open_pyramid
from tilestream.types import Shape


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise requests.ConnectionError("Name or service not known")

    monkeypatch.setattr(requests, "get", refuse)
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / "cache")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "SYNTHETIC", Shape(y=300, x=300))


def test_a_named_slide_is_taken_as_it_is(tmp_path: Path) -> None:
    found = find_sample("somewhere/my slide.svs", tmp_path)
    assert found.path == Path("somewhere/my slide.svs")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("no_network")
def test_without_network_the_folder_of_images_is_used(tmp_path: Path) -> None:
    (tmp_path / "data" / "slides").mkdir(parents=True)
    (tmp_path / "data" / "slides" / SLIDE_NAME).write_bytes(b"slide")
    found = find_sample(None, tmp_path / "out", environ={"TILESTREAM_DATA": str(tmp_path / "data")})
    assert found.path.read_bytes() == b"slide"
    assert "could not be downloaded (Name or service not known)" in found.origin


@pytest.mark.usefixtures("no_network", "small")
def test_with_nothing_a_slide_is_made_and_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    found = find_sample(None, tmp_path / "out", environ={})
    assert found.path.is_file()
    assert "not a real one" in found.origin
    assert [path.name for path in found.path.parent.iterdir()] == ["synthetic.svs"]


@pytest.mark.usefixtures("small")
def test_a_made_slide_is_kept(tmp_path: Path) -> None:
    first = make_slide(tmp_path)
    time, size = first.stat().st_mtime_ns, first.stat().st_size
    again = make_slide(tmp_path)
    assert (again.stat().st_mtime_ns, again.stat().st_size) == (time, size)


def test_a_download_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Answer:
        headers: ClassVar = {"content-length": "5"}

        def raise_for_status(self) -> None: ...

        def iter_content(self, chunk_size: int) -> list[bytes]:
            return [b"wrong"]

        def close(self) -> None: ...

    monkeypatch.setattr(requests, "get", lambda *args, **kwargs: Answer())
    with pytest.raises(ValueError, match="hash"):
        download_slide(tmp_path / "cache")
    assert not (tmp_path / "cache" / SLIDE_NAME).exists()


def test_a_cached_download_needs_no_network(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *args, **kwargs: pytest.fail("went to the network"))
    (tmp_path / SLIDE_NAME).write_bytes((shared_data / "slides" / SLIDE_NAME).read_bytes())
    assert hashlib.sha256(download_slide(tmp_path).read_bytes()).hexdigest() == SLIDE_SHA256


def test_scenes_and_slides_without_a_download(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *args, **kwargs: pytest.fail("went to the network"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tilestream.pipelines.sample.SYNTHETIC_SCENE", Shape(y=90, x=120))
    here = {"TILESTREAM_DATA": str(shared_data)}
    slide = find_sample(None, tmp_path, environ=here, download=False)
    assert slide.path == shared_data / "slides" / SLIDE_NAME
    assert "not wanted" in slide.origin
    real, made = find_scene(tmp_path, environ=here), find_scene(tmp_path, environ={})
    for scene, is_made in ((real, False), (made, True)):
        assert ("made by code" in scene.origin) == is_made
        names = {channel.name for channel in open_pyramid(scene.path).channels}
        assert {"blue", "green", "red", "nir"} <= names
    assert find_scene(tmp_path, environ={}).path == made.path
