"""What is opened by which family, and what is said of what cannot be."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from tilestream.errors import ConfigError, SourceError, TilestreamError
from tilestream.sources.address import parse_address
from tilestream.sources.opening import open_source
from tilestream.sources.openslide import block_edge

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:d3eea0\nsize 3630\n"


def save_png(path, shape=(5, 7, 3)):
    Image.fromarray(np.arange(np.prod(shape)).astype(np.uint8).reshape(shape)).save(path, format="PNG")
    return path


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("gone.svs", None, "nothing there"),
        ("empty.svs", b"", "empty file"),
        ("letters.svs", b"these are letters\n" * 20, "360 bytes of text"),
        ("page.html", b"<html>not found</html>", "22 bytes of text"),
        ("umlaut.txt", ("ä" * 700).encode(), "1,400 bytes of text"),
        ("pointer.tif", LFS, "git lfs pull"),
        ("pointer.zarr.json", LFS, "git lfs pull"),
        ("archive.ndpi", b"PK\3\4" + bytes(100), "a zip archive"),
        ("noise.svs", b"\x93\x01\x02\x03\x04\x05\x06\x07" * 9, "begin with 93 01 02 03"),
    ],
)
def test_files_that_are_no_images(tmp_path, name, content, said):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError) as caught:
        open_source(str(path))
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("random-text.svs", "1,001 bytes of text"),
        ("not_enough_data.jp2", "is cut"),
        ("truncated_jpeg.jpg", "no end marker"),
        ("lfs-pointers.zarr", "git lfs pull"),
    ],
)
def test_broken_files_of_the_collection(shared_data, name, said):
    with pytest.raises(SourceError, match=said):
        open_source(str(shared_data / "broken" / name))


def test_a_folder_that_is_no_image(tmp_path):
    with pytest.raises(SourceError, match="an empty folder"):
        open_source(str(tmp_path))
    save_png(tmp_path / "a.png")
    with pytest.raises(SourceError, match="no image itself"):
        open_source(str(tmp_path))


def test_content_counts_before_suffix(tmp_path):
    path = save_png(tmp_path / "slide.svs")
    assert open_source(str(path)).info.format == "png"
    assert open_source(str(save_png(tmp_path / "bare"))).info.format == "png"


def test_a_family_can_be_forced(tmp_path):
    path = save_png(tmp_path / "a.png")
    assert open_source(str(path), source="raster").info.format == "png"
    with pytest.raises(SourceError):
        open_source(str(path), source="tiff")
    with pytest.raises(ConfigError, match="unknown name"):
        open_source(str(path), source="nothing")


def test_a_family_of_another_package(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def opener(file):\n    return file.name\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert open_source(str(save_png(tmp_path / "a.png")), source="mine:opener") == "a.png"


def test_remote_files_open_like_local_ones(tmp_path):
    import fsspec

    expected = open_source(str(save_png(tmp_path / "a.png")))
    memory = fsspec.filesystem("memory")
    memory.pipe("/opening/a.png", (tmp_path / "a.png").read_bytes())
    remote = open_source("memory://opening/a.png")
    np.testing.assert_array_equal(remote.read_block(0, 0, 0).pixels, expected.read_block(0, 0, 0).pixels)
    assert remote.info.fingerprint == expected.info.fingerprint
    with pytest.raises(SourceError):
        open_source("memory://opening/gone.png")


def test_ndpi_cut_anywhere_fails_or_is_damaged(shared_data, tmp_path):
    """OpenSlide is all that reads it: a cut file must not open, or must not give the same number of pixels as whole."""
    data = (shared_data / "slides/test3-DAPI-2-387.ndpi").read_bytes()
    for share in (0.0, 0.1, 0.5, 0.9, 0.999):
        path = tmp_path / f"cut{share}.ndpi"
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(SourceError):
            open_source(str(path))


def test_the_handle_is_reopened_after_an_error(shared_data, tmp_path, monkeypatch):
    import openslide

    path = tmp_path / "a.ndpi"
    shutil.copy(shared_data / "slides/test3-DAPI-2-387.ndpi", path)
    source = open_source(str(path))
    good = source.read_block(6, 0, 0).pixels

    def fail(*_):
        raise openslide.OpenSlideError("made to fail")

    with monkeypatch.context() as patch:
        patch.setattr(openslide.OpenSlide, "read_region", fail)
        with pytest.raises(TilestreamError, match="made to fail"):
            source.read_block(6, 0, 0)
    opened = []
    real = openslide.OpenSlide.__init__
    monkeypatch.setattr(openslide.OpenSlide, "__init__", lambda self, name: opened.append(name) or real(self, name))
    np.testing.assert_array_equal(source.read_block(6, 0, 0).pixels, good)
    assert opened == [str(path)]


def test_openslide_is_for_local_files(shared_data):
    import fsspec

    fsspec.filesystem("memory").pipe("/opening/a.mrxs", b"\xff\xd8\xff\xe0")
    with pytest.raises(SourceError, match="Copy it"):
        open_source("memory://opening/a.mrxs")


@pytest.mark.parametrize("name", ["label", "macro"])
def test_label_and_macro_are_refused(shared_data, name):
    with pytest.raises(SourceError, match="identify a patient"):
        open_source(str(shared_data / "slides/test3-DAPI-2-387.ndpi")).read_associated(name)


@pytest.mark.parametrize(
    ("downsample", "edge"), [(1.0, 1024), (4.0, 1024), (1.5, 1024), (2 + 2**-11, 2048), (4.00018, 4096), (3.1, 4096)]
)
def test_blocks_start_on_whole_pixels(downsample, edge):
    assert block_edge(downsample) == edge


@pytest.mark.parametrize(
    ("text", "url", "index", "kind"),
    [
        ("a.zarr", "a.zarr", {}, None),
        ("a.zarr#t=3", "a.zarr", {"t": 3}, None),
        ("s3://b/a.zarr#t=3&z=0&kind=labels", "s3://b/a.zarr", {"t": 3, "z": 0}, "labels"),
        ("odd#name.zarr#kind=intensity", "odd#name.zarr", {}, "intensity"),
    ],
)
def test_addresses(text, url, index, kind):
    address = parse_address(text)
    assert (address.url, dict(address.index), address.kind) == (url, index, kind)


@pytest.mark.parametrize("text", ["a.zarr#", "a.zarr#t", "a.zarr#t=-1", "a.zarr#t=x", "a.zarr#kind=cells", "a#t=²"])
def test_selections_that_make_no_sense(text):
    with pytest.raises(ConfigError, match="axis=number"):
        parse_address(text)


def test_a_name_that_holds_the_sign(tmp_path):
    path = save_png(tmp_path / "block#t=1")
    assert open_source(str(path)).info.format == "png"


@pytest.mark.parametrize("selection", ["t=0", "z=1"])
def test_axes_that_do_not_exist(tmp_path, selection):
    with pytest.raises(ConfigError, match="does not have"):
        open_source(f"{save_png(tmp_path / 'a.png')}#{selection}")


def test_kind_is_the_users_word(tmp_path):
    source = open_source(f"{save_png(tmp_path / 'a.png')}#kind=labels")
    assert source.info.kind == "labels"
    assert source.isel().info.kind == "labels"
    assert source.read_block(0, 0, 0).pixels.shape == (5, 7, 3)
