"""What a file of a learned downsampler says of it, and the weights in it.

The file is safetensors: parameters by the names of `tilestream.codecs.downsample.network`, and in its metadata, under
`tilestream`, a JSON document with the fields of `DownsamplerRecord`. It is read without torch,
and nothing in it is run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.codecs.durable import write_durable
from tilestream.errors import ConfigError, SourceError

FORMAT = 1
"""Version of the file; raised when the same parameters would mean something else."""
KEY = "tilestream"
"""Where the record stands in the metadata of the file."""
KIND = "downsampler"
"""What its record says first, so that it is not taken for a scorer."""
MOST = {"levels": 8, "channels": 16, "window_px": 12, "width": 256, "up_width": 256, "up_layers": 16}
"""Largest sizes that are believed of a file."""


@dataclass(frozen=True, kw_only=True)
class DownsamplerRecord:
    """The sizes of a learned downsampler; JSON values."""

    levels: int = 1
    """Steps of its stack: level k is made by step k, further ones by the last."""
    channels: int = 3
    """Channels of 8 bits that it takes at once."""
    window_px: int = 8
    """Edge of the square of pixels that a pixel of the next level is made of; even, centred where the mean is."""
    width: int = 32
    """Values between the layers of a step."""
    up_width: int = 32
    """Channels between the convolutions that restore."""
    up_layers: int = 3
    """How many 3 × 3 convolutions restore one level."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """How it was trained and how good it is; for people."""

    def __post_init__(self) -> None:
        for name, most in MOST.items():
            value, least = getattr(self, name), 2 if name in ("window_px", "up_layers") else 1
            if not isinstance(value, int) or not least <= value <= most or (name == "window_px" and value % 2):
                raise ConfigError.of(
                    f"`{name}` of a downsampler",
                    got=repr(value),
                    expected=f"{'an even' if name == 'window_px' else 'a whole'} number, {least} to {most}",
                    do="Choose one.",
                )

    @property
    def radius(self) -> int:
        """Return how many pixels the window reaches to either side of its middle."""
        return self.window_px // 2

    def halo_px(self, levels: int) -> int:
        """Return how many pixels around a part of an image its first levels depend on, one made of the other."""
        return ((1 << levels) - 1) * (self.radius - 1)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every parameter by its name."""
        shapes: dict[str, tuple[int, ...]] = {}
        for step in range(self.levels):
            sizes = (self.channels * self.window_px**2, self.width, self.width, self.channels)
            for layer, (taken, given) in enumerate(pairwise(sizes)):
                shapes[f"down.{step}.{layer}.weight"] = (given, taken)
                shapes[f"down.{step}.{layer}.bias"] = (given,)
            widths = (self.channels, *[self.up_width] * (self.up_layers - 1), 4 * self.channels)
            for layer, (taken, given) in enumerate(pairwise(widths)):
                shapes[f"up.{step}.{layer}.weight"] = (given, taken, 3, 3)
                shapes[f"up.{step}.{layer}.bias"] = (given,)
        return shapes


@dataclass(frozen=True, kw_only=True, eq=False)
class DownsamplerFile:
    """A file that has been read."""

    record: DownsamplerRecord
    """Its sizes."""
    parameters: Mapping[str, npt.NDArray[np.float32]]
    """By name, in the shapes of the record."""
    digest: str
    """32 hex digits of BLAKE2b of the file: what a store says that its levels were made by."""


def read_downsampler(path: str | Path) -> DownsamplerFile:
    """Return what `tilestream train downsample` has written.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    DownsamplerFile
        Checked: all parameters are there, finite, in their shapes, and no others.

    Raises
    ------
    ConfigError
        When the package `safetensors` is missing.
    SourceError
        When there is no such file, or it is none of a downsampler.
    """
    safetensors = _safetensors(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        got = "a folder, not a file in it" if Path(path).is_dir() else str(error)
        raise SourceError.of(f"`{path}`", got=got, expected="a trained downsampler", do="Check the path.") from error
    try:
        record = _record_of(data)
        parameters = safetensors.numpy.load(data)
        _require_shapes(record, parameters)
    except (safetensors.SafetensorError, ConfigError, KeyError, TypeError, ValueError) as error:
        raise SourceError.of(
            f"`{path}`",
            got=f"no downsampler of tilestream ({type(error).__name__}: {error})",
            expected="what `tilestream train downsample` has written",
            do="Check the path.",
        ) from error
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    return DownsamplerFile(record=record, parameters=parameters, digest=digest)


def write_downsampler(
    path: str | Path, record: DownsamplerRecord, parameters: Mapping[str, npt.NDArray[np.float32]]
) -> DownsamplerFile:
    """Write a downsampler as a file for `ingest --filter`; equal ones give equal bytes.

    Parameters
    ----------
    path : str or Path
        The file, replaced when it is whole.
    record : DownsamplerRecord
        Its sizes, and how it was trained.
    parameters : Mapping
        By name, in the shapes of the record.

    Returns
    -------
    DownsamplerFile
        What `read_downsampler` reads there.

    Raises
    ------
    OutputError
        When it cannot be written.
    """
    document = {"kind": KIND, "format": FORMAT, **asdict(record)}
    text = json.dumps(document, sort_keys=True, ensure_ascii=False)
    tensors = {name: np.ascontiguousarray(values, np.float32) for name, values in parameters.items()}
    write_durable(Path(path), _safetensors(path).numpy.save(tensors, metadata={KEY: text}))
    return read_downsampler(path)


def _record_of(data: bytes) -> DownsamplerRecord:
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise ValueError("a file that is cut")
    header = json.loads(data[8 : 8 + length])
    document = json.loads(header["__metadata__"][KEY])
    if document.pop("kind") != KIND or document.pop("format") != FORMAT:
        raise ValueError("another kind, or another version of the format")
    return DownsamplerRecord(**document)


def _require_shapes(record: DownsamplerRecord, parameters: Mapping[str, npt.NDArray[Any]]) -> None:
    wanted = record.shapes
    if parameters.keys() != wanted.keys():
        raise ValueError("not the parameters of its own record")
    for name, values in parameters.items():
        if values.shape != wanted[name] or values.dtype != np.float32 or not np.isfinite(values).all():
            raise ValueError(f"`{name}` is {values.dtype} {values.shape} and has to be finite float32 {wanted[name]}")


def _safetensors(path: str | Path) -> Any:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        raise ConfigError.of(
            f"`{path}`",
            got="no module `safetensors`",
            expected="it installed",
            do="Run `pip install -e '.[torch]'` in the clone.",
        ) from error
    return safetensors
