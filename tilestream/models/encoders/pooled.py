"""A network that gives tokens, as an encoder that gives a vector a tile."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tilestream.errors import StageError
from tilestream.models.encoders.record import EncoderRecord


class PooledEncoder(nn.Module):
    """Tiles `[n, c, h, w]` to vectors `[n, d]`: resized and cropped on their device, then the network, then pooled.

    Parameters
    ----------
    network : nn.Module
        Gives tokens `[n, t, d]`, vectors `[n, d]`, maps `[n, d, h, w]`, or a sequence whose last is one of these.
    record : EncoderRecord
        Says what is called, how tiles are resized and cropped, and how tokens become a vector.

    Notes
    -----
    Libraries resize images of whole numbers on the host; they round, and cut off what bicubic interpolation overshoots
    beyond black and white. This resizes the scaled samples: elsewhere the difference is one step of 8 bits at most.
    """

    def __init__(self, network: nn.Module, record: EncoderRecord) -> None:
        super().__init__()
        self.network = network
        self.record = record

    def forward(self, x: Tensor) -> Tensor:
        """Return vectors `[n, d]` of samples `[n, c, h, w]`, scaled and normalised."""
        x = self._sized(x)  # n, c, input_px, input_px
        network = self.network if self.record.call is None else getattr(self.network, self.record.call)
        found = network(x, **self.record.call_arguments)
        found = found[-1] if isinstance(found, list | tuple) else found
        return self._pooled(found)  # n, d

    def _sized(self, x: Tensor) -> Tensor:
        edge, crop = self.record.input_px, self.record.crop_px
        if edge is not None and tuple(x.shape[-2:]) != (edge, edge):
            how = self.record.interpolation
            x = nn.functional.interpolate(x, size=(edge, edge), mode=how, antialias=True, align_corners=False)
        if crop is not None and crop < x.shape[-1]:
            first = (x.shape[-1] - crop) // 2
            x = x[..., first : first + crop, first : first + crop]
        return x

    def _pooled(self, found: Any) -> Tensor:
        pooling = self.record.pooling
        if pooling in ("model", "pooler"):
            vectors = found
        elif getattr(found, "ndim", 0) == 3:  # n, tokens, d
            cls, patches = found[:, 0], found[:, self.record.prefix_tokens :]
            parts = {"cls": (cls,), "mean": (patches.mean(1),), "cls+mean": (cls, patches.mean(1))}[pooling]
            vectors = torch.cat(parts, dim=-1)
        elif getattr(found, "ndim", 0) == 4 and pooling == "mean":  # n, d, h, w
            vectors = found.mean((2, 3))
        else:
            vectors = None
        if not isinstance(vectors, Tensor) or vectors.ndim != 2:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise StageError.of(
                f"pooling `{pooling}`",
                got=f"{shape} from the network",
                expected="vectors (n, d)" if pooling == "model" else "tokens (n, t, d)",
                do="Choose another `pooling` in the record of the encoder.",
            )
        return vectors
