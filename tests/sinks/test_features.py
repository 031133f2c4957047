import json
import os
import pickle
from fractions import Fraction

import numpy as np
import pytest
import xarray as xr

from tests.sinks.build import (
    OUTPUTS,
    MeanStd,
    make_image,
    make_plan,
    make_results,
    make_sink,
    make_units,
    tree_bytes,
    write_all,
)
from tilestream.errors import ConfigError, OutputError
from tilestream.sinks.features import FeatureSink
from tilestream.types import Receipt


def _open(sink):
    return xr.open_datatree(sink.root, engine="zarr")


def test_plain_xarray_opens_the_store_with_its_values(tmp_path):
    sink = make_sink(tmp_path)
    sink.finish(write_all(sink, damaged=[3, 4], failed=[7]))
    with _open(sink) as tree:
        assert set(tree.children) == {"tile", "region", "slide"}
        tile = tree["tile"].ds
        n = sink.plan.rows
        assert tile.sizes == {"tile": n, "feature_handcrafted": 3}
        assert tile["feature_handcrafted"].values.tolist() == list(OUTPUTS)
        bad = [3, 4, 7]
        expected = (np.arange(n)[:, None] + np.arange(3) / 10).astype(np.float32)
        expected[bad] = np.nan
        np.testing.assert_array_equal(tile["handcrafted"], expected)
        assert tile["handcrafted"].dtype == np.float32
        assert np.flatnonzero(tile["status"]).tolist() == [3, 4]
        assert np.flatnonzero(tile["handcrafted_status"]).tolist() == bad
        assert tile["handcrafted_status"].values[bad].tolist() == [1, 1, 3]
        assert tile["status"].attrs["flag_values"] == [0, 1, 2, 3]
        assert tile["status"].attrs["flag_meanings"] == "ok damaged empty failed"
        assert np.flatnonzero(np.isnan(tile["entropy"])).tolist() == [3, 4]
        np.testing.assert_array_equal(tile["tissue"], (np.arange(n) % 10 / 10).astype(np.float32))
        corners = np.concatenate([unit.tile_yx for unit in make_units(sink.plan)])
        np.testing.assert_array_equal(np.stack([tile["y"], tile["x"]], axis=1), corners)
        assert (tile["size"] == 64).all()
        assert (tile["level"] == 0).all()
        assert {"x", "y"} <= set(tile.coords)


