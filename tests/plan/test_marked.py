import json

import numpy as np
import pytest
import tifffile

from tests.plan.build import pyramid
from tilestream.errors import ConfigError
from tilestream.plan.marked import Marked
from tilestream.relevance import Entropy, Relevance


def picture():
    """Glass with a square of tissue."""
    rng = np.random.default_rng(0)
    found = rng.normal(242, 1, (320, 400, 3))
    found[64:192, 80:240] = rng.normal((190, 120, 170), 12, (128, 160, 3))
    return np.clip(found, 0, 255).astype(np.uint8)


def slide():
    return pyramid(picture(), mpp=8.0, modality="brightfield")


def inside(scores):
    found = np.zeros(scores.values.shape, np.bool_)
    found[8:24, 10:30] = True
    return found


def test_tissue():
    found = Marked(where="tissue")(slide())
    assert found.values.shape == (40, 50)
    assert found.values[inside(found)].min() > 0.8
    assert not found.values[:7].any()
    assert found.absolute
    assert Marked(where="tissue").recipe == {"term": "marked-1", "where": "tissue"}


def test_a_mask_image_and_an_outline_are_shares(tmp_path):
    mask = np.zeros((160, 200), np.uint8)  # half the size
    mask[32:96, 40:122] = 1  # up to half of a cell more
    tifffile.imwrite(tmp_path / "mask.tif", mask)
    ring = [[80, 64], [244, 64], [244, 192], [80, 192], [80, 64]]
    outline = {"type": "Polygon", "coordinates": [ring]}
    (tmp_path / "area.geojson").write_text(json.dumps({"type": "Feature", "properties": {}, "geometry": outline}))
    for name in ("mask.tif", "area.geojson"):
        term = Marked(where=str(tmp_path / name))
        found = term(slide())
        np.testing.assert_allclose(found.values[inside(found)], 1)
        np.testing.assert_allclose(found.values[8:24, 30], 0.5)
        assert found.values.sum() == pytest.approx(16 * 20.5)
        assert len(term.recipe["where"]) == 32


def test_recipe_follows_the_file_and_not_its_name(tmp_path):
    for name, value in (("a.tif", 1), ("b.tif", 1), ("c.tif", 2)):
        tifffile.imwrite(tmp_path / name, np.full((8, 8), value, np.uint8))
    a, b, c = (Marked(where=str(tmp_path / name)).recipe for name in ("a.tif", "b.tif", "c.tif"))
    assert a == b != c


def test_glass_outside_of_it_is_not_relevant():
    terms = {"entropy": Entropy(), "mask": Marked(where="tissue")}
    found = Relevance(terms=terms, weights={"entropy": 1, "mask": 1})(slide())
    assert found.values[inside(found)].min() > 0.4
    assert found.values[:6].max() < 0.05


def test_a_file_that_is_not_there():
    with pytest.raises(ConfigError, match="a mask or GeoJSON file"):
        Marked(where="/no/such/mask.tif")(slide())
