"""What all JPEG tiles of one TIFF have in common: size, components, resolution of colour, and what components mean.

References
----------
ITU-T T.81, annex B.2.2; ITU-T T.872 (the marker of Adobe); TIFF Technical Note 2.
"""

from __future__ import annotations

from dataclasses import dataclass

from tilestream.errors import DamagedError
from tilestream.sources.jpegcheck import segment

_BASELINE = frozenset({0xC0, 0xC1})  # TIFF knows no other frames, and readers may not either
_START_OF_SCAN = 0xDA
_RGB_IDS = (82, 71, 66)


@dataclass(frozen=True, kw_only=True)
class JpegForm:
    """The form of a stream that stands for itself."""

    height: int
    """Rows."""
    width: int
    """Columns."""
    components: int
    """1 for grey, 3 for colours."""
    subsampling: tuple[int, int] = (1, 1)
    """Along x and y, how many pixels share one colour."""
    is_ycbcr: bool = False
    """Whether components are luminance and colour; otherwise grey, or red, green and blue."""


def jpeg_form(data: bytes) -> JpegForm | None:
    """Return the form of a stream, None for one that a TIFF cannot hold.

    Parameters
    ----------
    data : bytes
        A stream with all its tables.

    Returns
    -------
    JpegForm or None
        None for frames that are progressive or lossless, 2 or 4 components, and odd resolutions of colour.
    """
    position, transform, is_jfif = 2, -1, False
    components: list[tuple[int, int, int]] = []
    height = width = 0
    try:
        while True:
            code, body, position = segment(data, position)
            if code in _BASELINE:
                height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
                components = [(body[at], body[at + 1] >> 4, body[at + 1] & 15) for at in range(6, 6 + 3 * body[5], 3)]
            elif code == 0xE0 and body[:4] == b"JFIF":
                is_jfif = True
            elif code == 0xEE and body[:5] == b"Adobe" and len(body) >= 12:
                transform = body[11]
            elif code == _START_OF_SCAN:
                break
    except (DamagedError, IndexError):
        return None
    if len(components) not in (1, 3) or any(pair[1:] != (1, 1) for pair in components[1:]):
        return None
    first = (1, 1) if len(components) == 1 else components[0][1:]  # of grey alone it means nothing
    # the order in which libjpeg asks
    says_rgb = transform == 0 if transform >= 0 else tuple(c[0] for c in components) == _RGB_IDS
    return JpegForm(
        height=height,
        width=width,
        components=len(components),
        subsampling=(first[0], first[1]),
        is_ycbcr=len(components) == 3 and (is_jfif or not says_rgb),
    )
