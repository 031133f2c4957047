"""Records and protocols that the layers hand to each other; every record is frozen and pickles small."""

from tilestream.types.encoded import Cell as Cell
from tilestream.types.encoded import Encoded as Encoded
from tilestream.types.encoded import EncodedLevel as EncodedLevel
from tilestream.types.encoded import EncodedSource as EncodedSource
from tilestream.types.geometry import Box as Box
from tilestream.types.geometry import Shape as Shape
from tilestream.types.image import Array as Array
from tilestream.types.image import Block as Block
from tilestream.types.image import Channel as Channel
from tilestream.types.image import ClassBand as ClassBand
from tilestream.types.image import ImageInfo as ImageInfo
from tilestream.types.image import Kind as Kind
from tilestream.types.image import Level as Level
from tilestream.types.image import Modality as Modality
from tilestream.types.image import Region as Region
from tilestream.types.image import Source as Source
from tilestream.types.image import Validity as Validity
from tilestream.types.scores import ScoreMap as ScoreMap
from tilestream.types.scores import cells_of as cells_of
from tilestream.types.stages import Aggregator as Aggregator
from tilestream.types.stages import Batch as Batch
from tilestream.types.stages import DeviceStage as DeviceStage
from tilestream.types.stages import ExampleStage as ExampleStage
from tilestream.types.stages import Hierarchy as Hierarchy
from tilestream.types.stages import Output as Output
from tilestream.types.stages import Pending as Pending
from tilestream.types.stages import RegionContract as RegionContract
from tilestream.types.stages import RegionStage as RegionStage
from tilestream.types.stages import Stage as Stage
from tilestream.types.stages import StageContract as StageContract
from tilestream.types.stages import StageSpec as StageSpec
from tilestream.types.work import Plan as Plan
from tilestream.types.work import PlanLevel as PlanLevel
from tilestream.types.work import Receipt as Receipt
from tilestream.types.work import Sink as Sink
from tilestream.types.work import SuperTile as SuperTile
from tilestream.types.work import TileStatus as TileStatus
from tilestream.types.work import Unit as Unit

__all__ = [
    "Aggregator",
    "Array",
    "Batch",
    "Block",
    "Box",
    "Cell",
    "Channel",
    "ClassBand",
    "DeviceStage",
    "Encoded",
    "EncodedLevel",
    "EncodedSource",
    "ExampleStage",
    "Hierarchy",
    "ImageInfo",
    "Kind",
    "Level",
    "Modality",
    "Output",
    "Pending",
    "Plan",
    "PlanLevel",
    "Receipt",
    "Region",
    "RegionContract",
    "RegionStage",
    "ScoreMap",
    "Shape",
    "Sink",
    "Source",
    "Stage",
    "StageContract",
    "StageSpec",
    "SuperTile",
    "TileStatus",
    "Unit",
    "Validity",
]
