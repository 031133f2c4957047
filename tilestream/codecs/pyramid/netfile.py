"""Networks that many tiles share, as a file of their own: a container that holds nothing but them."""

from __future__ import annotations

from tilestream.codecs.container import pack, unpack
from tilestream.codecs.pyramid.netbytes import read_nets, write_nets
from tilestream.codecs.pyramid.nets import PyramidNets

KIND = "pyramid-nets"
VERSION = 1


def pack_nets(nets: PyramidNets) -> bytes:
    """Return networks as a container of kind `pyramid-nets`; raise `DamagedError` where no decoder takes them."""
    return pack(KIND, version=VERSION, sections=[write_nets(nets)])


def unpack_nets(data: bytes) -> PyramidNets:
    """Return the networks that a container holds.

    Parameters
    ----------
    data : bytes
        Result of `pack_nets`.

    Returns
    -------
    PyramidNets
        Checked; of the same digest.

    Raises
    ------
    DamagedError
        When the bytes are not whole, or hold no networks that a decoder takes.
    SourceError
        When they are whole, and of another kind or a newer version.
    """
    (section,) = unpack(data, kinds={KIND: VERSION}).section_bytes(1)
    return read_nets(section)
