"""Which tiles of an image at which level."""

from tilestream.plan.levels import LevelChoice as LevelChoice
from tilestream.plan.levels import choose_level as choose_level
from tilestream.plan.levels import target_mpp as target_mpp
from tilestream.plan.snap import Snap as Snap
from tilestream.plan.tiles import TilePlan as TilePlan
from tilestream.plan.tiles import plan_tiles as plan_tiles

__all__ = ["LevelChoice", "Snap", "TilePlan", "choose_level", "plan_tiles", "target_mpp"]
