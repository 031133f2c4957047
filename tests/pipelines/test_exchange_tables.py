"""Feature stores as AnnData, SpatialData, QuPath's GeoJSON and Parquet, looked at by other readers than ours."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import h5py
import numpy as np
import pytest
import shapely
import zarr
from pyarrow import parquet

from tests.madecohort import OUTPUTS
from tests.sinks.build import make_image, make_plan, make_sink, write_all
from tilestream.errors import ConfigError
from tilestream.pipelines.exchange import exchange_config, run_exchange
from tilestream.plan.geojson import to_geojson
from tilestream.types import Box

TWO = (("uni", OUTPUTS), ("conch", OUTPUTS[:2]))
AFFINE = (10.0, 0.0, 400_000.0, 0.0, -10.0, 5_000_000.0)


def make(folder: Path, key: str = "a/s.svs", *, damaged=(1, 3), **image):
    info = make_image(**{"height": 200, "width": 300, "fingerprint": key} | image)
    plan = make_plan(info)
    sink = make_sink(folder, image=info, plan=plan, rel=key, encoders=TWO)
    sink.finish(write_all(sink, damaged=damaged))
    return info, zarr.open_group(sink.root, mode="r")


def export(tmp_path: Path, to: str, **options):
    config = exchange_config(out=str(tmp_path / "out"), to=to, **options)
    (row,) = run_exchange([str(tmp_path / "in")], config).rows
    return row


def read_anndata(root) -> dict:
    """AnnData's format as its documentation has it, in HDF5 or Zarr."""
    assert (root.attrs["encoding-type"], root.attrs["encoding-version"]) == ("anndata", "0.1.0")
    for name in ("layers", "obsm", "obsp", "varm", "varp", "uns"):
        assert root[name].attrs["encoding-type"] == "dict"

    def text(values):
        return [value.decode() if isinstance(value, bytes) else str(value) for value in np.ravel(values[()])]

    def frame(group):
        assert group.attrs["encoding-type"] == "dataframe"
        found = {"_index": text(group[group.attrs["_index"]])}
        for name in group.attrs["column-order"]:
            node = group[name]
            if node.attrs["encoding-type"] == "categorical":
                found[name] = [text(node["categories"])[code] for code in node["codes"][:]]
            else:
                assert node.attrs["encoding-type"] == "array"
                found[name] = node[:]
        return found

    about = root["uns/spatialdata_attrs"]
    return {
        "X": root["X"][:],
        "obs": frame(root["obs"]),
        "var": frame(root["var"]),
        "spatial": root["obsm/spatial"][:],
        "slide": root["varm/agg_slide"][:],
        "about": {name: text(about[name])[0] for name in ("region", "region_key", "instance_key")},
    }


def check_table(found: dict, store: zarr.Group, encoder: str, outputs) -> None:
    tile = store["tile"]
    ok = np.flatnonzero(tile["status"][:] == 0)
    assert len(ok) < tile["status"].shape[0]
    np.testing.assert_array_equal(found["X"], tile[encoder][:][ok])
    assert found["obs"]["_index"] == [str(row) for row in ok]
    np.testing.assert_array_equal(found["obs"]["tile_id"], ok)
    assert set(found["obs"]["library_id"]) == {"tiles"}
    np.testing.assert_array_equal(found["obs"]["tissue"], tile["tissue"][:][ok])
    assert found["var"]["_index"] == list(outputs)
    np.testing.assert_array_equal(found["spatial"][:, 0], tile["x"][:][ok] + 32)
    np.testing.assert_array_equal(found["slide"][:, 0], store["slide"][encoder][:])
    assert found["about"] == {"region": "tiles", "region_key": "library_id", "instance_key": "tile_id"}


def test_anndata(tmp_path):
    _, store = make(tmp_path / "in")
    row = export(tmp_path, "anndata")
    assert row.status == "done"
    assert "2 of 20 tiles have no vector of uni" in "".join(row.notes)
    for encoder, outputs in TWO:
        with h5py.File(tmp_path / "out" / "a" / f"s.svs.{encoder}.h5ad") as file:
            check_table(read_anndata(file), store, encoder, outputs)
    assert export(tmp_path, "anndata").status == "kept"


def test_anndata_opens_it(tmp_path):
    anndata = pytest.importorskip("anndata")
    make(tmp_path / "in")
    export(tmp_path, "anndata")
    found = anndata.read_h5ad(tmp_path / "out" / "a" / "s.svs.uni.h5ad")
    assert found.shape == (18, 3)


