import google_crc32c
import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilestream.codecs.container import MAGIC, MOST_ENTRIES, Packed, is_container, pack, unpack
from tilestream.errors import ConfigError, DamagedError, SourceError

HEADERS = st.dictionaries(
    st.text(max_size=4), st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=9), max_size=5
)


def whole(body):
    """A body with the checksum that belongs to it, as an attacker would write it."""
    return body + google_crc32c.value(body).to_bytes(4, "little")


def described(description, payload=b""):
    """A container of any description."""
    return whole(MAGIC + b"\x01" + msgpack.packb(description) + payload)


@given(kind=st.sampled_from(["hash", "k", "x" * 31]), version=st.integers(1, 300), header=HEADERS, data=st.data())
def test_what_is_packed_is_unpacked(kind, version, header, data):
    sections = data.draw(st.lists(st.binary(max_size=300), max_size=4))
    packed = pack(kind, version=version, header=header, sections=sections)
    assert unpack(packed) == Packed(kind=kind, version=version, header=header, sections=tuple(sections))
    assert unpack(memoryview(packed), kinds={kind: version}).kind == kind
    assert packed == pack(kind, version=version, header=header, sections=sections)


def test_overhead_is_that_of_the_documentation():
    assert len(pack("flat", version=1)) == 15
    assert len(pack("flat", version=1, header={"v": b"\xf3\xf3\xf3"})) <= 24
    assert len(pack("hash", version=1, sections=[bytes(100)])) == 100 + 14 + len("hash")
    assert is_container(MAGIC)
    assert len(pack("shared", version=1, header={"d": bytes(8)}, sections=[bytes(1000)])) < 1000 + 36


def test_bytes_of_the_format_do_not_change():
    assert pack("hash", version=2, header={"L": 16}, sections=[b"ab", b"c"]).hex() == (
        "8a54530194a4686173680281a14c1092020161626363f77e02"
    )


@given(data=st.binary(max_size=200))
def test_no_bytes_are_taken_for_a_container_that_are_none(data):
    for tried in (data, MAGIC + data, MAGIC + b"\x01" + data, whole(MAGIC + b"\x01" + data)):
        with pytest.raises((DamagedError, SourceError)):
            unpack(tried)


PACKED = pack("hash", version=1, header={"L": 16, "p": [512, 512, 3]}, sections=[bytes(range(40)), b"x" * 30])


@given(end=st.integers(0, len(PACKED) - 1))
def test_a_cut_is_found(end):
    with pytest.raises(DamagedError):
        unpack(PACKED[:end])


