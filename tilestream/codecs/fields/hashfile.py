"""A hash field as bytes: a container of kind `hash`, with table and network as codes or as float16.

header      g [levels, features, log2_table, n_min, growth], n [hidden width, hidden layers], picture;
            h 1 where numbers are float16, k [log2_probes, log2_choices] where entries are chosen
sections    entries, feature by feature of each level; network, see `hashparts`; choices, see `probing`
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.codecs.container import Packed, pack, unpack
from tilestream.codecs.fields.hashparts import (
    HashParts,
    by_group,
    feature_lattices,
    feature_starts,
    from_groups,
    level_parameters,
    network_starts,
)
from tilestream.codecs.fields.picture import Picture
from tilestream.codecs.fields.pictureheader import picture_header, picture_of
from tilestream.codecs.fields.probing import ProbedEntries, ProbedGrid, Probing
from tilestream.codecs.quantise import Quantised
from tilestream.errors import ConfigError, DamagedError
from tilestream.kernels.hashgrid import HashGrid
from tilestream.kernels.mlp_layers import MlpLayers

KIND, VERSION = "hash", 1
_GRID, _NETWORK, _HALF, _PROBING = "g", "n", "h", "k"
_MOST_LOG2, _MOST_HIDDEN = 24, 128


def write_hash(parts: HashParts, picture: Picture) -> bytes:
    """Return a field as bytes.

    Parameters
    ----------
    parts : HashParts
        Table and network; as their codes where they have some, else as float16.
    picture : Picture
        What it stands for.

    Returns
    -------
    bytes
        A container.

    Raises
    ------
    ConfigError
        When a number is too large for float16.
    """
    grid, layers = parts.stored_grid, parts.layers
    growth = int(grid.growth) if float(grid.growth).is_integer() else grid.growth
    header: dict[str, Any] = {
        _GRID: [grid.levels, grid.features, grid.log2_table, grid.n_min, growth],
        _NETWORK: [layers.widths[1], len(layers.widths) - 2],
        **picture_header(picture),
    }
    if parts.coded is not None:
        sections = [parts.coded[0].to_bytes(feature_lattices(grid)), parts.coded[1].to_bytes()]
    else:
        header[_HALF] = 1
        sections = [_half(run) for run in (by_group(parts.stored, grid), parts.network)]
    if parts.probed is not None:
        probing = parts.probed.grid.probing
        header[_PROBING] = [probing.log2_probes, probing.log2_choices]
        sections.append(parts.probed.grid.choices_to_bytes(parts.probed.choices))
    return pack(KIND, version=VERSION, header=header, sections=sections)


def read_hash(data: bytes) -> tuple[HashParts, Picture]:
    """Return the field that bytes hold.

    Parameters
    ----------
    data : bytes
        Result of `write_hash`.

    Returns
    -------
    HashParts
        Table and network.
    Picture
        What they stand for.

    Raises
    ------
    DamagedError
        When the bytes are not whole.
    SourceError
        When they are of a newer version.
    """
    packed = unpack(data, kinds={KIND: VERSION})
    picture = picture_of(packed)
    grid, layers = _sizes_of(packed, picture)
    probing = _probing_of(packed, grid)
    of_table, of_network, *of_choices = packed.section_bytes(2 if probing is None else 3)
    counts = (
        grid.entries * grid.features,
        layers.parameters + level_parameters(grid.levels, layers.widths[1], picture.levels),
    )
    coded = None
    if packed.whole(_HALF, least=0, most=1, default=0):
        runs = [_from_half(section, count) for section, count in zip((of_table, of_network), counts, strict=True)]
    else:
        starts = feature_starts(grid), network_starts(layers, grid.levels, picture.levels)
        coded = (
            Quantised.from_bytes(of_table, starts=starts[0], count=counts[0], lattices=feature_lattices(grid)),
            Quantised.from_bytes(of_network, starts=starts[1], count=counts[1]),
        )
        runs = [one.values() for one in coded]
    table = from_groups(runs[0], grid)
    probed = None
    if probing is not None:
        probed = ProbedEntries(grid=probing, entries=table, choices=probing.choices_from_bytes(of_choices[0]))
        table = probed.table()
    parts = HashParts(
        grid=grid if probing is None else probing.wide,
        layers=layers,
        extent_px=picture.extent_px,
        levels=picture.levels,
        table=table,
        network=runs[1],
        coded=coded,
        probed=probed,
    )
    return parts, picture


def _probing_of(packed: Packed, narrow: HashGrid) -> ProbedGrid | None:
    """Return how entries are chosen, None where they are by hash alone."""
    if _PROBING not in packed.header:
        return None
    probes, choices = packed.numbers(_PROBING, least=1, most=32, count=2)
    try:
        return ProbedGrid(narrow=narrow, probing=Probing(log2_probes=int(probes), log2_choices=int(choices)))
    except ConfigError as error:
        raise DamagedError(f"a container of kind `{KIND}`: {error}") from error


def _sizes_of(packed: Packed, picture: Picture) -> tuple[HashGrid, MlpLayers]:
    *sizes, growth = packed.numbers(_GRID, least=1, most=1 << 30, count=5)
    network = packed.numbers(_NETWORK, least=1, most=_MOST_HIDDEN, count=2)
    if not all(type(size) is int for size in (*sizes, *network)):
        raise DamagedError(f"a container of kind `{KIND}`: sizes {sizes} and {network}, expected whole numbers")
    levels, features, log2_table, n_min = (int(size) for size in sizes)
    hidden, depth = (int(size) for size in network)
    if levels > 32 or features > 16 or log2_table > _MOST_LOG2 or depth > 8:
        raise DamagedError(f"a container of kind `{KIND}`: {levels} levels of 2^{log2_table} entries of {features}")
    try:
        grid = HashGrid(levels=levels, features=features, log2_table=log2_table, n_min=n_min, growth=float(growth))
    except (ConfigError, OverflowError) as error:
        raise DamagedError(f"a container of kind `{KIND}`: {error}") from error
    return grid, MlpLayers(widths=(grid.width, *[hidden] * depth, picture.channels), biases=True)


def _half(values: npt.NDArray[np.float32]) -> bytes:
    if not (np.abs(values) <= np.finfo(np.float16).max).all():
        raise ConfigError.of(
            "a field to be stored as float16",
            got="a number that is too large for it, or none",
            expected=f"numbers within ±{np.finfo(np.float16).max:,.0f}",
            do="Quantise it, or fit it again with a smaller learning rate.",
        )
    return values.astype("<f2").tobytes()


def _from_half(data: bytes, count: int) -> npt.NDArray[np.float32]:
    if len(data) != 2 * count:
        raise DamagedError(f"a container of kind `{KIND}`: {len(data):,} bytes for {count:,} numbers of 2")
    values = np.frombuffer(data, "<f2").astype(np.float32)
    if not np.isfinite(values).all():
        raise DamagedError(f"a container of kind `{KIND}`: numbers that are not finite")
    return values