def test_regions_and_slide_leave_out_what_is_not_ok(tmp_path):
    sink = make_sink(tmp_path)
    sink.finish(write_all(sink, damaged=[3, 4], failed=[7]))
    with _open(sink) as tree:
        tile, region, slide = (tree[name].ds.load() for name in ("tile", "region", "slide"))
    ok = (tile["handcrafted_status"] == 0).values
    vectors = tile["handcrafted"].values.astype(np.float64)
    assert int(slide["n"]) == sink.plan.rows
    assert int(slide["n_ok"]) == sink.plan.rows - 2
    assert int(slide["handcrafted_n_ok"]) == sink.plan.rows - 3
    np.testing.assert_array_equal(slide["handcrafted"], vectors[ok].mean(axis=0).astype(np.float32))
    np.testing.assert_array_equal(slide["handcrafted_std"], vectors[ok].std(axis=0).astype(np.float32))
    assert int(region["n"].sum()) == sink.plan.rows
    assert region.sizes["region"] == len(np.unique(np.stack([tile["y"], tile["x"]], 1) // 128, axis=0))
    for row in range(region.sizes["region"]):
        one = region.isel(region=row)
        inside = (tile["x"] // 128 * 128 == one["x"]).values & (tile["y"] // 128 * 128 == one["y"]).values
        assert int(one["n"]) == inside.sum()
        assert int(one["n_ok"]) == (inside & (tile["status"] == 0).values).sum()
        assert int(one["handcrafted_n_ok"]) == (inside & ok).sum()
        np.testing.assert_array_equal(one["handcrafted"], vectors[inside & ok].mean(axis=0).astype(np.float32))
        assert float(one["size"]) == 128


def test_store_does_not_depend_on_order_or_place(tmp_path):
    one, two = (make_sink(tmp_path / name) for name in ("one", "two"))
    one.finish(write_all(one, damaged=[5]))
    two.finish(reversed(write_all(two, damaged=[5], order=lambda n: np.random.default_rng(0).permutation(n))))
    assert tree_bytes(one.root) == tree_bytes(two.root)
    text = b"".join(tree_bytes(one.root).values())
    assert str(tmp_path).encode() not in text


def test_values_survive_many_chunks(tmp_path):
    sink = make_sink(tmp_path, chunk_bytes=100)
    sink.finish(write_all(sink, damaged=range(50, 70)))
    whole = make_sink(tmp_path / "whole")
    whole.finish(write_all(whole, damaged=range(50, 70)))
    with _open(sink) as small, _open(whole) as large:
        for name in ("tile", "region", "slide"):
            xr.testing.assert_identical(small[name].ds.load(), large[name].ds.load())


def test_few_files_whatever_the_number_of_tiles(tmp_path):
    image = make_image(height=6000, width=6000, crs="EPSG:32633", affine=(10.0, 0, 5e5, 0, -10.0, 5e6), mpp=None)
    sink = make_sink(tmp_path, image=image, plan=make_plan(image), chunk_bytes=4096)
    sink.finish(write_all(sink))
    assert sink.plan.rows > 8000
    assert len(tree_bytes(sink.root)) < 60
    assert not sink.work.exists()


def test_places_in_the_crs_are_centres(tmp_path):
    affine = (10.0, 0.5, 5e5, -0.25, -10.0, 5e6)
    image = make_image(crs="EPSG:32633", affine=affine, mpp=None)
    sink = make_sink(tmp_path, image=image, plan=make_plan(image, ratio=Fraction(3, 2)))
    sink.finish(write_all(sink))
    with _open(sink) as tree:
        tile = tree["tile"].ds
        column, row = tile["x"] + 64 * 1.5 / 2, tile["y"] + 64 * 1.5 / 2
        np.testing.assert_allclose(tile["crs_x"], 10 * column + 0.5 * row + 5e5)
        np.testing.assert_allclose(tile["crs_y"], -0.25 * column - 10 * row + 5e6)
        assert tile["crs_x"].attrs["crs"] == "EPSG:32633"
        assert tree.attrs["crs"] == "EPSG:32633"
        assert tree.attrs["mpp"] is None
        assert tree.attrs["plan"]["ratio_yx"] == ["3/2", "3/2"]
        assert float(tile["size"][0]) == 96


def test_facts_of_the_image_and_the_recipe_are_kept(tmp_path):
    image = make_image(nodata=float("nan"), notes=("z axis: first of 3 taken",), selection={"z": 0}, axes={"z": 3})
    sink = make_sink(tmp_path, image=image)
    sink.finish(write_all(sink))
    with _open(sink) as tree:
        assert tree.attrs["recipe"] == {"encoder": "handcrafted"}
        assert tree.attrs["tilestream"]["recipe_digest"] == "r" * 32
        facts = tree.attrs["image"]
    assert facts["notes"] == ["z axis: first of 3 taken"]
    assert facts["selection"] == {"z": 0}
    assert facts["nodata"] == "NaN"
    assert facts["mpp_yx"] == [0.5, 0.5]
    assert [channel["name"] for channel in facts["channels"]] == ["R", "G", "B"]


def test_an_image_without_any_wanted_tile_is_a_store_too(tmp_path):
    image = make_image()
    sink = make_sink(tmp_path, image=image, plan=make_plan(image, rows=0))
    sink.finish([])
    with _open(sink) as tree:
        assert tree["tile"].sizes["tile"] == 0
        assert tree["region"].sizes["region"] == 0
        assert int(tree["slide"]["n"]) == 0
        assert np.isnan(tree["slide"]["handcrafted"]).all()


def test_several_encoders_lie_side_by_side(tmp_path):
    encoders = (("handcrafted", OUTPUTS), ("vit.small", tuple(f"d{i}" for i in range(8))))
    sink = make_sink(tmp_path, encoders=encoders)
    sink.finish(write_all(sink, failed=[1]))
    with _open(sink) as tree:
        assert tree["tile"]["vit.small"].dims == ("tile", "feature_vit.small")
        assert float(tree["tile"]["vit.small"][2, 1]) == pytest.approx(1002.1)
        assert tree["slide"]["vit.small_std"].shape == (8,)


def test_moved_last_tiles_stay_in_the_region_of_their_cell(tmp_path):
    image = make_image()
    sink = make_sink(tmp_path, image=image, plan=make_plan(image, edge="shift"))
    sink.finish(write_all(sink))
    with _open(sink) as tree:
        assert tree["region"].sizes["region"] == 8 * 12
        assert int(tree["region"]["n"].max()) == 4


def test_parts_are_equal_bytes_and_the_sink_pickles(tmp_path):
    sink = make_sink(tmp_path)
    again = pickle.loads(pickle.dumps(sink))
    first = write_all(sink)
    before = tree_bytes(sink.work)
    assert write_all(again) == first
    assert tree_bytes(sink.work) == before
    assert all(len(receipt.outputs) == 1 for receipt in first)


@pytest.mark.parametrize("harm", ["missing", "changed", "gap"])
def test_parts_that_differ_from_their_receipts_are_refused(tmp_path, harm):
    sink = make_sink(tmp_path)
    receipts = write_all(sink)
    path = sink.work / next(iter(receipts[2].outputs))
    if harm == "missing":
        path.unlink()
    elif harm == "changed":
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    else:
        del receipts[2]
    with pytest.raises(OutputError, match="same command"):
        sink.finish(receipts)
    assert not sink.root.exists()
    assert len(list(sink.work.iterdir())) >= len(receipts) - 1


def test_other_peoples_things_are_never_replaced(tmp_path):
    sink = make_sink(tmp_path, replace=True)
    sink.root.mkdir(parents=True)
    (sink.root / "thesis.txt").write_text("mine")
    receipts = write_all(sink)
    with pytest.raises(OutputError, match="has not written"):
        sink.finish(receipts)
    assert (sink.root / "thesis.txt").read_text() == "mine"
    (sink.root / "thesis.txt").rename(tmp_path / "thesis.txt")
    sink.root.rmdir()
    hidden = sink.root.with_name(f".{sink.root.name}.partial")
    hidden.mkdir()
    (hidden / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"thesis\.txt"):
        sink.finish(receipts)
    assert (hidden / "thesis.txt").read_text() == "mine"


def test_a_store_of_another_recipe_is_replaced_only_when_told(tmp_path):
    old = make_sink(tmp_path)
    old.finish(write_all(old))
    before = tree_bytes(old.root)
    new = make_sink(tmp_path, recipe_digest="s" * 32)
    receipts = write_all(new, damaged=[1])
    with pytest.raises(OutputError, match="no-resume"):
        new.finish(receipts)
    assert tree_bytes(new.root) == before
    assert not new.is_committed()
    make_sink(tmp_path, recipe_digest="s" * 32, replace=True).finish(receipts)
    assert new.is_committed()
    assert json.loads((new.root / "zarr.json").read_bytes())["attributes"]["tilestream"]["recipe_digest"] == "s" * 32
    assert [path.name for path in new.root.parent.iterdir()] == [new.root.name]


def test_files_of_others_in_the_work_folder_stay(tmp_path):
    sink = make_sink(tmp_path)
    receipts = write_all(sink)
    (sink.work / "notes.txt").write_text("mine")
    sink.finish(receipts)
    assert [path.name for path in sink.work.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["x", "status", "tile", "../up", "", ".hidden"])
def test_encoder_names_that_clash_are_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="Rename it, or give it another name here"):
        make_sink(tmp_path, encoders=((name, ("a",)),))


@pytest.mark.parametrize("outputs", [(), ("a", "a")])
def test_outputs_without_a_name_each_are_refused(tmp_path, outputs):
    with pytest.raises(ConfigError, match=f"got {len(outputs)} outputs, .* Rename its outputs"):
        make_sink(tmp_path, encoders=(("a", outputs),))


def test_regions_that_cross_super_tiles_are_refused():
    with pytest.raises(ConfigError, match="region_px"):
        make_plan(make_image(), region_px=192)


def test_results_of_another_shape_are_refused(tmp_path):
    sink = make_sink(tmp_path)
    unit = make_units(sink.plan)[0]
    with pytest.raises(ConfigError, match="results of `status`"):
        sink.write(unit, {})


def test_a_stage_of_one_value_is_a_scalar(tmp_path):
    sink = make_sink(tmp_path)
    unit = make_units(sink.plan)[0]
    results = make_results(unit)
    assert sink.write(unit, results | {"entropy": results["entropy"][:, None]}) == sink.write(unit, results)


def _die_at(sink: FeatureSink, receipts: list[Receipt], call: int) -> bool:
    """Finish in a child that ends without any clean-up at its `call`-th change on disk; return whether it lived."""
    child = os.fork()
    if child == 0:
        left = [call]

        def counted(real):
            def wrapper(*args, **kwargs):
                if left[0] == 0:
                    os._exit(9)
                left[0] -= 1
                return real(*args, **kwargs)

            return wrapper

        for name in ("fsync", "replace", "rename", "unlink", "rmdir", "mkdir"):
            setattr(os, name, counted(getattr(os, name)))
        code = 1
        try:
            sink.finish(receipts)
            code = 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9)
    return status == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("over", ["nothing", "an older store"])
def test_finish_may_be_killed_at_any_moment(tmp_path, over):
    image = make_image(height=200, width=300)
    plan = make_plan(image, tile_px=64, super_tile_px=128)
    reference = make_sink(tmp_path / "reference", image=image, plan=plan)
    reference.finish(write_all(reference))
    expected = tree_bytes(reference.root)
    call, lived = 0, False
    while not lived:
        folder = tmp_path / str(call)
        if over != "nothing":
            old = make_sink(folder, image=image, plan=plan, recipe_digest="o" * 32)
            old.finish(write_all(old, damaged=[0]))
            before = tree_bytes(old.root)
        sink = make_sink(folder, image=image, plan=plan, replace=over != "nothing")
        receipts = write_all(sink)
        lived = _die_at(sink, receipts, call)
        if sink.root.exists():
            found = tree_bytes(sink.root)
            assert found == expected or (over != "nothing" and found == before)
        sink.finish(receipts)
        assert tree_bytes(sink.root) == expected
        assert [path.name for path in sink.root.parent.iterdir()] == [sink.root.name]
        assert not sink.work.exists()
        call += 13 if over == "nothing" else 37
    assert call > 50


def test_full_disk_leaves_the_parts_for_the_next_run(tmp_path, monkeypatch):
    sink = make_sink(tmp_path)
    receipts = write_all(sink)
    real, left = os.fsync, [20]

    def fill(descriptor):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fill)
    with pytest.raises(OutputError, match="a full disk"):
        sink.finish(receipts)
    monkeypatch.undo()
    assert not sink.root.exists()
    sink.finish(receipts)
    assert sink.is_committed()
    assert [path.name for path in sink.root.parent.iterdir()] == [sink.root.name]


def test_pooler_of_nothing_is_nan():
    assert np.isnan(MeanStd(2).result()["mean"]).all()