@given(at=st.integers(0, 8 * len(PACKED) - 1))
def test_a_flipped_bit_is_found(at):
    flipped = bytearray(PACKED)
    flipped[at // 8] ^= 1 << at % 8
    with pytest.raises(DamagedError):
        unpack(flipped)


@pytest.mark.parametrize(
    ("description", "payload"),
    [
        (["hash", 1, {}, [2**62]], b""),
        (["hash", 1, {}, [5, 2**64 - 1]], b"12345"),
        (["hash", 1, {}, [-1, 2]], b"1"),
        (["hash", 1, {}, [1]], b"12"),
        (["hash", 1, {}], b"1"),
        (["hash", 1, {}, [0] * (MOST_ENTRIES + 1)], b""),
        (["hash", 1, {}, [True]], b"1"),
        (["hash", 1, {1: 2}, []], b""),
        (["hash", 1, {b"x": 2}, []], b""),
        (["hash", 0], b""),
        (["hash", 1.0], b""),
        (["", 1], b""),
        (["h" * 32, 1], b""),
        ([b"hash", 1], b""),
        (["hash"], b""),
        (["hash", 1, {}, [], 5], b""),
        ({"kind": "hash"}, b""),
        (7, b""),
        (["hash", 1, {"s": "x" * (1 << 16)}], b""),
        (["hash", 1, {"n": list(range(MOST_ENTRIES + 1))}], b""),
    ],
)
def test_contradictions_are_damage_though_the_checksum_is_right(description, payload):
    with pytest.raises(DamagedError):
        unpack(described(description, payload))


@pytest.mark.parametrize(
    "prefix", [b"\xdd\xff\xff\xff\xff", b"\xdc\xff\xff" * 2000, b"\x91" * 5000, b"\xc1", b"\xc6\xff\xff"]
)
def test_a_hostile_description_takes_no_memory(prefix):
    with pytest.raises(DamagedError):
        unpack(whole(MAGIC + b"\x01" + prefix))


def test_what_is_newer_is_named():
    with pytest.raises(SourceError, match="format 2"):
        unpack(whole(MAGIC + b"\x02anything"))
    with pytest.raises(SourceError, match="version 3, expected at most 2"):
        unpack(pack("hash", version=3), kinds={"hash": 2})
    with pytest.raises(SourceError, match="kind `new`, expected one of hash, siren"):
        unpack(pack("new", version=1), kinds={"siren": 1, "hash": 1})


@pytest.mark.parametrize(
    ("kind", "version", "header", "sections"),
    [
        ("", 1, {}, ()),
        ("größe", 1, {}, ()),
        ("hash", 0, {}, ()),
        ("hash", 1, {"text": "x" * 70000}, ()),
        ("hash", 1, {}, [b""] * (MOST_ENTRIES + 1)),
    ],
)
def test_what_cannot_be_described_is_refused(kind, version, header, sections):
    with pytest.raises(ConfigError, match="container of kind"):
        pack(kind, version=version, header=header, sections=sections)


def test_numbers_of_a_header_are_checked():
    packed = Packed(
        kind="k", version=1, header={"n": 3, "f": 0.5, "l": [1, 2.5], "b": True, "s": "box"}, sections=(b"x",)
    )
    assert packed.whole("n", least=1, most=3) == 3
    assert packed.whole("m", least=1, most=3, default=2) == 2
    assert packed.number("f", least=0, most=1) == 0.5
    assert packed.number("n", least=0, most=5) == 3.0
    assert packed.numbers("l", least=0, most=5, count=2) == (1, 2.5)
    assert packed.text("s", choices=["box"]) == "box"
    assert packed.section_bytes(1) == (b"x",)
    for wrong in (
        lambda: packed.whole("n", least=4, most=9),
        lambda: packed.whole("f", least=0, most=9),
        lambda: packed.whole("b", least=0, most=9),
        lambda: packed.whole("missing", least=0, most=9),
        lambda: packed.number("s", least=0, most=9),
        lambda: packed.number("missing", least=0, most=9),
        lambda: packed.numbers("l", count=3),
        lambda: packed.numbers("l", least=2),
        lambda: packed.numbers("n"),
        lambda: packed.text("s", choices=["binomial"]),
        lambda: packed.section_bytes(2),
    ):
        with pytest.raises(DamagedError, match="of kind `k`"):
            wrong()
    nan = Packed(kind="k", version=1, header={"f": float("nan"), "l": [float("inf")]}, sections=())
    for wrong in (lambda: nan.number("f", least=-1, most=1), lambda: nan.numbers("l")):
        with pytest.raises(DamagedError):
            wrong()


def test_the_front_of_a_container_gives_the_sections_that_are_whole():
    sections = (b"one", b"", b"three", bytes(40))
    data = pack("hash", version=1, header={"n": 3}, sections=sections)
    start = data.index(b"one")
    for end in range(len(data) + 1):
        if end < start:
            with pytest.raises(DamagedError):
                unpack(data[:end], cut=True)
            continue
        found = unpack(data[:end], cut=True)
        expected = [one for n, one in enumerate(sections) if start + sum(map(len, sections[: n + 1])) <= end]
        assert (found.kind, found.header, list(found.sections)) == ("hash", {"n": 3}, expected)
        if end < len(data):
            with pytest.raises(DamagedError, match="checksum"):
                unpack(data[:end])
    changed = bytearray(data)
    changed[-20] ^= 1
    for wrong in (bytes(changed), data + b"more"):
        with pytest.raises(DamagedError, match="checksum"):
            unpack(wrong, cut=True)
