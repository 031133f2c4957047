import pickle
import subprocess
import sys
import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plan.build import blank, blobs
from tests.strategies import shapes
from tilestream.errors import ConfigError
from tilestream.plan import plan_tiles
from tilestream.types import Plan, Receipt, Shape


def tiles(plan):
    """Share of every tile by its corner."""
    return {
        (int(y), int(x)): float(share)
        for unit in plan.start()
        for (y, x), share in zip(unit.tile_yx, plan.shares(unit), strict=True)
    }


@st.composite
def plans(draw):
    area = draw(shapes(min_px=2, max_px=400))
    tile_px = draw(st.integers(5, 60))
    where = "all"
    if draw(st.booleans()):
        where = blobs(Shape(y=-(-area.y // 3), x=-(-area.x // 3)), area, seed=draw(st.integers(0, 99)), cell=7)
    return plan_tiles(
        blank(area),
        tile_px=tile_px,
        step_px=draw(st.integers(1, 2)) * tile_px // 2 or 1,
        halo_px=draw(st.integers(0, 5)),
        where=where,
        edge=draw(st.sampled_from(["cover", "shift", "drop"])),
        super_tile_px=None,
    )


def recut(plan, factor):
    fields = {name: getattr(plan, name) for name in plan.__dataclass_fields__}
    return type(plan)(**{**fields, "super_tile_px": plan.grid.step_px * factor})


@given(plan=plans(), factor=st.integers(1, 9))
def test_rows_are_numbered_once_in_plan_order(plan, factor):
    plan = recut(plan, factor)
    units = list(plan.start())
    assert sorted(row for unit in units for row in unit.rows) == list(range(len(plan)))
    assert len({unit.key for unit in units}) == len(units) == plan.units
    assert all(len(unit.tile_yx) for unit in units)
    ordered = list(plan.in_row_order())
    assert [row for unit in ordered for row in unit.rows] == list(range(len(plan)))
    assert [(unit.iy, unit.ix) for unit in ordered] == sorted((unit.iy, unit.ix) for unit in units)
    for unit in units:
        assert unit.tile_yx.tolist() == sorted(unit.tile_yx.tolist())


@given(plan=plans(), factors=st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_cutting_differently_gives_the_same_tiles(plan, factors):
    one, other = (recut(plan, factor) for factor in factors)
    assert tiles(one) == tiles(other)
    assert len(one) == len(other) == len(tiles(one))
    assert (one.digest == other.digest) == (factors[0] == factors[1])


@given(plan=plans())
def test_pickles(plan):
    again = pickle.loads(pickle.dumps(plan))
    assert again.digest == plan.digest
    assert [unit.first_row for unit in again.start()] == [unit.first_row for unit in plan.start()]


def test_is_a_plan_without_surprises():
    plan: Plan = plan_tiles(blank(Shape(y=1000, x=700)), where="all", super_tile_px=512)
    units = list(plan.start())
    assert len(plan) == 4 * 3
    assert [len(unit.tile_yx) for unit in units] == [4, 4, 2, 2]
    receipt = Receipt(key=units[0].key, recipe="", outputs={}, tiles=4)
    assert list(plan.after(receipt)) == []
    assert all(unit.plan == plan.digest for unit in units)


SCRIPT = """
from tests.plan.build import blank, blobs
from tilestream.plan import plan_tiles
from tilestream.types import Shape
area = Shape(y=900, x=1100)
print(plan_tiles(blank(area, mpp=0.25), mpp=0.6, tile_px=64, where=blobs(Shape(y=90, x=110), area)).digest)
"""


@pytest.mark.parametrize("seed", ["0", "77"])
def test_digest_is_the_same_in_every_process(seed):
    names: dict[str, str] = {}
    exec(SCRIPT.replace("print(", "names['here'] = ("), {"names": names})
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == names["here"]


def test_digest_follows_what_decides():
    area = Shape(y=900, x=1100)
    base = {"tile_px": 64, "where": blobs(Shape(y=90, x=110), area)}
    digests = {
        plan_tiles(blank(area, **image), **{**base, **changed}).digest
        for image, changed in [
            ({}, {}),
            ({}, {"halo_px": 1}),
            ({}, {"tile_px": 32}),
            ({}, {"step_px": 32}),
            ({}, {"where": "all"}),
            ({}, {"min_share": 0.9}),
            ({}, {"super_tile_px": 512}),
            ({}, {"where": blobs(Shape(y=90, x=110), area, seed=1)}),
            ({"fingerprint": "other"}, {}),
            ({"selection": {"t": 3}}, {}),
        ]
    }
    assert len(digests) == 10


def test_a_million_pixels_wide_plans_at_once_in_little_memory():
    huge = blank(Shape(y=16, x=16))
    wide = Shape(y=10**6, x=10**6)
    level = replace(huge.info.levels[0], shape=wide)
    huge = replace(huge, source=replace(huge.source, info=replace(huge.info, levels=(level,))))
    tracemalloc.start()
    plan = plan_tiles(huge, where="all")
    first = next(iter(plan.start()))
    count = len(plan)
    selected = plan_tiles(huge, where=blobs(Shape(y=500, x=500), wide))
    total = len(selected)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (count, plan.units, len(first.tile_yx)) == (3907**2, 245**2, 256)
    assert 0.4 < total / count < 0.7
    assert peak < 200e6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"super_tile_px": 1000}, r"got 1000 px, expected a multiple of 256 px .* Give 1024, or"),
        ({"min_share": 0.0, "where": "blobs"}, "above 0, at most 1"),
        ({"edge": "mirror"}, "expected one of"),
        ({"tile_px": 0}, "at least 1 px"),
        ({"where": "tisue"}, "`tissue`, `all`, or a mask or GeoJSON file"),
    ],
)
def test_contradictions_are_refused(options, words):
    area = Shape(y=100, x=100)
    where = {"where": blobs(area, area) if options.get("where") == "blobs" else options.get("where", "all")}
    with pytest.raises(ConfigError, match=words):
        plan_tiles(blank(area), **{**options, **where})