def test_spatialdata(tmp_path):
    info, store = make(tmp_path / "in")
    outline = to_geojson([shapely.box(0, 0, 150, 200), shapely.box(150, 0, 240, 200)], info)
    (tmp_path / "in" / "a" / "s.svs.tissue.geojson").write_text(json.dumps(outline))
    assert export(tmp_path, "spatialdata").status == "done"
    root = zarr.open_group(tmp_path / "out" / "a" / "s.svs.spatialdata.zarr", mode="r")
    assert root.attrs["spatialdata_attrs"]["version"] == "0.2"
    for encoder, outputs in TWO:
        table = root[f"tables/{encoder}_tiles"]
        assert table.attrs["spatialdata-encoding-type"] == "ngff:regions_table"
        assert (table.attrs["region"], table.attrs["instance_key"]) == ("tiles", "tile_id")
        check_table(read_anndata(table), store, encoder, outputs)
    spec, slide = root.attrs["tile_spec"]["tiles"], root.attrs["slide_properties"]
    assert (spec["height"], spec["stride_width"], spec["mpp"], spec["ops_level"]) == (64, 64, 0.5, 0)
    assert (spec["base_width"], spec["tissue_name"]) == (64, "tissues")
    assert (slide["shape"], slide["mpp"], slide["n_level"], slide["level_shape"]) == ([200, 300], 0.5, 1, [[200, 300]])
    tiles = read_shapes(root, "tiles")
    assert tiles["tile_id"] == list(range(20))
    expected = [0 if x < 128 else 1 if x < 256 else -1 for x in store["tile"]["x"][:]]
    assert [one for one, y in zip(tiles["tissue_id"], tiles["y"], strict=True) if y < 192] == [
        one for one, y in zip(expected, tiles["y"], strict=True) if y < 192
    ]
    x, y = tiles["x"][6], tiles["y"][6]
    assert shapely.from_wkb(tiles["geometry"][6]).bounds == (x, y, x + 64, y + 64)
    assert [shapely.from_wkb(one).area for one in read_shapes(root, "tissues")["geometry"]] == [30_000, 18_000]
    assert export(tmp_path, "spatialdata").status == "kept"
    assert export(tmp_path, "spatialdata", resume=False).status == "done"


def read_shapes(root: zarr.Group, name: str) -> dict:
    about = root[f"shapes/{name}"].attrs
    assert about["encoding-type"] == "ngff:shapes"
    assert about["spatialdata_attrs"] == {"version": "0.3"}
    assert about["coordinateTransformations"][0]["type"] == "identity"
    table = parquet.read_table(Path(root.store.root) / "shapes" / name / "shapes.parquet")
    assert json.loads(table.schema.metadata[b"geo"])["columns"]["geometry"]["encoding"] == "WKB"
    return table.to_pydict()


def test_spatialdata_does_not_take_a_store_of_somebody(tmp_path):
    make(tmp_path / "in")
    taken = tmp_path / "out" / "a" / "s.svs.spatialdata.zarr"
    taken.mkdir(parents=True)
    for resume in (True, False):
        assert "has not written" in export(tmp_path, "spatialdata", resume=resume).reason


@pytest.mark.parametrize("content", [None, Box(level=0, y=10, x=20, height=100, width=100)])
def test_qupath(tmp_path, content):
    _, store = make(tmp_path / "in", content=content)
    row = export(tmp_path, "geojson", value="entropy")
    assert row.notes == ("colours go from 0 (dark) to 1.9 (bright) of `entropy`",)
    text = (tmp_path / "out" / "a" / "s.svs.tiles.geojson").read_text()
    document = json.loads(text)
    assert document["type"] == "FeatureCollection"
    assert len(document["features"]) == 20
    assert {str(uuid.UUID(one["id"])) for one in document["features"]} == {one["id"] for one in document["features"]}
    first, second = document["features"][:2]
    x, y = (0, 0) if content is None else (-20, -10)
    ring = [[x, y], [x + 64, y], [x + 64, y + 64], [x, y + 64], [x, y]]
    assert first["geometry"] == {"type": "Polygon", "coordinates": [ring]}
    expected = {"objectType": "tile", "name": "tile 0", "isLocked": True, "measurements": {"entropy": 0}}
    assert first["properties"] == expected | {"color": [0x44, 0x01, 0x54]}
    assert second["properties"]["measurements"] == {}  # damaged: no value, hence no colour
    assert "color" not in second["properties"]
    assert document["features"][19]["properties"]["color"] == [0xFD, 0xE7, 0x25]
    export(tmp_path, "geojson", value="entropy", resume=False)
    assert (tmp_path / "out" / "a" / "s.svs.tiles.geojson").read_text() == text
    assert store["tile"]["entropy"].shape == (20,)


@pytest.mark.parametrize("value", ["uni:µ", "uni:2"])
def test_qupath_shows_an_output_of_an_encoder(tmp_path, value):
    _, store = make(tmp_path / "in")
    export(tmp_path, "geojson", value=value)
    found = json.loads((tmp_path / "out" / "a" / "s.svs.tiles.geojson").read_text())["features"]
    values = [one["properties"]["measurements"].get(value, np.nan) for one in found]
    np.testing.assert_allclose(values, store["tile"]["uni"][:, 2], rtol=1e-5)


