"""What tiles of a slide or a cohort share: the networks that decode them, and the one that encodes them in one pass."""

from __future__ import annotations

import base64
import binascii
import functools
from dataclasses import dataclass
from pathlib import Path

from tilestream.codecs.container import pack, unpack
from tilestream.codecs.durable import write_durable
from tilestream.codecs.pyramid.analysis import KIND as ANALYSIS
from tilestream.codecs.pyramid.analysis import VERSION as ANALYSIS_VERSION
from tilestream.codecs.pyramid.analysis import Analysis
from tilestream.codecs.pyramid.netfile import pack_nets, unpack_nets
from tilestream.codecs.pyramid.nets import PyramidNets
from tilestream.codecs.pyramid.sharednets import ENDING, keep_nets
from tilestream.errors import ConfigError, DamagedError

KIND = "pyramid-shared"
VERSION = 1
LEAST_LMBDA, MOST_LMBDA = 1e-9, 1e3
_packed: dict[bytes, bytes] = {}  # by digest: their models take a second to find


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedPyramid:
    """Networks for all tiles, and what foretells their grids."""

    nets: PyramidNets
    """What decodes: a store carries it once, a tile names it."""
    analysis: Analysis
    """What encodes; no store carries it."""
    lmbda: float
    """What a bit a pixel costs against the mean squared error of samples of 0 to 1: what they were trained for."""

    @property
    def name(self) -> str:
        """Return the digest of what decodes as a word."""
        return self.nets.digest.hex()

    def to_bytes(self) -> bytes:
        """Return it as a container of two: what decodes, and what encodes."""
        sections = (packed_nets(self.nets), self.analysis.to_bytes())
        return pack(KIND, version=VERSION, header={"l": float(self.lmbda)}, sections=sections)

    @classmethod
    def from_bytes(cls, data: bytes) -> SharedPyramid:
        """Return what bytes hold; its networks are known from now on.

        Parameters
        ----------
        data : bytes
            Result of `to_bytes`.

        Returns
        -------
        SharedPyramid
            Whose `nets` have the same digest.

        Raises
        ------
        DamagedError
            When the bytes are not whole, or the two do not fit together.
        SourceError
            When they are something else, or of a newer version.
        """
        packed = unpack(data, kinds={KIND: VERSION})
        lmbda = packed.number("l", least=LEAST_LMBDA, most=MOST_LMBDA)
        decoding, encoding = packed.section_bytes(2)
        nets = _unpacked(decoding)
        analysis = Analysis.of_packed(unpack(encoding, kinds={ANALYSIS: ANALYSIS_VERSION}))
        if (nets.scales, nets.channels) != (analysis.scales, analysis.channels):
            raise DamagedError(
                f"shared networks of pyramids: {nets.scales} grids of {nets.channels} channels are decoded, "
                f"{analysis.scales} of {analysis.channels} encoded"
            )
        return cls(nets=keep_nets(nets), analysis=analysis, lmbda=lmbda)


def save_shared(shared: SharedPyramid, folder: Path | str) -> Path:
    """Write shared networks into a folder, named by their digest.

    Parameters
    ----------
    shared : SharedPyramid
        Which.
    folder : Path or str
        Made where it is not there.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    OutputError
        When it cannot be written.
    """
    place = Path(folder) / f"{shared.name}{ENDING}"
    write_durable(place, shared.to_bytes())
    return place


def load_shared(path: Path | str) -> SharedPyramid:
    """Return the shared networks of a file, known from now on.

    Parameters
    ----------
    path : Path or str
        The file.

    Returns
    -------
    SharedPyramid
        What it holds.

    Raises
    ------
    ConfigError
        When there is no such file.
    DamagedError
        When it is not whole.
    SourceError
        When it holds something else.
    """
    place = Path(path)
    if not place.is_file():
        raise ConfigError.of(f"`{place}`", got="no file", expected=f"networks (`*{ENDING}`)", do="Check the path.")
    return SharedPyramid.from_bytes(place.read_bytes())


def packed_nets(nets: PyramidNets) -> bytes:
    """Return networks as a container, coded once in a process."""
    if nets.digest not in _packed:
        _packed[nets.digest] = pack_nets(nets)
    return _packed[nets.digest]


def nets_text(nets: PyramidNets) -> str:
    """Return networks as a word for JSON: Base64 of their bytes, which the metadata of a store carry."""
    return base64.b64encode(packed_nets(nets)).decode("ascii")


@functools.lru_cache(maxsize=16)
def nets_of(text: str) -> PyramidNets:
    """Return the networks of a word, known from now on.

    Parameters
    ----------
    text : str
        Result of `nets_text`.

    Returns
    -------
    PyramidNets
        What it holds.

    Raises
    ------
    DamagedError
        When it is no such word, or what it holds is not whole.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DamagedError(f"shared networks of pyramids: their text is no Base64 ({error})") from error
    return keep_nets(_unpacked(data))


def _unpacked(data: bytes) -> PyramidNets:
    nets = unpack_nets(data)
    _packed.setdefault(nets.digest, data)
    return nets
