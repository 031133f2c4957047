import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilestream.cache.ranges import KeptRanges
from tilestream.sources.ranges import spans_of

RANGES = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 60)), max_size=30)


@given(ranges=RANGES, gap=st.integers(0, 40), most=st.integers(1, 200))
def test_spans_serve_every_range_and_fetch_nothing_in_vain(ranges, gap, most):
    spans = spans_of(ranges, gap=gap, most=most)
    served = sorted(number for span in spans for number in span.members)
    assert served == [number for number, (_, nbytes) in enumerate(ranges) if nbytes]
    for span in spans:
        parts = sorted((ranges[number][0], sum(ranges[number])) for number in span.members)
        assert span.start == parts[0][0]
        assert span.stop == max(stop for _, stop in parts)
        assert span.stop - span.start <= most or len(parts) == 1
        reached = span.start
        for start, stop in parts:
            assert start - reached <= gap
            reached = max(reached, stop)


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([(0, 10), (10, 10)], [(0, 20)]),
        ([(30, 10), (0, 10)], [(0, 40)]),
        ([(0, 10), (31, 10)], [(0, 10), (31, 41)]),  # a gap of 21
        ([(0, 90), (90, 90)], [(0, 90), (90, 180)]),  # larger than a request together
        ([(0, 300)], [(0, 300)]),
        ([], []),
    ],
)
def test_spans_by_hand(ranges, expected):
    assert [(span.start, span.stop) for span in spans_of(ranges, gap=20, most=100)] == expected


@given(
    steps=st.lists(
        st.tuples(st.booleans(), st.sampled_from("ab"), st.integers(0, 90), st.integers(1, 60)), min_size=1, max_size=60
    )
)
def test_what_is_kept_is_right_and_never_more_than_the_budget(steps):
    content = {"a": bytes(range(0, 200)), "b": bytes(range(50, 250))}
    kept = KeptRanges(lambda: 120)
    for is_put, file, start, size in steps:
        if is_put:
            kept.put(file, start, content[file][start : start + size])
        else:
            assert kept.get(file, start, start + size) in (None, content[file][start : start + size])
        assert kept.held_bytes == sum(map(len, kept._ranges.values())) <= 120
        assert sorted(kept._ranges) == sorted((name, at) for name, starts in kept._starts.items() for at in starts)


def test_the_least_recently_used_is_forgotten_first():
    kept = KeptRanges(lambda: 100)
    for name in "abc":
        kept.put(name, 0, bytes(30))
    assert kept.get("a", 0, 30) is not None
    kept.put("d", 0, bytes(30))
    assert [name for name in "abcd" if kept.get(name, 0, 30) is not None] == ["a", "c", "d"]
    kept.put("e", 0, bytes(51))  # more than half
    assert kept.get("e", 0, 1) is None


def test_a_large_range_is_not_hidden_by_smaller_ones_in_it():
    kept = KeptRanges(lambda: 1000)
    kept.put("a", 50, bytes(20))
    kept.put("a", 180, bytes(40))
    kept.put("a", 0, bytes(range(200)))
    kept.put("a", 60, bytes(range(60, 70)))
    assert kept.get("a", 65, 100) == bytes(range(65, 100))
    assert kept.get("a", 190, 210) == bytes(20)
    assert len(kept._ranges) == 2  # what lies in a kept one is not kept again
