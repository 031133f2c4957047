"""Rows of what is asked for in the panel: means, pictures that are missing, and bars."""

from __future__ import annotations

import math

import pytest

from tests.bench.rd_bars import RATES, Aim, bits_row, rows_of, structure_row
from tilestream.codecs import Curve, Point

AIM = Aim(codec="mine", groups=("g",), bits={"jpegxl": -35.0})


def curve(codec: str, picture: str, *, factor: float = 1.0, gain: float = 0.0, steps: int = 6) -> Curve:
    points = [
        Point(
            setting=k, size_bytes=1, bpp=factor * 2.0**k / 4, seconds=0.0,
            scores={"psnr": 24.0 + 4 * k, "ms_ssim": 0.9 + 0.01 * k + gain},
        )
        for k in range(steps)
    ]  # fmt: skip
    return Curve(codec=codec, picture=picture, points=tuple(points))


@pytest.mark.parametrize(("factors", "is_held"), [((0.5, 0.6), True), ((0.5, 0.9), False)])
def test_bits_are_the_mean_over_pictures(factors: tuple[float, float], is_held: bool) -> None:
    names = ("p", "q")
    mine = {name: curve("mine", name, factor=factor) for name, factor in zip(names, factors, strict=True)}
    row = bits_row(mine, {name: curve("jpegxl", name) for name in names}, -35.0)
    assert row["value"] == pytest.approx(100 * (sum(factors) / 2 - 1))
    assert row["ok"] is is_held
    assert "p -50.0 %, q" in row["note"]
    assert row["name"].startswith("mine, bits over JPEG XL at equal PSNR")


@pytest.mark.parametrize("short", [{"steps": 2}, None])
def test_a_picture_that_cannot_be_compared_misses_the_bar(short: dict[str, int] | None) -> None:
    mine = {name: curve("mine", name, factor=0.1) for name in ("p", "q")}
    theirs = {"p": curve("jpegxl", "p")} | ({} if short is None else {"q": curve("jpegxl", "q", **short)})
    row = bits_row(mine, theirs, -35.0)
    assert row["value"] == pytest.approx(-90)
    assert "1 of 2 pictures" in row["name"]
    assert "q none" in row["note"]
    assert row["ok"] is False
    assert math.isnan(bits_row(mine, {}, -35.0)["value"])


@pytest.mark.parametrize(("gain", "is_held"), [(0.002, True), (-0.002, False)])
def test_structure_is_compared_at_equal_bits(gain: float, is_held: bool) -> None:
    row = structure_row({"p": curve("mine", "p", gain=gain)}, {"p": curve("jpegxl", "p")})
    assert row["value"] == pytest.approx(gain)
    assert row["ok"] is is_held
    assert row["note"].count("bpp") == len(RATES)


def test_only_what_took_part_is_asked_for() -> None:
    groups = {"p": "g", "other": "h"}
    theirs = [curve("jpegxl", name) for name in groups]
    assert rows_of(theirs, groups, [AIM]) == []
    assert rows_of([*theirs, curve("mine", "other")], groups, [AIM]) == []
    assert len(rows_of([*theirs, curve("mine", "p")], groups, [AIM])) == 2
