"""What people point the main job at: odd names, doubles, sidecars, masks, manifests, headers that promise too much."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import imagecodecs
import numpy as np
import psutil
import pytest
import tifffile

from tests.pipelines.conftest import Embed, Run
from tilestream.testing.slide import write_slide
from tilestream.types import Shape, TileStatus

NAMES = [
    "Ünï çödé.svs",
    "日本 スライド.svs",
    "slide #3.svs",
    "a%20b.svs",
    "[x]*?.svs",
    "-dash.svs",
    "two  spaces .svs",
    "semi;colon&t=1.svs",
    "quote'\"<b>.svs",
    "UPPER.SVS",
    "x@t=3.svs",
    os.fsdecode(b"latin\xe9.svs"),
]


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small slide of six tiles."""
    path = write_slide(tmp_path_factory.mktemp("slide") / "made.svs", Shape(y=500, x=600), seed=2)
    return path.read_bytes()


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def png(height: int, width: int, tone: tuple[int, int, int] = (190, 120, 170)) -> bytes:
    pixels = np.random.default_rng(0).normal(tone, 12, (height, width, 3)).clip(0, 255).astype(np.uint8)
    return bytes(imagecodecs.png_encode(pixels))


def reason(run: Run, path: str) -> str:
    row = run.rows[path]
    assert row["status"] == "failed", row
    text = str(row["reason"])
    assert "got" in text, text
    assert "expected" in text, text
    return text


def test_names_of_every_kind(embed: Embed, slide: bytes, tmp_path: Path) -> None:
    for name in NAMES:
        write(tmp_path / "in" / name, slide)
    run = embed(tmp_path / "in", "--where", "all")
    assert run.exit_code == 0, run.stderr
    assert run.paths("done") == set(NAMES)
    for name in NAMES:
        assert run.tree(name)["tile"].sizes["tile"] == 6
    html = (run.out / "report.html").read_text()
    assert "Ünï çödé.svs" in html
    assert "<b>.svs" not in html, "names are text, not markup"
    for name in ("slide #3.svs", "-dash.svs"):
        assert embed(f"{tmp_path}/in/{name}", "--where", "all", out=f"only {name}").paths("done") == {name}


def test_the_same_stem_twice_is_no_clash(embed: Embed, slide: bytes, tmp_path: Path) -> None:
    for path in ("p1/a.svs", "p2/a.svs", "a.svs", "a.svs.svs"):
        write(tmp_path / "in" / path, slide)
    write(tmp_path / "in" / "a.png", png(300, 300))
    run = embed(tmp_path / "in", "--where", "all")
    assert run.exit_code == 0
    assert run.paths("done") == {"a.png", "a.svs", "a.svs.svs", "p1/a.svs", "p2/a.svs"}
    named = embed(tmp_path / "in/p1/a.svs", tmp_path / "in/p2/a.svs", "--where", "all", out="named")
    assert len(named.paths("done")) == 2
    assert len(list(named.out.rglob("*.features.zarr"))) == 2


def test_what_is_reached_twice_is_done_once(embed: Embed, slide: bytes, tmp_path: Path) -> None:
    path = write(tmp_path / "in" / "a.svs", slide)
    (tmp_path / "in" / "link.svs").symlink_to(path)
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    run = embed(path, tmp_path / "in", tmp_path / "in" / "." / "a.svs", "--where", "all")
    assert run.exit_code == 0
    assert run.paths("done") == {"a.svs"}
    assert run.report["totals"]["tiles"] == 6


