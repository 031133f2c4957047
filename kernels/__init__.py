"""Pixel operations on CPU and CUDA; they know arrays and nothing else.

An operation takes NumPy arrays, or arrays on a CUDA device, and returns the same kind. Its last parameters are the same
everywhere: `out` takes the result, `backend` insists on `"cpu"` or `"cuda"`, `stream` is the handle of a CUDA stream,
`threads` bounds the CPU threads (all cores by default; 1 inside a task).
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilestream.kernels.allocate import Allocation as Allocation
    from tilestream.kernels.allocate import allocate as allocate
    from tilestream.kernels.anisotropic import anisotropic as anisotropic
    from tilestream.kernels.blend import blend as blend
    from tilestream.kernels.blend_finish import Blended as Blended
    from tilestream.kernels.blend_finish import finish_blend as finish_blend
    from tilestream.kernels.blend_sums import BlendSums as BlendSums
    from tilestream.kernels.blend_sums import blend_sums as blend_sums
    from tilestream.kernels.coarser_histograms import coarser_histograms as coarser_histograms
    from tilestream.kernels.companding import compand as compand
    from tilestream.kernels.cosines import cosines as cosines
    from tilestream.kernels.coverage import coverage as coverage
    from tilestream.kernels.coverage import covered_area as covered_area
    from tilestream.kernels.descriptors import DescriptorSums as DescriptorSums
    from tilestream.kernels.descriptors import descriptors as descriptors
    from tilestream.kernels.entropy import entropy as entropy
    from tilestream.kernels.ewa import ewa as ewa
    from tilestream.kernels.fir import Fir as Fir
    from tilestream.kernels.fir import fir_of as fir_of
    from tilestream.kernels.fluorescence import tissue_fluorescence as tissue_fluorescence
    from tilestream.kernels.fovea import fovea_gains as fovea_gains
    from tilestream.kernels.fovea import fovea_levels as fovea_levels
    from tilestream.kernels.fovea_tree import fovea_tokens as fovea_tokens
    from tilestream.kernels.gather import gather as gather
    from tilestream.kernels.gradient import gradient as gradient
    from tilestream.kernels.gradient_magnitude import gradient_magnitude as gradient_magnitude
    from tilestream.kernels.hash_decode import hash_decode as hash_decode
    from tilestream.kernels.hash_encode import hash_encode as hash_encode
    from tilestream.kernels.hashgrid import HashGrid as HashGrid
    from tilestream.kernels.histogram import histogram as histogram
    from tilestream.kernels.logpolar import logpolar as logpolar
    from tilestream.kernels.macenko import estimate_stains as estimate_stains
    from tilestream.kernels.mask import pen_marks as pen_marks
    from tilestream.kernels.mask import tissue_brightfield as tissue_brightfield
    from tilestream.kernels.mip import MipLevel as MipLevel
    from tilestream.kernels.mip import mip as mip
    from tilestream.kernels.mip import mip_levels as mip_levels
    from tilestream.kernels.mip import update_mip as update_mip
    from tilestream.kernels.mlp import mlp as mlp
    from tilestream.kernels.mlp_layers import MlpLayers as MlpLayers
    from tilestream.kernels.moments import Moments as Moments
    from tilestream.kernels.moments import moments as moments
    from tilestream.kernels.nodata import nodata_mask as nodata_mask
    from tilestream.kernels.orientation_coherence import Orientation as Orientation
    from tilestream.kernels.orientation_coherence import orientation_coherence as orientation_coherence
    from tilestream.kernels.patchify import patchify as patchify
    from tilestream.kernels.pyramid_context import pyramid_context as pyramid_context
    from tilestream.kernels.pyramid_synthesis import pyramid_synthesis as pyramid_synthesis
    from tilestream.kernels.raster_mlp import raster_mlp as raster_mlp
    from tilestream.kernels.resample import resample as resample
    from tilestream.kernels.sample import sample as sample
    from tilestream.kernels.stain import optical_density as optical_density
    from tilestream.kernels.stain import stain_separation as stain_separation
    from tilestream.kernels.structure_tensor import structure_tensor as structure_tensor
    from tilestream.kernels.texture import anisotropic_texture as anisotropic_texture
    from tilestream.kernels.texture import sample_texture as sample_texture
    from tilestream.kernels.texture_memory import Texture as Texture
    from tilestream.kernels.texture_memory import make_texture as make_texture
    from tilestream.kernels.tile_entropy import tile_entropy as tile_entropy
    from tilestream.kernels.tile_histogram import tile_histograms as tile_histograms
    from tilestream.kernels.unpolar import unpolar as unpolar

_HOMES = {
    "Allocation": "allocate",
    "BlendSums": "blend_sums",
    "Blended": "blend_finish",
    "DescriptorSums": "descriptors",
    "Fir": "fir",
    "HashGrid": "hashgrid",
    "MipLevel": "mip",
    "MlpLayers": "mlp_layers",
    "Moments": "moments",
    "Orientation": "orientation_coherence",
    "Texture": "texture_memory",
    "allocate": "allocate",
    "anisotropic": "anisotropic",
    "anisotropic_texture": "texture",
    "blend": "blend",
    "blend_sums": "blend_sums",
    "coarser_histograms": "coarser_histograms",
    "compand": "companding",
    "cosines": "cosines",
    "coverage": "coverage",
    "covered_area": "coverage",
    "descriptors": "descriptors",
    "entropy": "entropy",
    "estimate_stains": "macenko",
    "ewa": "ewa",
    "finish_blend": "blend_finish",
    "fir_of": "fir",
    "fovea_gains": "fovea",
    "fovea_levels": "fovea",
    "fovea_tokens": "fovea_tree",
    "gather": "gather",
    "gradient": "gradient",
    "gradient_magnitude": "gradient_magnitude",
    "hash_decode": "hash_decode",
    "hash_encode": "hash_encode",
    "histogram": "histogram",
    "logpolar": "logpolar",
    "make_texture": "texture_memory",
    "mip": "mip",
    "mip_levels": "mip",
    "mlp": "mlp",
    "moments": "moments",
    "nodata_mask": "nodata",
    "optical_density": "stain",
    "orientation_coherence": "orientation_coherence",
    "patchify": "patchify",
    "pen_marks": "mask",
    "pyramid_context": "pyramid_context",
    "pyramid_synthesis": "pyramid_synthesis",
    "raster_mlp": "raster_mlp",
    "resample": "resample",
    "sample": "sample",
    "sample_texture": "texture",
    "stain_separation": "stain",
    "structure_tensor": "structure_tensor",
    "tile_entropy": "tile_entropy",
    "tile_histograms": "tile_histogram",
    "tissue_brightfield": "mask",
    "tissue_fluorescence": "fluorescence",
    "unpolar": "unpolar",
    "update_mip": "mip",
}

__all__ = sorted(_HOMES)


class _Operations(ModuleType):
    """Loads an operation when it is first used: a command that needs one of them should not wait for all."""

    def __getattr__(self, name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module `{__name__}` has no attribute `{name}`; public names: {', '.join(__all__)}")
        found = self.__dict__[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        return found

    def __setattr__(self, name: str, value: object) -> None:
        # once it has loaded the file of `mip`, Python would bind that name to the module; here it is the function
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted([*super().__dir__(), *__all__])


sys.modules[__name__].__class__ = _Operations
