import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from tilestream.errors import ConfigError
from tilestream.kernels.fovea_tree import fovea_tokens


def tree_of(fixations, size_px, e0, patch, most, was_split=None, law=lambda ratio: np.log2(1 + ratio)):
    """The definition, node by node: split while L(nearest point) < level, with hysteresis where something was."""
    found = []

    def visit(level, y, x):
        edge = patch * 2**level
        if y * edge >= size_px[0] or x * edge >= size_px[1]:
            return
        e = min(
            np.hypot(max(y * edge - fy, 0, fy - (y + 1) * edge), max(x * edge - fx, 0, fx - (x + 1) * edge))
            for fy, fx in fixations
        )
        bias = 0 if was_split is None else (0.25 if (level, y, x) in was_split else -0.25)
        if level and law(e / e0) < level + bias:
            for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
                visit(level - 1, 2 * y + i, 2 * x + j)
        else:
            found.append((level, y * edge, x * edge, edge))

    edge = patch * 2**most
    for y in range(-(-size_px[0] // edge)):
        for x in range(-(-size_px[1] // edge)):
            visit(most, y, x)
    return sorted(found, key=lambda row: (-row[0], row[1], row[2]))


@pytest.mark.parametrize(
    ("edge_px", "patch_px", "max_level", "e0_px", "by_level"),
    [
        (1024, 16, 4, 32, [16, 60, 48, 48]),
        (1024, 16, 4, 45, [48, 84, 104, 32]),
        (1024, 16, 4, 64, 376),
        (1024, 16, 4, 128, 832),
        (1024, 16, 4, 256, 1696),
        (131072, 256, 9, 1024, 916),
        (131072, 256, 9, 2048, 2620),
        (131072, 256, 9, 8192, 19996),
    ],
)
def test_counts_of_the_published_table(edge_px, patch_px, max_level, e0_px, by_level) -> None:
    centre = np.array([[edge_px / 2, edge_px / 2]])
    tokens = fovea_tokens(centre, (edge_px, edge_px), e0_px=e0_px, patch_px=patch_px, max_level=max_level)
    assert len(tokens) == np.sum(by_level)
    if isinstance(by_level, list):
        assert_array_equal(np.bincount(tokens[:, 0]), by_level)
    assert (tokens[:, 3] ** 2).sum() == edge_px**2


@given(data=st.data())
def test_trees_are_those_of_the_definition(data: st.DataObject) -> None:
    size_px = (data.draw(st.integers(1, 300)), data.draw(st.integers(1, 300)))
    patch, most = data.draw(st.sampled_from([5, 8, 16])), data.draw(st.integers(0, 4))
    e0 = data.draw(st.sampled_from([3.0, 20.0, 100.0]))
    noise = np.random.default_rng(data.draw(st.integers(0, 999)))
    fixations = noise.random((data.draw(st.integers(1, 3)), 2)) * 350 - 20
    keywords = {"e0_px": e0, "patch_px": patch, "max_level": most}
    law = {}
    if data.draw(st.booleans()):  # one that is no inverse-linear one, given as the radius that reaches a level
        keywords["reach"], law = np.sqrt, {"law": np.square}
    tokens = fovea_tokens(fixations, size_px, **keywords)
    assert [tuple(row) for row in tokens.tolist()] == tree_of(fixations, size_px, e0, patch, most, **law)
    covered = np.zeros(size_px, int)
    for _, y, x, size in tokens.tolist():
        covered[y : y + size, x : x + size] += 1
    assert_array_equal(covered, 1)

    was_split = {
        (above, y // (patch << above), x // (patch << above))
        for level, y, x, _ in tokens.tolist()
        for above in range(level + 1, most + 1)
    }
    moved = fixations + noise.uniform(-15, 15, fixations.shape)
    after = fovea_tokens(moved, size_px, previous=tokens, **keywords)
    assert [tuple(row) for row in after.tolist()] == tree_of(moved, size_px, e0, patch, most, was_split, **law)


def test_a_gaze_that_trembles_changes_nothing() -> None:
    keywords = {"e0_px": 45.0, "patch_px": 16, "max_level": 4}
    centre = np.array([[512.0, 512.0]])
    first = fovea_tokens(centre, (1024, 1024), **keywords)
    steady = fovea_tokens(centre, (1024, 1024), previous=first, **keywords)
    changed = 0
    for k in range(20):
        gaze = centre + 3 * np.array([[np.sin(k), np.cos(k)]])
        assert_array_equal(fovea_tokens(gaze, (1024, 1024), previous=steady, **keywords), steady)
        changed += len(fovea_tokens(gaze, (1024, 1024), **keywords)) != len(first)
    assert changed, "without hysteresis it does"


def test_a_plan_of_17_gigapixels_in_time() -> None:
    """Promised: 10 ms."""
    seconds = []
    for _ in range(5):
        start = time.thread_time()  # of the processor, which other work on the machine does not change
        fovea_tokens(np.array([[70000.0, 60000.0]]), (131072, 131072), e0_px=2048, patch_px=256, max_level=9)
        seconds.append(time.thread_time() - start)
    assert min(seconds) < 0.01


CENTRE = np.array([[5.0, 5.0]])


@pytest.mark.parametrize(
    ("fixations", "keywords", "message"),
    [
        ([[5, 5]], {}, "`fixations` of `fovea_tokens`: got list"),
        (CENTRE.astype(int), {}, "int64"),
        (CENTRE[0], {}, "2 axes"),
        (CENTRE[:0], {}, "at least one sample"),
        (np.ones((2, 3)), {}, r"shape \(2, 2\)"),
        (CENTRE * np.inf, {}, "not finite"),
        (CENTRE, {"size_px": (0, 9)}, "`size_px`"),
        (CENTRE, {"e0_px": 0}, "`e0_px`"),
        (CENTRE, {"patch_px": 0}, "`patch_px`"),
        (CENTRE, {"max_level": -1}, "`max_level`"),
        (CENTRE, {"hysteresis": 2}, "`hysteresis`"),
        (CENTRE, {"previous": np.zeros((1, 4))}, "`previous`.*int64"),
    ],
)
def test_what_is_no_gaze_is_refused(fixations, keywords, message) -> None:
    keywords = {"size_px": (10, 10), "e0_px": 2.0, "patch_px": 2, "max_level": 2, **keywords}
    with pytest.raises(ConfigError, match=message):
        fovea_tokens(fixations, **keywords)
