"""Zarr images made by code: versions, layouts, axes, damage, and what is said of stores that are no image."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr

from tests.sources.assembled import whole_level
from tilestream.errors import ConfigError, DamagedError, SourceError
from tilestream.sources.opening import open_source
from tilestream.types import Shape


def noise(*shape, dtype="uint16"):
    return np.random.default_rng(len(shape)).integers(0, 255, shape).astype(dtype)


def save_ome(path, arrays, *, axes="cyx", version="0.4", unit=None, scales=None, **more):
    """Write an OME-Zarr image; `more` goes beside `multiscales`."""
    group = zarr.open_group(path, mode="w", zarr_format=2 if version < "0.5" else 3)
    for number, array in enumerate(arrays):
        names = {"dimension_names": list(axes)} if version >= "0.5" else {}
        chunks = tuple(min(size, 32) if name in "yx" else 1 for name, size in zip(axes, array.shape, strict=True))
        group.create_array(str(number), data=array, chunks=chunks, **names)
    kinds = {"c": "channel", "t": "time"}
    described = [
        {"name": name, "type": kinds.get(name, "space"), **({"unit": unit} if unit and name in "yx" else {})}
        for name in axes
    ]
    scales = scales or [2.0**n for n in range(len(arrays))]
    datasets = [
        {
            "path": str(number),
            "coordinateTransformations": [
                {"type": "scale", "scale": [scale if name in "yx" else 1.0 for name in axes]}
            ],
        }
        for number, scale in enumerate(scales)
    ]
    image = {"multiscales": [{"axes": described, "datasets": datasets, "name": more.pop("name", "x")}], **more}
    if version < "0.5":
        image["multiscales"][0]["version"] = version
        group.attrs.update(image)
    else:
        group.attrs["ome"] = {"version": version, **image}
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["yx", "cyx", "yxc", "tczyx", "tcyx"])
def test_axes_and_versions(tmp_path, axes, version):
    sizes = {"t": 2, "c": 3, "z": 4, "y": 70, "x": 45}
    array = noise(*(sizes[name] for name in axes))
    source = open_source(str(save_ome(tmp_path / "a.zarr", [array], axes=axes, version=version)))
    assert source.info.format == f"ome-zarr-{version}"
    index = {name: sizes[name] - 1 for name in axes if name in "tz"}
    picked = source.isel(**index) if index else source
    plain = array[tuple(index.get(name, slice(None)) for name in axes)]
    left = [name for name in axes if name not in index]
    expected = plain[..., None] if "c" not in left else plain.transpose([left.index(name) for name in "yxc"])
    np.testing.assert_array_equal(whole_level(picked)[0], expected)
    assert sum("axis" in note for note in source.info.notes) == len(index)


@pytest.mark.parametrize(
    ("unit", "mpp"), [("micrometer", 0.5), ("nanometer", 0.0005), ("millimeter", 500), ("pixel", None), (None, None)]
)
def test_units(tmp_path, unit, mpp):
    path = save_ome(tmp_path / "a.zarr", [noise(1, 8, 8)], unit=unit, scales=[0.5])
    info = open_source(str(path)).info
    assert info.mpp == (pytest.approx(mpp) if mpp else None)
    assert (mpp is None) == any("pixel size unknown" in note for note in info.notes)


def test_scales_that_lie_are_put_aside(tmp_path):
    path = save_ome(tmp_path / "a.zarr", [noise(1, 64, 64), noise(1, 16, 16)], scales=[1.0, 2.0])
    info = open_source(str(path)).info
    assert info.levels[1].scale_yx == (4.0, 4.0)
    assert any("level 1: the stated scale does not fit" in note for note in info.notes)


def test_image_labels_and_named_labels(tmp_path):
    cells = noise(64, 64, dtype="int32")
    assert (
        open_source(str(save_ome(tmp_path / "a.zarr", [cells], axes="yx", **{"image-label": {}}))).info.kind == "labels"
    )
    assert open_source(str(save_ome(tmp_path / "b.zarr", [cells], axes="yx", name="labels"))).info.kind == "labels"
    assert open_source(str(save_ome(tmp_path / "c.zarr", [cells], axes="yx"))).info.kind == "intensity"
    floats = cells.astype("float32")
    assert open_source(str(save_ome(tmp_path / "d.zarr", [floats], axes="yx", name="labels"))).info.kind == "intensity"


def test_channel_names_are_unique(tmp_path):
    channels = [{"label": "DAPI"}, {"label": "DAPI"}, {"label": "DAPI-2"}]
    path = save_ome(tmp_path / "a.zarr", [noise(3, 8, 8)], omero={"channels": channels})
    names = [channel.name for channel in open_source(str(path)).info.channels]
    assert names[0] == "DAPI"
    assert len(set(names)) == 3


def test_channel_colours_and_windows(tmp_path):
    window = {"min": 0, "max": 65535, "start": 100, "end": 2000.5}
    channels = [
        {"label": "DAPI", "color": "0000ff", "window": window},
        {"label": "CD3", "color": "red", "window": {"min": 0, "max": 1}},
        {"label": "CD8", "color": 7, "window": {"start": 5, "end": 5}},
        {"label": "CD4", "window": [1, 2]},
    ]
    path = save_ome(tmp_path / "a.zarr", [noise(4, 8, 8)], omero={"channels": channels})
    found = open_source(str(path)).info.channels
    assert [(channel.name, channel.color, channel.window) for channel in found] == [
        ("DAPI", "0000FF", (100.0, 2000.5)),
        ("CD3", None, None),
        ("CD8", None, None),
        ("CD4", None, None),
    ]


def test_series_of_bioformats2raw(tmp_path):
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    images = [noise(1, 40, 30) + number for number in range(3)]
    for number, image in enumerate(images):
        save_ome(tmp_path / "a.zarr" / str(number), [image])
    source = open_source(str(tmp_path / "a.zarr"))
    assert source.info.axes["series"] == 3
    assert any("axis series" in note for note in source.info.notes)
    np.testing.assert_array_equal(whole_level(source)[0][..., 0], images[0][0])
    np.testing.assert_array_equal(whole_level(source.isel(series=2))[0][..., 0], images[2][0])
    listed = zarr.open_group(tmp_path / "a.zarr" / "OME", mode="w", zarr_format=2)
    listed.attrs["series"] = ["2", "0"]
    again = open_source(f"{tmp_path / 'a.zarr'}#series=1")
    np.testing.assert_array_equal(whole_level(again)[0][..., 0], images[0][0])
    with pytest.raises(ConfigError, match="0 to 1"):
        again.isel(series=2)


def test_wells_and_fields(tmp_path):
    root = zarr.open_group(tmp_path / "p.zarr", mode="w", zarr_format=3)
    root.attrs["ome"] = {"version": "0.5", "plate": {"wells": [{"path": "A/1"}, {"path": "B/2"}]}}
    images = {}
    for well in ("A/1", "B/2"):
        group = zarr.open_group(tmp_path / "p.zarr" / well, mode="w", zarr_format=3)
        group.attrs["ome"] = {"version": "0.5", "well": {"images": [{"path": "0"}, {"path": "1"}]}}
        for field in "01":
            images[well, field] = noise(1, 16, 16) + len(images)
            save_ome(tmp_path / "p.zarr" / well / field, [images[well, field]], version="0.5")
    source = open_source(f"{tmp_path / 'p.zarr'}#well=1&field=1")
    np.testing.assert_array_equal(whole_level(source)[0][..., 0], images["B/2", "1"][0])
    assert source.info.selection == {"well": 1, "field": 1}
    np.testing.assert_array_equal(whole_level(source.isel(well=0))[0][..., 0], images["A/1", "1"][0])


def test_plain_groups_and_arrays(tmp_path):
    fine, coarse = noise(100, 80), noise(50, 40)
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("1", data=coarse)
    group.create_array("0", data=fine)
    source = open_source(str(tmp_path / "a.zarr"))
    np.testing.assert_array_equal(whole_level(source)[0][..., 0], fine)
    np.testing.assert_array_equal(whole_level(source, 1)[0][..., 0], coarse)
    assert source.info.levels[1].scale_yx == (2.0, 2.0)
    np.testing.assert_array_equal(whole_level(open_source(str(tmp_path / "a.zarr" / "1")))[0][..., 0], coarse)


def test_sharded(tmp_path):
    array = noise(300, 200)
    zarr.create_array(tmp_path / "a.zarr", data=array, chunks=(32, 32), shards=(128, 128), dimension_names=["y", "x"])
    np.testing.assert_array_equal(whole_level(open_source(str(tmp_path / "a.zarr")))[0][..., 0], array)


def test_small_chunks_are_read_together(tmp_path):
    for number, (chunk, block) in enumerate([(50, 100), (65, 65), (128, 128), (240, 240), (300, 300)]):
        path = tmp_path / f"{number}.zarr"
        zarr.create_array(path, data=noise(900, 90), chunks=(chunk, 50), dimension_names=["y", "x"])
        assert open_source(str(path)).info.levels[0].block == Shape(y=block, x=90)


def test_geozarr(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    layout = [{"asset": "fine/data"}, {"asset": "coarse"}]
    group.attrs.update({"multiscales": {"layout": layout}, "proj:code": "EPSG:32629"})
    group.attrs["spatial:transform"] = [10, 0, 199980, 0, -10, 2800020]
    fine, coarse = noise(64, 60), noise(32, 30)
    group.create_array("fine/data", data=fine, dimension_names=["y", "x"])
    group.create_array("coarse/data", data=coarse, dimension_names=["y", "x"])
    source = open_source(str(tmp_path / "a.zarr"))
    assert source.info.crs == "EPSG:32629"
    assert source.info.affine == (10, 0, 199980, 0, -10, 2800020)
    assert source.info.modality == "scene"
    np.testing.assert_array_equal(whole_level(source, 1)[0][..., 0], coarse)


def test_a_cf_grid_mapping(tmp_path):
    """As rioxarray and EOPF write it: a scalar variable beside the array."""
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("red", data=noise(20, 30), dimension_names=["y", "x"]).attrs["grid_mapping"] = "spatial_ref"
    mapping = group.create_array("spatial_ref", data=np.array(0))
    crs = 'PROJCS["x",GEOGCS["g",UNIT["degree",0.0174]],UNIT["metre",1],AUTHORITY["EPSG","32629"]]'
    mapping.attrs.update({"crs_wkt": crs, "GeoTransform": "500000 10 0 4000000 0 -10"})
    info = open_source(str(tmp_path / "a.zarr")).info
    assert info.crs == "EPSG:32629"
    assert info.affine == (10, 0, 500000, 0, -10, 4000000)


def test_missing_chunks_are_the_fill_value(tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(64, 64), chunks=(32, 32), dtype="u1", fill_value=7)
    array[:32, :32] = 1
    pixels, valid, _ = whole_level(open_source(str(tmp_path / "a.zarr")))
    assert valid.all()
    assert (pixels[32:] == 7).all()


def test_nodata_by_attribute(tmp_path):
    stored = noise(40, 40)
    array = zarr.create_array(tmp_path / "a.zarr", data=stored, chunks=(32, 32))
    array.attrs["_FillValue"] = int(stored[3, 4])
    pixels, valid, _ = whole_level(open_source(str(tmp_path / "a.zarr")))
    np.testing.assert_array_equal(valid, stored != stored[3, 4])
    assert not pixels[~valid].any()


def test_floats_that_are_not_finite(tmp_path):
    stored = noise(40, 40).astype("f4")
    stored[1, 2], stored[3, 4] = np.nan, np.inf
    zarr.create_array(tmp_path / "a.zarr", data=stored)
    valid = whole_level(open_source(str(tmp_path / "a.zarr")))[1]
    np.testing.assert_array_equal(valid, np.isfinite(stored))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_cut_chunk_costs_its_block(tmp_path, zarr_format):
    stored = noise(512, 512)
    zarr.create_array(tmp_path / "a.zarr", data=stored, chunks=(256, 256), zarr_format=zarr_format)
    chunk = tmp_path / "a.zarr" / ("c/0/1" if zarr_format == 3 else "0.1")
    data = chunk.read_bytes()
    for size in (0, 5, len(data) // 2, len(data) - 1):
        chunk.write_bytes(data[:size])
        source = open_source(str(tmp_path / "a.zarr"))
        pixels, valid, damage = whole_level(source)
        assert set(damage) == {(0, 1)}
        np.testing.assert_array_equal(pixels[valid][:, 0], stored[valid])


def test_chunks_that_git_lfs_has_not_fetched(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", data=noise(512, 512), chunks=(256, 256), zarr_format=2)
    (tmp_path / "a.zarr" / "1.0").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(DamagedError, match="git lfs pull"):
        open_source(str(tmp_path / "a.zarr")).read_block(0, 1, 0)


def test_remote_stores(tmp_path):
    import fsspec

    stored = noise(1, 40, 40)
    path = save_ome(tmp_path / "a.zarr", [stored], version="0.5")
    memory = fsspec.filesystem("memory")
    for file in path.rglob("*"):
        if file.is_file():
            memory.pipe(f"/zarrs/{file.relative_to(tmp_path)}", file.read_bytes())
    source = open_source("memory://zarrs/a.zarr")
    np.testing.assert_array_equal(whole_level(source)[0][..., 0], stored[0])


def test_fingerprints(tmp_path):
    path = save_ome(tmp_path / "a.zarr", [noise(1, 40, 40)])
    first = open_source(str(path)).info.fingerprint
    assert open_source(str(path)).info.fingerprint == first
    attributes = json.loads((path / ".zattrs").read_text())
    (path / ".zattrs").write_text(json.dumps({**attributes, "more": 1}))
    assert open_source(str(path)).info.fingerprint != first


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a.txt": "x"}, "without `zarr.json`"),
        ({"zarr.json": "{"}, "no JSON"),
        ({"zarr.json": "[]"}, "no object"),
        ({"zarr.json": '{"zarr_format": 3, "node_type": "group"}'}, "no arrays"),
        ({"zarr.json": '{"zarr_format": 3, "node_type": "array"}'}, "array `/`"),
        ({".zgroup": '{"zarr_format": 2}', ".zattrs": '{"multiscales": [{"datasets": 3}]}'}, "break the format"),
        ({".zgroup": '{"zarr_format": 2}', ".zattrs": '{"multiscales": [{"datasets": [{"path": "0"}]}]}'}, "array `0`"),
        (
            {
                ".zarray": '{"zarr_format": 2, "shape": [4, 9], "chunks": [4, 9], "dtype": "<f4", "order": "C", '
                '"fill_value": 0, "compressor": null, "filters": null}',
                ".zattrs": '{"_ARRAY_DIMENSIONS": ["tile", "feature"]}',
            },
            "stores features",
        ),
        ({".zgroup": '{"zarr_format": 2}', ".zattrs": '{"bioformats2raw.layout": 3}'}, "0 images on axis series"),
    ],
)
def test_stores_that_are_no_image(tmp_path, files, said):
    (tmp_path / "a.zarr").mkdir()
    for name, text in files.items():
        (tmp_path / "a.zarr" / name).write_text(text)
    with pytest.raises(SourceError) as caught:
        open_source(str(tmp_path / "a.zarr"))
    assert said in str(caught.value)


def test_absurd_arrays_are_not_allocated(tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(2**40, 2**40), chunks=(64, 64), dtype="u1")
    array[:64, :64] = 3
    source = open_source(str(tmp_path / "a.zarr"))
    assert source.read_block(0, 0, 0).pixels.shape == (128, 128, 1)
    assert source.read_block(0, 0, 0).pixels[0, 0, 0] == 3
