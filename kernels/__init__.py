"""Pixel operations on CPU and CUDA; they know arrays and nothing else.

An operation takes NumPy arrays, or arrays on a CUDA device, and returns the same kind. Its last parameters are the same
everywhere: `out` takes the result, `backend` insists on `"cpu"` or `"cuda"`, `stream` is the handle of a CUDA stream,
`threads` bounds the CPU threads (all cores by default; 1 inside a task).
"""

from tilestream.kernels.allocate import Allocation, allocate
from tilestream.kernels.anisotropic import anisotropic
from tilestream.kernels.blend import blend
from tilestream.kernels.blend_finish import Blended, finish_blend
from tilestream.kernels.blend_sums import BlendSums, blend_sums
from tilestream.kernels.coarser_histograms import coarser_histograms
from tilestream.kernels.companding import compand
from tilestream.kernels.coverage import coverage, covered_area
from tilestream.kernels.descriptors import DescriptorSums, descriptors
from tilestream.kernels.entropy import entropy
from tilestream.kernels.ewa import ewa
from tilestream.kernels.fluorescence import tissue_fluorescence
from tilestream.kernels.fovea import fovea_gains, fovea_levels
from tilestream.kernels.fovea_tree import fovea_tokens
from tilestream.kernels.gather import gather
from tilestream.kernels.gradient import gradient
from tilestream.kernels.gradient_magnitude import gradient_magnitude
from tilestream.kernels.hash_decode import hash_decode
from tilestream.kernels.hash_encode import hash_encode
from tilestream.kernels.hashgrid import HashGrid
from tilestream.kernels.histogram import histogram
from tilestream.kernels.logpolar import logpolar
from tilestream.kernels.macenko import estimate_stains
from tilestream.kernels.mask import pen_marks, tissue_brightfield
from tilestream.kernels.mip import MipLevel, mip, mip_levels, update_mip
from tilestream.kernels.mlp import mlp
from tilestream.kernels.mlp_layers import MlpLayers
from tilestream.kernels.moments import Moments, moments
from tilestream.kernels.nodata import nodata_mask
from tilestream.kernels.orientation_coherence import Orientation, orientation_coherence
from tilestream.kernels.patchify import patchify
from tilestream.kernels.resample import resample
from tilestream.kernels.sample import sample
from tilestream.kernels.stain import optical_density, stain_separation
from tilestream.kernels.structure_tensor import structure_tensor
from tilestream.kernels.texture import anisotropic_texture, sample_texture
from tilestream.kernels.texture_memory import Texture, make_texture
from tilestream.kernels.tile_entropy import tile_entropy
from tilestream.kernels.tile_histogram import tile_histograms
from tilestream.kernels.unpolar import unpolar

__all__ = [
    "Allocation",
    "BlendSums",
    "Blended",
    "DescriptorSums",
    "HashGrid",
    "MipLevel",
    "MlpLayers",
    "Moments",
    "Orientation",
    "Texture",
    "allocate",
    "anisotropic",
    "anisotropic_texture",
    "blend",
    "blend_sums",
    "coarser_histograms",
    "compand",
    "coverage",
    "covered_area",
    "descriptors",
    "entropy",
    "estimate_stains",
    "ewa",
    "finish_blend",
    "fovea_gains",
    "fovea_levels",
    "fovea_tokens",
    "gather",
    "gradient",
    "gradient_magnitude",
    "hash_decode",
    "hash_encode",
    "histogram",
    "logpolar",
    "make_texture",
    "mip",
    "mip_levels",
    "mlp",
    "moments",
    "nodata_mask",
    "optical_density",
    "orientation_coherence",
    "patchify",
    "pen_marks",
    "resample",
    "sample",
    "sample_texture",
    "stain_separation",
    "structure_tensor",
    "tile_entropy",
    "tile_histograms",
    "tissue_brightfield",
    "tissue_fluorescence",
    "unpolar",
    "update_mip",
]
