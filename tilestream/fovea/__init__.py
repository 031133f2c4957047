"""Where one looks: fixations, how detail falls off around them, and gazes that move."""

from tilestream.fovea.degrees import px_per_degree_of as px_per_degree_of
from tilestream.fovea.fovea import Fovea as Fovea
from tilestream.fovea.gaze import GazeMove as GazeMove
from tilestream.fovea.gaze import GazeStream as GazeStream
from tilestream.fovea.laws import PRESETS as PRESETS
from tilestream.fovea.laws import Preset as Preset
from tilestream.fovea.peaks import fixations_of as fixations_of
from tilestream.fovea.pixels import LevelsInMemory as LevelsInMemory
from tilestream.fovea.pixels import LevelsOfPyramid as LevelsOfPyramid
from tilestream.fovea.pixels import Normalising as Normalising
from tilestream.fovea.pixels import SeenTokens as SeenTokens
from tilestream.fovea.pixels import TokenPixels as TokenPixels
from tilestream.fovea.prediction import GazePredictor as GazePredictor

__all__ = [
    "PRESETS",
    "Fovea",
    "GazeMove",
    "GazePredictor",
    "GazeStream",
    "LevelsInMemory",
    "LevelsOfPyramid",
    "Normalising",
    "Preset",
    "SeenTokens",
    "TokenPixels",
    "fixations_of",
    "px_per_degree_of",
]
