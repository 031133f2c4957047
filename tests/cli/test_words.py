from __future__ import annotations

import pytest

from tilestream.cli.words import counted, duration, number, shortened, size


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1 << 20, "1.00 MiB"),
        (150 << 20, "150 MiB"),
        (3 << 51, "6.00 PiB"),
    ],
)
def test_size(nbytes: int, text: str) -> None:
    assert size(nbytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (float("inf"), "–"),
        (3.21, "3.2 s"),
        (0.04, "< 0.1 s"),
        (0, "0.0 s"),
        (60, "1:00"),
        (245.4, "4:05"),
        (7445, "2:04:05"),
    ],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.53, "0.5"), (0.0213, "0.021"), (3.0, "3"), (12345.6, "12,346")]
)
def test_number(value: float | None, text: str) -> None:
    assert number(value) == text


def test_counted() -> None:
    assert [counted(n, "tile") for n in (0, 1, 1200)] == ["0 tiles", "1 tile", "1,200 tiles"]


def test_shortened_keeps_the_end() -> None:
    assert shortened("a/b.svs", 7) == "a/b.svs"
    assert shortened("patient/slide.svs", 10) == "…slide.svs"
