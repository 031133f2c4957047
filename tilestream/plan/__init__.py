"""Which tiles of an image at which level."""

from tilestream.plan.geojson import to_geojson as to_geojson
from tilestream.plan.levels import LevelChoice as LevelChoice
from tilestream.plan.levels import choose_level as choose_level
from tilestream.plan.levels import target_mpp as target_mpp
from tilestream.plan.outline import mask_outline as mask_outline
from tilestream.plan.selection import Selection as Selection
from tilestream.plan.snap import Snap as Snap
from tilestream.plan.tiles import TilePlan as TilePlan
from tilestream.plan.tiles import plan_tiles as plan_tiles

__all__ = [
    "LevelChoice",
    "Selection",
    "Snap",
    "TilePlan",
    "choose_level",
    "mask_outline",
    "plan_tiles",
    "target_mpp",
    "to_geojson",
]
