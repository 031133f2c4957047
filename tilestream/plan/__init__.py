"""Which tiles of an image at which level."""

from tilestream.plan.geojson import to_geojson as to_geojson
from tilestream.plan.levels import LevelChoice as LevelChoice
from tilestream.plan.levels import choose_level as choose_level
from tilestream.plan.levels import target_mpp as target_mpp
from tilestream.plan.matrix import WEB_MERCATOR_QUAD as WEB_MERCATOR_QUAD
from tilestream.plan.matrix import WORLD_CRS84_QUAD as WORLD_CRS84_QUAD
from tilestream.plan.matrix import TileMatrixSet as TileMatrixSet
from tilestream.plan.matrix import matrix_tiles as matrix_tiles
from tilestream.plan.matrix import quadkey as quadkey
from tilestream.plan.matrix import tile_of_quadkey as tile_of_quadkey
from tilestream.plan.matrix import utm_quad as utm_quad
from tilestream.plan.outline import mask_outline as mask_outline
from tilestream.plan.selection import Selection as Selection
from tilestream.plan.snap import Snap as Snap
from tilestream.plan.tiles import TilePlan as TilePlan
from tilestream.plan.tiles import plan_tiles as plan_tiles
from tilestream.plan.tokens import TokenPlan as TokenPlan
from tilestream.plan.tokens import plan_tokens as plan_tokens
from tilestream.plan.walk import WalkPlan as WalkPlan
from tilestream.plan.walk import plan_walk as plan_walk

__all__ = [
    "WEB_MERCATOR_QUAD",
    "WORLD_CRS84_QUAD",
    "LevelChoice",
    "Selection",
    "Snap",
    "TileMatrixSet",
    "TilePlan",
    "TokenPlan",
    "WalkPlan",
    "choose_level",
    "mask_outline",
    "matrix_tiles",
    "plan_tiles",
    "plan_tokens",
    "plan_walk",
    "quadkey",
    "target_mpp",
    "tile_of_quadkey",
    "to_geojson",
    "utm_quad",
]
