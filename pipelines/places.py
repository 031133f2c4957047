"""Where the outputs of an image lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where the outputs of one image lie."""

    features: Path
    """Feature store."""
    entropy: Path
    """Entropy raster."""
    outline: Path
    """Tissue outline for QuPath."""
    journal: Path
    """Receipts and parts."""

    @classmethod
    def of(cls, out: Path, key: str) -> Places:
        """Return the places of the image `key` under `out`."""
        return cls(
            features=out / f"{key}.features.zarr",
            entropy=out / f"{key}.entropy.zarr",
            outline=out / f"{key}.tissue.geojson",
            journal=out / "receipts" / key,
        )