def test_sidecars_belong_to_their_image(embed: Embed, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(1, 200, (600, 600), np.uint8)
    tifffile.imwrite(folder / "scene.tif", pixels, tile=(256, 256), photometric="minisblack")
    tifffile.imwrite(folder / "scene.tif.ovr", pixels[::2, ::2], tile=(128, 128), photometric="minisblack")
    (folder / "scene.tif.aux.xml").write_text("<PAMDataset/>")
    (folder / "notes.txt").write_text("nothing to see")
    (folder / ".hidden.svs").write_text("nothing to see")
    run = embed(folder, "--where", "all")
    assert run.exit_code == 0, run.stderr
    assert run.paths("done") == {"scene.tif"}
    assert run.tree("scene.tif").attrs["image"]["levels_yx"] == [[600, 600], [300, 300]]
    ignored = {Path(path).name: run.rows[path]["reason"] for path in run.paths("ignored")}
    assert ignored == {
        "scene.tif.ovr": "overviews of scene.tif",
        "scene.tif.aux.xml": "metadata of scene.tif",
        "notes.txt": "no image: neither content nor suffix is known",
        ".hidden.svs": "hidden",
    }


def test_content_tells_before_suffix_and_a_named_file_is_never_ignored(
    embed: Embed, slide: bytes, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    write(folder / "scan.dat", slide)
    write(folder / "really-a-picture.tif", png(300, 300))
    write(folder / "notes.txt", b"nothing to see\n" * 20)
    run = embed(folder, folder / "notes.txt", "--where", "all")
    assert run.exit_code == 3
    assert run.paths("done") == {"scan.dat", "really-a-picture.tif"}
    assert "text" in reason(run, "notes.txt")
    assert not run.paths("ignored")


@pytest.mark.parametrize(
    ("content", "got"),
    [((), "got an empty folder,"), (("a.txt",), "no image among 1 file,"), (("a.txt", "b.txt"), "among 2 files,")],
)
def test_nothing_to_do_is_said_in_one_line(embed: Embed, tmp_path: Path, content: tuple[str, ...], got: str) -> None:
    (tmp_path / "in").mkdir()
    for name in content:
        (tmp_path / "in" / name).write_text("nothing to see")
    run = embed(tmp_path / "in")
    assert run.exit_code == 2
    (line,) = run.stderr.splitlines()
    assert got in line
    assert "expected at least one" in line
    assert not run.out.exists()


@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "test3-DAPI-2-387.ndpi", "camelyon-jpeg2000.dcm"])
def test_the_outline_of_a_run_gives_the_same_tiles(embed: Embed, everything: Run, shared_data: Path, name: str) -> None:
    outline = everything.out / f"{name}.tissue.geojson"
    again = embed(shared_data / "slides" / name, "--where", outline)
    assert again.exit_code == 0, again.stderr
    first, second = everything.tree(name), again.tree(name)
    for variable in ("x", "y", "status", "handcrafted", "entropy"):
        np.testing.assert_array_equal(first["tile"][variable].values, second["tile"][variable].values)
    np.testing.assert_array_equal(first["slide"].handcrafted.values, second["slide"].handcrafted.values)
    document = json.loads(outline.read_text())
    assert document["features"]
    (again.out / "edited.geojson").write_text(json.dumps({**document, "features": []}))
    nothing = embed(shared_data / "slides" / name, "--where", again.out / "edited.geojson", out="nothing")
    assert nothing.rows[name]["tiles"] == 0


