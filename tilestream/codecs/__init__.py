"""Bytes to pixels or features, and back: fields, conventional codecs, measures of quality, rate and distortion.

Public names are loaded when they are first used. Fields are fitted with torch and decoded without.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilestream.codecs.conventional import CONVENTIONAL as CONVENTIONAL
    from tilestream.codecs.conventional import ConventionalCodec as ConventionalCodec
    from tilestream.codecs.fields.field import Field as Field
    from tilestream.codecs.fields.fourierfield import FourierField as FourierField
    from tilestream.codecs.fields.hashfield import HashField as HashField
    from tilestream.codecs.fields.modulatedfield import ModulatedField as ModulatedField
    from tilestream.codecs.fields.picture import Levels as Levels
    from tilestream.codecs.fields.picture import Picture as Picture
    from tilestream.codecs.fields.sharedfield import SharedField as SharedField
    from tilestream.codecs.fields.sirenfield import SirenField as SirenField
    from tilestream.codecs.panel import Contestant as Contestant
    from tilestream.codecs.panel import PanelPicture as PanelPicture
    from tilestream.codecs.panel import run_panel as run_panel
    from tilestream.codecs.panel import scores_of as scores_of
    from tilestream.codecs.perceptual import lpips as lpips
    from tilestream.codecs.perceptual import ssimulacra2 as ssimulacra2
    from tilestream.codecs.pyramid.pyramidcodec import PyramidCodec as PyramidCodec
    from tilestream.codecs.pyramid.pyramidtile import PyramidTile as PyramidTile
    from tilestream.codecs.quality import H_AND_DAB as H_AND_DAB
    from tilestream.codecs.quality import H_AND_E as H_AND_E
    from tilestream.codecs.quality import od_psnr as od_psnr
    from tilestream.codecs.quality import psnr as psnr
    from tilestream.codecs.rd import Curve as Curve
    from tilestream.codecs.rd import Point as Point
    from tilestream.codecs.rd import bd_rate as bd_rate
    from tilestream.codecs.structure import ms_ssim as ms_ssim
    from tilestream.codecs.structure import ssim as ssim

_HOMES = {
    "CONVENTIONAL": "conventional",
    "Contestant": "panel",
    "ConventionalCodec": "conventional",
    "Curve": "rd",
    "Field": "fields.field",
    "FourierField": "fields.fourierfield",
    "H_AND_DAB": "quality",
    "H_AND_E": "quality",
    "HashField": "fields.hashfield",
    "Levels": "fields.picture",
    "ModulatedField": "fields.modulatedfield",
    "PanelPicture": "panel",
    "Picture": "fields.picture",
    "Point": "rd",
    "PyramidCodec": "pyramid.pyramidcodec",
    "PyramidTile": "pyramid.pyramidtile",
    "SharedField": "fields.sharedfield",
    "SirenField": "fields.sirenfield",
    "bd_rate": "rd",
    "lpips": "perceptual",
    "ms_ssim": "structure",
    "od_psnr": "quality",
    "psnr": "quality",
    "run_panel": "panel",
    "scores_of": "panel",
    "ssim": "structure",
    "ssimulacra2": "perceptual",
}

__all__ = [
    "CONVENTIONAL",
    "H_AND_DAB",
    "H_AND_E",
    "Contestant",
    "ConventionalCodec",
    "Curve",
    "Field",
    "FourierField",
    "HashField",
    "Levels",
    "ModulatedField",
    "PanelPicture",
    "Picture",
    "Point",
    "PyramidCodec",
    "PyramidTile",
    "SharedField",
    "SirenField",
    "bd_rate",
    "lpips",
    "ms_ssim",
    "od_psnr",
    "psnr",
    "run_panel",
    "scores_of",
    "ssim",
    "ssimulacra2",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`; public names: {', '.join(__all__)}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
