"""QPTIFF: channels in pages of their own at each level, names and colours, and the pictures that stay inside."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from tests.sources.assembled import whole_level
from tests.sources.madetiff import photo
from tilestream.errors import ConfigError, SourceError
from tilestream.sources.extras import associated_images, read_extras
from tilestream.sources.opening import open_source

CHANNELS = (("DAPI", "0,0,255", 15000), ("Opal 570", "255,128,0", 250000), ("Opal 570", "300,0,0", 8))
ROOT = "PerkinElmer-QPI-ImageDescription"


def describe(kind, **more):
    """The declaration says UTF-16, which the bytes are not: so are real files."""
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in {"ImageType": kind, **more}.items())
    plan = "<ScanProfile><Name>of Penelope</Name><ImageType>x</ImageType></ScanProfile>"
    return f'<?xml version="1.0" encoding="utf-16"?><{ROOT}><SlideID>Penelope</SlideID>{plan}{inner}</{ROOT}>'


def halved(pixels):
    return pixels[: pixels.shape[0] // 2 * 2 : 2, : pixels.shape[1] // 2 * 2 : 2].copy()


def write(path, *, lose=None, base=None, rgb=False):
    """Write what a scanner writes; `lose` leaves out a channel of the coarse level. Returns the channels."""
    rng = np.random.default_rng(1)
    base = rng.integers(0, 60000, (3, 203, 151)).astype(np.uint16) if base is None else base
    options = {"metadata": None, "software": False}
    resolution = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as file:

        def put(pixels, kind, number=0):
            name, color, exposure = CHANNELS[number]
            text = describe(kind, Name=name, Color=color, ExposureTime=exposure, Objective="20x",
                            AcquisitionSoftware="VectraScan 1.0.10")  # fmt: skip
            photometric = "rgb" if pixels.ndim == 3 else "minisblack"
            file.write(
                pixels, description=text.encode(), tile=(64, 64), photometric=photometric, **resolution, **options
            )

        planes = [base] if rgb else list(base)
        for number, pixels in enumerate(planes):
            put(pixels, "FullResolution", number)
        thumbnail = photo(30, 20)
        file.write(thumbnail, description=describe("Thumbnail").encode(), photometric="rgb", **options)
        for number, pixels in enumerate(planes):
            if number != lose:
                put(halved(pixels), "ReducedResolution", number)
        for kind, value in (("Overview", 90), ("Label", 40)):
            picture = np.full((20, 30, 3), value, np.uint8)
            file.write(picture, description=describe(kind).encode(), photometric="rgb", **options)
    return base


def test_channels_and_levels(tmp_path):
    base = write(tmp_path / "a.qptiff")
    source = open_source(str(tmp_path / "a.qptiff"))
    info = source.info
    assert (info.format, info.modality, info.mpp_yx) == ("qptiff", "fluorescence", (0.5, 0.5))
    assert [(channel.name, channel.color) for channel in info.channels] == [
        ("DAPI", "0000FF"),
        ("Opal 570", "FF8000"),
        ("Opal 570-2", None),
    ]
    assert [level.shape.yx for level in info.levels] == [(203, 151), (101, 75)]
    assert info.levels[1].scale_yx == (2.0, 2.0)
    np.testing.assert_array_equal(whole_level(source)[0], np.moveaxis(base, 0, 2))
    np.testing.assert_array_equal(whole_level(source, 1)[0], np.moveaxis([halved(plane) for plane in base], 0, 2))
    assert not info.notes


def test_facts_and_pictures(tmp_path):
    write(tmp_path / "a.qptiff")
    source = open_source(str(tmp_path / "a.qptiff"))
    extras = read_extras(source)
    assert extras.technical == {
        "software": ["VectraScan 1.0.10"],
        "objective_power": 20,
        "compression": "none",
        "channels": [{"exposure_s": 0.015}, {"exposure_s": 0.25}, {"exposure_s": 8e-6}],
    }
    assert "Penelope" in extras.identifying["ImageDescription"]
    assert source.info.associated == ("thumbnail",)
    with pytest.raises(ConfigError):
        source.read_associated("label")
    found = associated_images(source, True)
    assert {name: round(float(pixels.mean())) for name, pixels in found.items() if name != "thumbnail"} == {
        "label": 40,
        "macro": 90,
    }


def test_brightfield(tmp_path):
    base = write(tmp_path / "a.qptiff", base=photo(203, 151), rgb=True)
    source = open_source(str(tmp_path / "a.qptiff"))
    assert [channel.name for channel in source.info.channels] == ["R", "G", "B"]
    assert source.info.modality == "brightfield"
    np.testing.assert_array_equal(whole_level(source, 1)[0], halved(base))


def test_a_level_that_lacks_a_channel_is_left_out(tmp_path):
    write(tmp_path / "a.qptiff", lose=1)
    info = open_source(str(tmp_path / "a.qptiff")).info
    assert len(info.levels) == 1
    assert any("other channels" in note for note in info.notes)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"FullResolution", b"FullRxsolution", "without `FullResolution`"),
        (b"</SlideID>", b"</SlideXX>", "does not parse"),
    ],
)
def test_broken_descriptions_are_refused(tmp_path, old, new, said):
    write(tmp_path / "a.qptiff")
    data = (tmp_path / "a.qptiff").read_bytes()
    (tmp_path / "a.qptiff").write_bytes(data.replace(old, new))
    with pytest.raises(SourceError, match=said):
        open_source(str(tmp_path / "a.qptiff"))