def test_one_file_does_not_say_where_on_many_images(embed: Embed, slide: bytes, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / "in" / f"{name}.svs", slide)
    (tmp_path / "outline.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    run = embed(tmp_path / "in", "--where", tmp_path / "outline.geojson")
    assert run.exit_code == 2
    assert "one file for 2 images" in run.stderr
    assert "column `mask`" in run.stderr


def test_a_mask_of_another_size_fails_its_image_alone(embed: Embed, slide: bytes, tmp_path: Path) -> None:
    for name in ("good", "other", "cut"):
        write(tmp_path / "in" / f"{name}.svs", slide)
    mask = np.zeros((50, 60, 3), np.uint8)
    mask[:25, :30] = 255
    write(tmp_path / "masks" / "good.png", bytes(imagecodecs.png_encode(mask)))
    write(tmp_path / "masks" / "other.png", bytes(imagecodecs.png_encode(mask[:, :50])))
    write(tmp_path / "masks" / "cut.png", bytes(imagecodecs.png_encode(mask))[:-40])
    rows = "".join(f"in/{name}.svs,masks/{name}.png\n" for name in ("good", "other", "cut"))
    (tmp_path / "cohort.csv").write_text(f"path,mask\n{rows}")
    run = embed("--manifest", tmp_path / "cohort.csv")
    assert run.exit_code == 3
    assert run.paths("done") == {"in/good.svs"}
    assert sorted(run.tree("in/good.svs")["tile"].y.values.tolist()) == [0, 0]
    text = reason(run, "in/other.svs")
    assert all(word in text for word in ("other.png", "50 x 50 px", "500 x 600", "uncropped")), text
    assert "cut.png" in reason(run, "in/cut.svs")
    assert [path.name for path in (run.out / "in").glob("*.features.zarr")] == ["good.svs.features.zarr"]


def test_a_manifest_overrides_resolution_bands_and_mask(embed: Embed, shared_data: Path, tmp_path: Path) -> None:
    scene, tile = "satellite/S2A_29RKH_20200219_0_L2A", "slides/labelled-tiles/high-nuclei-score-level0.png"
    (tmp_path / "cohort.csv").write_text(
        "path;id;mpp;bands;label\n"
        f"{shared_data / scene};scene;;nir red;desert\n"
        f"{shared_data / tile};dense;0.25;;\n"
        "no/such.svs;gone;;;\n"
    )
    run = embed("--manifest", tmp_path / "cohort.csv")
    assert run.exit_code == 3
    assert len(run.paths("done")) == 2
    assert "cohort.csv line 4: `no/such.svs` matches nothing" in run.stdout + run.stderr
    (bands,) = (run.tree(path) for path in run.paths("done") if path.endswith("L2A"))
    assert [channel["name"] for channel in bands.attrs["image"]["channels"]] == ["nir", "red"]
    assert {str(name).split("_")[0] for name in bands["tile"].feature_handcrafted.values} == {"nir", "red", "luma"}
    (dense,) = (run.tree(path) for path in run.paths("done") if path.endswith("png"))
    assert dense.attrs["mpp"] == pytest.approx(0.5)
    assert dense.attrs["image"]["mpp_yx"] == [0.25, 0.25]
    assert dense["tile"].sizes["tile"] == 4  # 956 x 779 px at half the resolution


def test_bands_that_do_not_exist_fail_with_the_names_that_do(embed: Embed, shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "cohort.csv").write_text(f"path,bands\n{shared_data / 'satellite' / 'RGB.byte.tif'},nir\n")
    run = embed("--manifest", tmp_path / "cohort.csv")
    assert run.exit_code == 3
    (path,) = run.paths("failed")
    assert "nir" in reason(run, path)
    assert "R" in reason(run, path)


def absurd_tiff(path: Path) -> Path:
    """A BigTIFF of 2^31 x 2^31 px whose table of tiles would hold 2^46 entries."""
    tags = [(256, 4, 1, 2**31 - 1), (257, 4, 1, 2**31 - 1), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(277, 3, 1, 1), (322, 4, 1, 256), (323, 4, 1, 256), (324, 16, 2**46, 512), (325, 16, 2**46, 512)]
    entries = b"".join(struct.pack("<HHQQ", *tag) for tag in tags)
    head = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16)
    return write(path, head + struct.pack("<Q", len(tags)) + entries + struct.pack("<Q", 0) + bytes(512))


def absurd_strip(path: Path) -> Path:
    """A TIFF of one strip of 4 GPx x 4 channels."""
    tags = [(256, 4, 1, 2**16), (257, 4, 1, 2**16), (258, 3, 1, 16), (259, 3, 1, 5), (262, 3, 1, 2)]
    tags += [(273, 4, 1, 300), (277, 3, 1, 4), (278, 4, 1, 2**16), (279, 4, 1, 40)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return write(path, b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(400))


def absurd_png(path: Path) -> Path:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return write(path, b"\x89PNG\r\n\x1a\n" + data)


def absurd_jpeg(path: Path) -> Path:
    data = bytearray(imagecodecs.jpeg8_encode(np.zeros((16, 16, 3), np.uint8)))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = b"\xff\xff\xff\xff"
    return write(path, bytes(data))


def absurd_jp2(path: Path) -> Path:
    data = bytearray(imagecodecs.jpeg2k_encode(np.zeros((32, 32, 3), np.uint8), codecformat="jp2"))
    at = data.index(b"ihdr") + 4
    data[at : at + 8] = b"\x7f\xff\xff\xff\x7f\xff\xff\xff"
    siz = data.index(b"\xff\x51") + 6
    data[siz : siz + 8] = b"\x7f\xff\xff\xff\x7f\xff\xff\xff"
    return write(path, bytes(data))


ABSURD: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "tiles.tif": (absurd_tiff, ["tag 324 with 70368744177664 values", "at most"]),
    "strip.tif": (absurd_strip, ["34359738368 decoded bytes", "Rewrite the image with tiles"]),
    "absurd.png": (absurd_png, ["2,147,483,647 x 2,147,483,647 pixels over 69 bytes", "at most 8 GiB"]),
    "absurd.jpg": (absurd_jpeg, ["65,535 x 65,535 pixels", "at most 8 GiB"]),
    "absurd.jp2": (absurd_jp2, ["2,147,483,647 x 2,147,483,647 pixels", "at most 8 GiB"]),
}
"""Name → how it is made, and what its reason says."""


