"""Tiles for training in torch: batches on the device, shuffled, sharded and resumable, read ahead in this process."""

try:
    import torch as _torch  # noqa: F401 - so that its absence is told in our words
except ImportError as error:
    raise ImportError("`tilestream.torch` needs torch: pip install -e '.[torch]'") from error

from tilestream.torch.dataset import TileDataset as TileDataset
from tilestream.torch.records import PlannedImage as PlannedImage
from tilestream.torch.records import TileBatch as TileBatch

__all__ = ["PlannedImage", "TileBatch", "TileDataset"]
