"""What counts as an input, what belongs to one, and what is ignored once with its reason."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.sources.madedicom import save_dicom
from tests.sources.madescene import landsat_groups, noise, save_band, save_landsat, save_mtl, save_safe
from tests.sources.test_opening import save_png
from tests.sources.test_radar import save_grd
from tests.sources.test_stac import band, save_item
from tilestream.errors import SourceError
from tilestream.sources.discovery import find_inputs
from tilestream.sources.opening import open_source


def table(paths, **options):
    return {found.relative: (found.state, found.reason) for found in find_inputs(paths, **options)}


def inputs(paths, **options):
    return [found.relative for found in find_inputs(paths, **options) if found.state == "input"]


def test_the_collection(shared_data):
    found = table([shared_data / name for name in ("slides", "satellite", "zarr")])
    ignored = {name: reason for name, (state, reason) in found.items() if state == "ignored"}
    overviews = "LC08_L1TP_016037_20170813_20170814_01_RT_B8.TIF.ovr"
    assert set(ignored) == {
        "OS-2-ndpi-results.tsv",
        "dicom-annotated/seg_image_sm_control.dcm",
        "dicom-annotated/sm_annotations.dcm",
        overviews,
    }
    assert ignored[overviews] == f"overviews of {overviews[:-4]}"
    assert "S2A_29RKH_20200219_0_L2A" in found  # one scene, not seven files
    assert "dicom-cmu-1-small-region" in found  # one slide, not twelve files
    assert len(found) - len(ignored) == 34


def test_the_broken_ones_stay_inputs(shared_data):
    assert len(inputs([shared_data / "broken"])) == 10


def test_keys_do_not_change_when_more_is_named(shared_data):
    alone = inputs([shared_data / "slides"])
    assert inputs([shared_data / "slides", shared_data / "broken"])[: len(alone)] == alone


def test_content_suffix_and_neither(tmp_path):
    save_png(tmp_path / "picture")
    (tmp_path / "cut.svs").write_bytes(b"II")
    (tmp_path / "empty.ndpi").touch()
    (tmp_path / "notes.md").write_text("# notes")
    (tmp_path / "table.csv").write_text("id\n1")
    assert inputs([tmp_path]) == ["cut.svs", "empty.ndpi", "picture"]
    assert table([tmp_path])["notes.md"] == ("ignored", "no image: neither content nor suffix is known")


def test_what_is_named_is_never_ignored(tmp_path):
    notes = tmp_path / "notes.md"
    notes.write_text("# notes")
    assert inputs([notes]) == ["notes.md"]
    assert inputs([tmp_path, notes]) == ["notes.md"]
    assert inputs([tmp_path / "gone.svs"]) == ["gone.svs"]
    assert len(find_inputs([tmp_path, notes, notes])) == 1


def test_sidecars_belong_to_their_image(tmp_path):
    for name in ("a.tif", "a.tif.ovr", "a.tif.msk", "a.tif.aux.xml", "alone.tif.ovr", "b.mrxs"):
        (tmp_path / name).write_bytes(b"II*\0\x08\0\0\0")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "Data0000.dat").write_bytes(b"\xff\xd8\xff")
    found = table([tmp_path])
    assert {name for name, (state, _) in found.items() if state == "input"} == {"a.tif", "alone.tif.ovr", "b.mrxs"}
    assert found["b"] == ("ignored", "data of b.mrxs")
    assert found["a.tif.msk"] == ("ignored", "mask of a.tif")
    assert not [name for name in found if name.startswith("b/")]


def test_files_of_a_vms_slide(tmp_path):
    (tmp_path / "s.vms").write_text("[Virtual Microscope Specimen]\nImageFile=one.jpg\nMapFile=map.jpg\n")
    for name in ("one.jpg", "map.jpg", "other.jpg"):
        (tmp_path / name).write_bytes(b"\xff\xd8\xff")
    assert inputs([tmp_path]) == ["other.jpg", "s.vms"]


def test_own_outputs_and_hidden_files(tmp_path):
    for folder in ("a.svs.features.zarr", "a.svs.entropy.zarr", "receipts", ".cache"):
        (tmp_path / folder).mkdir()
        save_png(tmp_path / folder / "inside.png")
    (tmp_path / "report.json").write_text("{}")
    save_png(tmp_path / ".hidden.png")
    save_png(tmp_path / "seen.png")
    assert inputs([tmp_path]) == ["seen.png"]
    assert table([tmp_path])["receipts"] == ("ignored", "an output of this program")
    assert table([tmp_path])[".cache"] == ("ignored", "hidden")


def test_zarr_is_one_input(tmp_path):
    (tmp_path / "a.zarr" / "0").mkdir(parents=True)
    (tmp_path / "a.zarr" / "zarr.json").write_text("{}")
    (tmp_path / "b" / "0").mkdir(parents=True)
    (tmp_path / "b" / ".zgroup").write_text("{}")
    (tmp_path / "empty.zarr").mkdir()
    assert inputs([tmp_path]) == ["a.zarr", "b", "empty.zarr"]
    assert inputs([tmp_path / "b"]) == ["b"]


def test_links(tmp_path):
    (tmp_path / "real").mkdir()
    save_png(tmp_path / "real" / "a.png")
    (tmp_path / "real" / "loop").symlink_to(tmp_path)
    (tmp_path / "zlink.png").symlink_to(tmp_path / "real" / "a.png")
    (tmp_path / "dangling.svs").symlink_to(tmp_path / "gone")
    found = table([tmp_path])
    assert [name for name, (state, _) in found.items() if state == "input"] == ["dangling.svs", "real/a.png"]
    assert found["real/loop"] == ("ignored", "a link to a folder that it lies in")


def test_the_same_name_twice(tmp_path):
    for folder in ("one", "two", "more/two"):
        (tmp_path / folder).mkdir(parents=True)
        save_png(tmp_path / folder / "a.png")
    save_png(tmp_path / "one" / "a.tif")
    keys = inputs([tmp_path / "one", tmp_path / "two", tmp_path / "more" / "two"])
    assert keys == ["a.png", "a.tif", "two/a.png", "two-2/a.png"]
    assert inputs([tmp_path]) == ["more/two/a.png", "one/a.png", "one/a.tif", "two/a.png"]


def test_folders_can_be_left_alone(tmp_path):
    save_png(tmp_path / "a.png")
    (tmp_path / "deep").mkdir()
    save_png(tmp_path / "deep" / "b.png")
    assert inputs([tmp_path], recursive=False) == ["a.png"]
    assert table([tmp_path], recursive=False)["deep"][0] == "ignored"


def test_two_selections_are_two_inputs(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    keys = inputs([f"{tmp_path}/a.zarr#t=1", f"{tmp_path}/a.zarr#t=2&z=0"])
    assert keys == ["a.zarr@t=1", "a.zarr@t=2,z=0"]


def test_urls_are_taken_at_their_word():
    assert inputs(["s3://bucket/slides/a.svs", "https://host/b.tif"]) == ["a.svs", "b.tif"]


@pytest.mark.parametrize("alone", [True, False])
def test_dicom_series(tmp_path, alone):
    save_dicom(tmp_path / "1.dcm", matrix=(8, 8), series="1.2.3")
    save_dicom(tmp_path / "2.dcm", matrix=(4, 4), series="1.2.3")
    if alone:
        assert inputs([tmp_path]) == [tmp_path.name]
        return
    save_dicom(tmp_path / "3.dcm", matrix=(8, 8), series="1.2.4")
    save_dicom(tmp_path / "4.dcm", matrix=(8, 8), series="1.2.4", flavour="LABEL")
    (tmp_path / "cut.dcm").write_bytes(bytes(128) + b"DICM\x02\0")
    found = table([tmp_path])
    assert [name for name, (state, _) in found.items() if state == "input"] == ["1.dcm", "3.dcm", "cut.dcm"]
    assert "identify a patient" in found["4.dcm"][1]
    assert "2.dcm" not in found


def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    closed = tmp_path / "closed"
    closed.mkdir()
    real = type(tmp_path).iterdir

    def refuse(self):
        if self.name == "closed":
            raise PermissionError(13, "Permission denied")
        return real(self)

    monkeypatch.setattr(type(tmp_path), "iterdir", refuse)
    assert table([tmp_path])["closed"][0] == "ignored"
    assert "Permission denied" in table([tmp_path])["closed"][1]


def test_order_does_not_depend_on_the_disk(tmp_path):
    for name in ("c.png", "a.png", "b.png"):
        save_png(tmp_path / name)
    first = find_inputs([tmp_path])
    shutil.copytree(tmp_path, tmp_path.parent / "again")
    again = find_inputs([tmp_path.parent / "again"])
    assert [found.relative for found in first] == [found.relative for found in again] == ["a.png", "b.png", "c.png"]


def test_products_of_satellites_are_one_input_each(tmp_path):
    save_safe(tmp_path / "a.SAFE", {"B02": 10})
    save_landsat(tmp_path / "b", {"4": "SR_B4"})
    save_grd(tmp_path / "c.SAFE")
    assert inputs([tmp_path]) == ["a.SAFE", "b", "c.SAFE"]
    assert inputs([tmp_path / "b"]) == ["b"]


def test_scenes_in_one_folder_are_inputs_by_their_metadata(tmp_path):
    for day in ("0101", "0117"):
        save_landsat(tmp_path / "all", {"4": "SR_B4"}, stem=f"LC08_L2SP_047027_2020{day}")
    found = table([tmp_path / "all"])
    stems = [f"LC08_L2SP_047027_2020{day}" for day in ("0101", "0117")]
    assert inputs([tmp_path / "all"]) == [f"{stem}_MTL.txt" for stem in stems]
    assert found[f"{stems[0]}_SR_B4.TIF"] == ("ignored", f"a band of {stems[0]}_MTL.txt")
    assert found[f"{stems[1]}_QA_PIXEL.TIF"] == ("ignored", f"a band of {stems[1]}_MTL.txt")


def test_a_whole_landsat_bundle_is_one_input_alone_or_among_others(tmp_path):
    """With its metadata in three forms, an item for each half, thumbnails and images that are no bands."""
    for folder, stems in (("one", ["LC08_A"]), ("two", ["LC08_A", "LC09_B"])):
        for stem in stems:
            save_landsat(tmp_path / folder, {"4": "SR_B4"}, stem=stem)
            for form in ("json", "xml"):
                save_mtl(tmp_path / folder / f"{stem}_MTL.{form}", landsat_groups(stem, {"4": "SR_B4"}))
            assets = {"red": band("red", href=f"./{stem}_SR_B4.TIF")}
            item = {"type": "Feature", "stac_version": "1.0.0", "assets": assets}
            (tmp_path / folder / f"{stem}_SR_stac.json").write_text(json.dumps(item))
            save_png(tmp_path / folder / f"{stem}_thumb_small.png")
            save_band(tmp_path / folder / f"{stem}_ST_QA.TIF", noise(60, 1))
    assert inputs([tmp_path / "one"]) == ["one"]
    assert inputs([tmp_path / "two"]) == ["LC08_A_MTL.txt", "LC09_B_MTL.txt"]
    with pytest.raises(SourceError, match=r"a folder of 2 scenes \(LC08_A_MTL.txt, LC09_B_MTL.txt"):
        open_source(str(tmp_path / "two"))


def test_an_image_beside_a_scene_is_not_lost(tmp_path):
    save_landsat(tmp_path / "s", {"4": "SR_B4"}, stem="LC08_A")
    save_band(tmp_path / "s" / "ndvi.tif", noise(60, 1))
    assert inputs([tmp_path]) == ["s/LC08_A_MTL.txt", "s/ndvi.tif"]
    assert open_source(str(tmp_path / "s")).info.format == "landsat-c2-l2sp"  # who names the folder means the scene


def test_outputs_beside_a_scene_are_no_images_beside_it(tmp_path):
    save_landsat(tmp_path / "s", {"4": "SR_B4"}, stem="LC08_A")
    (tmp_path / "s" / "s.features.zarr").mkdir()
    assert inputs([tmp_path / "s"]) == ["s"]


def test_other_images_of_a_product_are_no_inputs(tmp_path):
    for name in ("B02", "B03", "TCI", "AOT"):
        save_band(tmp_path / "p" / f"T29RKH_20200219T112111_{name}_10m.tif", noise(60, 1))
    assert inputs([tmp_path / "p"]) == ["p"]


def test_dated_items_stay_several_inputs_with_their_dates(tmp_path):
    for day in ("2020-01-01", "2020-01-17"):
        save_item(tmp_path / day, {"red": band("red")}, {"datetime": f"{day}T10:00:00Z"})
    found = inputs([tmp_path])
    assert found == ["2020-01-01", "2020-01-17"]
    times = [open_source(str(tmp_path / name)).info.datetime for name in found]
    assert times == ["2020-01-01T10:00:00Z", "2020-01-17T10:00:00Z"]


def test_items_without_copies_are_inputs_and_other_json_is_not(tmp_path):
    item = {"type": "Feature", "stac_version": "1.0.0", "assets": {"red": {"href": "https://somewhere/red.tif"}}}
    (tmp_path / "item.json").write_text(json.dumps(item))
    (tmp_path / "outline.json").write_text(json.dumps({"type": "Feature"}))
    (tmp_path / "LFS.json").write_text("{")
    assert inputs([tmp_path]) == ["item.json"]