def test_absurd_dimensions_fail_and_are_not_allocated(embed: Embed, tmp_path: Path) -> None:
    for name, (make, _) in ABSURD.items():
        make(tmp_path / "in" / name)
    write(tmp_path / "in" / "good.png", png(300, 300))
    before = psutil.Process().memory_info().rss
    run = embed(tmp_path / "in", "--where", "all")
    assert psutil.Process().memory_info().rss - before < 400 << 20
    assert run.exit_code == 3
    assert run.paths("done") == {"good.png"}
    for name, (_, words) in ABSURD.items():
        text = reason(run, name)
        assert all(word in text for word in words), text
        assert not list(run.out.glob(f"{name}*"))


CUT = {
    "slides/CMU-1-Small-Region.svs": "svs",
    "slides/OS-1-detail.ome.tif": "ome.tif",
    "slides/camelyon-jpeg2000.dcm": "dcm",
    "satellite/cogeo.tif": "tif",
    "satellite/cog_nodata.tif": "cog.tif",
    "satellite/RGB.byte.tif": "strips.tif",
    "satellite/S2_L2A_19UDP_20170729_TCI.jp2": "jp2",
    "slides/labelled-tiles/tcga-red-pen.png": "png",
    "slides/test3-DAPI-2-387.ndpi": "ndpi",
}
"""Real file → ending of its cut copies."""


def test_a_file_cut_anywhere_fails_or_counts_what_is_missing(embed: Embed, shared_data: Path, tmp_path: Path) -> None:
    """Whatever is missing shows: as a failed file with its reason, or as damaged tiles with theirs."""
    for name, ending in CUT.items():
        data = (shared_data / name).read_bytes()
        for percent in (0, 1, 20, 50, 80, 97):
            write(tmp_path / "in" / f"{percent:02}" / f"cut.{ending}", data[: len(data) * percent // 100])
    run = embed(tmp_path / "in", "--where", "all")
    assert run.exit_code == 3
    assert len(run.rows) == len(CUT) * 6
    for path, row in run.rows.items():
        if row["status"] == "done":
            assert row["tiles_damaged"] > 0, path
            assert all(listed["reason"].startswith("block y=") for listed in row["damaged"]["listed"])
            tile = run.tree(path)["tile"]
            assert (tile.status.values == TileStatus.DAMAGED).sum() == row["tiles_damaged"]
            assert np.isnan(tile.entropy.values[tile.status.values == TileStatus.DAMAGED]).all()
        else:
            assert reason(run, path)
            assert not list(run.out.glob(f"{path}*"))
    for percent, least in (("50", 1), ("80", 20), ("97", 60)):
        row = run.rows[f"{percent}/cut.cog.tif"]
        assert row["tiles"] - row["tiles_damaged"] >= least, "the first tiles of a COG are there"


def test_nothing_that_a_user_gave_is_touched(embed: Embed, slide: bytes, tmp_path: Path) -> None:
    """Images, their folder, and what lies in the output folder already."""
    write(tmp_path / "in" / "a.svs", slide)
    write(tmp_path / "in" / "bad.svs", b"text " * 99)
    for name in (
        "thesis.doc",
        "a.svs.features.zarr.bak/x",
        "receipts/mine.txt",
        "report/mine.html",
        "b.svs.features.zarr/x",
    ):
        write(tmp_path / "out" / name, name.encode())
    before = {path: sha256(path.read_bytes()).digest() for path in tmp_path.rglob("*") if path.is_file()}
    for options in ((), ("--no-resume",), ("--no-resume", "--tile", "128")):
        assert embed(tmp_path / "in", "--where", "all", *options).exit_code == 3
        assert {path: sha256(path.read_bytes()).digest() for path in before} == before
    write(tmp_path / "in" / "b.svs", slide)
    run = embed(tmp_path / "in", "--where", "all", "--no-resume")
    assert "has not written" in reason(run, "b.svs")
    assert run.paths("done") == {"a.svs"}
    assert {path: sha256(path.read_bytes()).digest() for path in before} == before


def test_outputs_in_the_folder_of_the_images_are_no_inputs(embed: Embed, slide: bytes, tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.svs", slide)
    for _ in range(2):
        run = embed(tmp_path / "in", "--where", "tissue", out="in")
        assert run.exit_code == 0
        assert run.paths("done") == {"a.svs"}
        assert not run.paths("failed")
