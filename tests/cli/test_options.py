from __future__ import annotations

from pathlib import Path

import pytest
import typer

from tilestream.cli.options import parse_range, parse_size


@pytest.mark.parametrize(("text", "nbytes"), [("2GiB", 2 << 30), ("500 MB", 500 * 10**6), ("4096", 4096)])
def test_sizes(text: str, nbytes: int) -> None:
    assert parse_size(text) == nbytes


@pytest.mark.parametrize("text", ["", "much", "-1GiB", "0", "2 elephants"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="2GiB"):
        parse_size(text)


def test_ranges() -> None:
    assert parse_range("-0.5,10000") == (-0.5, 10000.0)


@pytest.mark.parametrize("text", ["", "1", "1,2,3", "2,1", "1,1", "0,inf", "a,b"])
def test_no_ranges(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="rising"):
        parse_range(text)


def test_out_is_a_path_type() -> None:
    from tilestream.cli.encoding import encoder_choices
    from tilestream.cli.options import embed_config

    (encoder,) = embed_config(encoders=encoder_choices(None, value_range=(0, 2)), out=Path("x")).encoders
    assert encoder.name == "handcrafted"
    assert encoder.params == {"value_range": [0, 2]}
