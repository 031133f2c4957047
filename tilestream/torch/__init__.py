"""Training in torch: tiles in batches on the device, shuffled, sharded, resumable, read ahead; scorers of tiles."""

try:
    import torch as _torch  # noqa: F401 - so that its absence is told in our words
except ImportError as error:
    raise ImportError("`tilestream.torch` needs torch: pip install -e '.[torch]'") from error

from tilestream.models.scorer import Scorer as Scorer
from tilestream.models.scorer import load_scorer as load_scorer
from tilestream.torch.dataset import TileDataset as TileDataset
from tilestream.torch.records import PlannedImage as PlannedImage
from tilestream.torch.records import TileBatch as TileBatch
from tilestream.torch.scorer_examples import ScorerBag as ScorerBag
from tilestream.torch.train_scorer import ScorerSettings as ScorerSettings
from tilestream.torch.train_scorer import train_scorer as train_scorer
from tilestream.torch.train_scorer import train_scorer_on_bags as train_scorer_on_bags

__all__ = [
    "PlannedImage",
    "Scorer",
    "ScorerBag",
    "ScorerSettings",
    "TileBatch",
    "TileDataset",
    "load_scorer",
    "train_scorer",
    "train_scorer_on_bags",
]
