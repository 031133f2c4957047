import numpy as np
import pytest

from tilestream.codecs.container import Packed, pack, unpack
from tilestream.codecs.fields.picture import Picture
from tilestream.codecs.fields.pictureheader import picture_header, picture_of
from tilestream.errors import DamagedError


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32"])
def test_a_picture_comes_back(dtype):
    pixels = (np.arange(2 * 5 * 7).reshape(2, 5, 7) * 1.5).astype(dtype)
    picture = Picture.of(pixels, levels=3)
    packed = pack("x", version=1, header=picture_header(picture))
    assert picture_of(unpack(packed)) == picture
    assert len(packed) <= (27 if dtype in ("uint8", "int8") else 60)


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"p": [5, 7, 2, 0]},
        {"p": [0, 7, 2, 0, 1]},
        {"p": [2**40, 7, 2, 0, 1]},
        {"p": [5.5, 7, 2, 0, 1]},
        {"p": [5, 7, 17, 0, 1]},
        {"p": [5, 7, 0, 0, 1]},
        {"p": [5, 7, 1, 9, 1]},
        {"p": [5, 7, 1, 0, 0]},
        {"p": [5, 7, 1, 0, 33]},
        {"p": [5, 7, 1, 0, 1], "r": [0]},
        {"p": [5, 7, 1, 0, 1], "r": [1, 1]},
        {"p": [5, 7, 1, 0, 1], "r": [float("nan"), 1]},
        {"p": "picture"},
    ],
)
def test_what_is_no_picture_is_damage(header):
    with pytest.raises(DamagedError, match="of kind `x`"):
        picture_of(Packed(kind="x", version=1, header=header, sections=()))
