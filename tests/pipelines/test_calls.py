"""What is handed to a public call by mistake, most often a path in the place of an image, is told at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tilestream as ts
from tilestream.errors import ConfigError
from tilestream.fovea import GazeStream, fixations_of
from tilestream.testing.slide import write_slide
from tilestream.types import Shape

BOX = ts.Box(y=0, x=0, height=8, width=8)
Call = Callable[[ts.Pyramid], object]


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory: pytest.TempPathFactory) -> ts.Pyramid:
    return ts.open_pyramid(write_slide(tmp_path_factory.mktemp("slide") / "a.tif", Shape(y=300, x=300), tile_px=128))


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("plan_tiles", lambda given: ts.plan_tiles(given)),
        ("plan_tokens", lambda given: ts.plan_tokens(given, budget=9)),
        ("stream_tiles", lambda given: list(ts.stream_tiles(given, "a plan"))),
        ("read_tokens", lambda given: ts.read_tokens(given, "a plan")),
        ("map_tiles", lambda given: ts.map_tiles(given, "a plan", "handcrafted", "out")),
        ("guided_crop", lambda given: ts.guided_crop(given, BOX)),
        ("to_datatree", lambda given: ts.to_datatree(given)),
        ("Relevance", lambda given: ts.Relevance.of("entropy")(given)),
    ],
)
@pytest.mark.parametrize("given", ["slide.svs", Path("slide.svs"), None], ids=["str", "path", "nothing"])
def test_a_path_is_no_image(name: str, call: Callable[[object], object], given: object) -> None:
    message = f"of `{name}`: got {type(given).__name__}, expected Pyramid. Open the image first: `tilestream.open_pyr"
    with pytest.raises(ConfigError, match=re.escape(message)):
        call(given)


@pytest.mark.parametrize(
    "call",
    [
        lambda pyramid: pyramid.read((0, 0, 8, 8)),
        lambda pyramid: pyramid.read_region((0, 0, 8, 8)),
        lambda pyramid: pyramid.crop((0, 0, 8, 8), 100),
        lambda pyramid: ts.guided_crop(pyramid, (0, 0, 8, 8)),
    ],
)
def test_four_numbers_are_no_box(call: Call, pyramid: ts.Pyramid) -> None:
    with pytest.raises(ConfigError, match=re.escape("`box` of `pyramid`: got tuple, expected Box. Make one: `tiles")):
        call(pyramid)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda pyramid: list(ts.stream_tiles(pyramid, "plan")), "`plan`: got none of an image, expected a plan of"),
        (lambda pyramid: ts.read_tokens(pyramid, "plan"), "`plan`: got none of an image, expected a plan of"),
        (lambda pyramid: fixations_of(pyramid, 2), "`scores` of `fixations_of`: got Pyramid, expected ScoreMap"),
        (lambda pyramid: GazeStream(None, Shape(y=9, x=9), patch_px=4), "`fovea` of `GazeStream`: got NoneType"),
        (lambda pyramid: ts.codecs.PyramidCodec().encode("a.png"), "`pixels` of `encode`: got str, expected ndarray"),
        (lambda pyramid: ts.codecs.PyramidCodec().decode("a.bin"), "`data` of `decode`: got str, expected bytes"),
    ],
)
def test_what_is_of_another_type_is_named(call: Call, message: str, pyramid: ts.Pyramid) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        call(pyramid)


@pytest.mark.parametrize(
    "given",
    [{"scales": "7"}, {"steps": 1.5}, {"max_error": 0.5}, {"quality": True}, {"quality": np.nan}, {"lmbda": "low"}],
    ids=str,
)
def test_settings_of_the_codec_have_their_types(given: dict[str, object]) -> None:
    [(name, value)] = given.items()
    with pytest.raises(ConfigError, match=re.escape(f"`{name}` of a codec: got {value!r}, expected ")):
        ts.codecs.PyramidCodec(**given)