@pytest.mark.parametrize(
    ("value", "said"),
    [("typo", "which `a/s.svs` does not have"), ("µ", "does not have"), ("entropy:", "does not have"),
     ("mean R", "which 2 encoders have"), ("uni:3", "does not have")],
)  # fmt: skip
def test_values_that_are_none_are_told(tmp_path, value, said):
    make(tmp_path / "in")
    if value == "µ":
        value = "conch:µ"
    reason = export(tmp_path, "geojson", value=value).reason
    assert said in reason
    assert "valid, tissue, entropy" in reason or "entropy" in reason


def test_parquet(tmp_path):
    _, store = make(tmp_path / "in")
    export(tmp_path, "parquet")
    table = parquet.read_table(tmp_path / "out" / "a" / "s.svs.tiles.parquet")
    assert str(table.schema.field("uni").type) == "fixed_size_list<element: float>[3]"
    found = table.to_pydict()
    assert set(found["slide"]) == {"a/s.svs"}
    assert found["status"][:4] == ["ok", "damaged", "ok", "damaged"]
    assert found["uni"][1] is None
    np.testing.assert_array_equal(found["uni"][2], store["tile"]["uni"][2])
    np.testing.assert_array_equal(found["x"], store["tile"]["x"][:])
    assert json.loads(table.schema.metadata[b"tilestream"])["encoders"]["uni"] == list(OUTPUTS)
    assert export(tmp_path, "parquet").status == "kept"


def test_parquet_in_many_row_groups_is_the_same(tmp_path, monkeypatch):
    make(tmp_path / "in")
    export(tmp_path, "parquet")
    path = tmp_path / "out" / "a" / "s.svs.tiles.parquet"
    whole = parquet.read_table(path)
    monkeypatch.setattr("tilestream.sinks.tileparquet.PIECE_BYTES", 100)
    export(tmp_path, "parquet", resume=False)
    assert parquet.ParquetFile(path).num_row_groups == 4
    assert repr(parquet.read_table(path).to_pydict()) == repr(whole.to_pydict())  # as text NaN is what it is


@pytest.mark.parametrize("down", [True, False])
def test_geoparquet(tmp_path, down):
    pyproj = pytest.importorskip("pyproj")
    affine = AFFINE if down else (*AFFINE[:4], 10.0, AFFINE[5])
    make(tmp_path / "in", "scene", crs="EPSG:32633", affine=affine, mpp=None, datetime="2024-05-17T10:30:00Z")
    assert export(tmp_path, "geoparquet").status == "done"
    table = parquet.read_table(tmp_path / "out" / "scene.geo.parquet")
    geo = json.loads(table.schema.metadata[b"geo"])
    assert (geo["version"], geo["primary_column"]) == ("1.1.0", "geometry")
    column = geo["columns"]["geometry"]
    assert pyproj.CRS.from_json_dict(column["crs"]).to_epsg() == 32633
    assert column["covering"]["bbox"] == {name: ["bbox", name] for name in ("xmin", "ymin", "xmax", "ymax")}
    found = table.to_pydict()
    polygons = shapely.from_wkb(found["geometry"])
    assert shapely.get_exterior_ring(polygons[0]).is_ccw
    x, y = 400_000 + 10 * found["x"][6], 5_000_000 + (-10 if down else 10) * found["y"][6]
    assert polygons[6].equals(shapely.box(x, y, x + 640, y + (-640 if down else 640)))
    assert list(found["bbox"][6].values()) == list(polygons[6].bounds)
    np.testing.assert_allclose(column["bbox"], shapely.total_bounds(polygons))
    assert found["date"][0].isoformat() == "2024-05-17T10:30:00+00:00"
    assert (found["scene"][0], found["valid"][0]) == ("scene", 1)


def test_geoparquet_of_a_slide_is_refused(tmp_path):
    make(tmp_path / "in")
    reason = export(tmp_path, "geoparquet").reason
    assert "got no coordinate reference system, expected a scene with a coordinate reference system and" in reason


def test_missing_libraries_name_their_extra(tmp_path, monkeypatch):
    make(tmp_path / "in")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    for to in ("parquet", "spatialdata"):
        assert "'.[parquet]'" in export(tmp_path, to).reason


def test_a_value_is_for_colours_alone():
    with pytest.raises(ConfigError, match="--to parquet"):
        exchange_config(out="out", to="parquet", value="entropy")


def test_a_store_without_tiles(tmp_path):
    info = make_image(height=100, width=100)
    sink = make_sink(tmp_path / "in", image=info, plan=make_plan(info, rows=0), rel="empty.svs", encoders=TWO)
    sink.finish([])
    for to in ("anndata", "spatialdata", "geojson", "parquet"):
        assert export(tmp_path, to).status == "done"
    assert json.loads((tmp_path / "out" / "empty.svs.tiles.geojson").read_text())["features"] == []
    assert parquet.read_table(tmp_path / "out" / "empty.svs.tiles.parquet").num_rows == 0
    with h5py.File(tmp_path / "out" / "empty.svs.uni.h5ad") as file:
        assert read_anndata(file)["X"].shape == (0, 3)
