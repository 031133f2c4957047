"""Where one looks: fixations, how detail falls off around them, and gazes that move."""

from tilestream.fovea.degrees import px_per_degree_of as px_per_degree_of
from tilestream.fovea.fovea import Fovea as Fovea
from tilestream.fovea.laws import PRESETS as PRESETS
from tilestream.fovea.laws import Preset as Preset
from tilestream.fovea.peaks import fixations_of as fixations_of

__all__ = ["PRESETS", "Fovea", "Preset", "fixations_of", "px_per_degree_of"]
