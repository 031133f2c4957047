"""A picture as a hash grid and a small network: the fast field. Any box of any level, whole or not, is one query.

`--quality Q` sets λ, what a bit may cost: 10^(−2.2 − Q/50) of MSE on 0 to 1 for a bit a pixel. On dense stained tissue
at scan resolution that was 1.4 bits a pixel at Q 25 and 2.5 at Q 45, of four levels a fifth more; all else takes less.

Source: Müller et al., "Instant neural graphics primitives", doi:10.1145/3528223.3530127 (grid and network); Girish et
al., "SHACIRA", arXiv:2309.15848 (bits of the table in the loss); levels: `tilestream.codecs.fields.hashparts`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from tilestream.codecs.fields.field import BATCH_PX, FitReport, Stop
from tilestream.codecs.fields.hashfile import KIND, read_hash, write_hash
from tilestream.codecs.fields.hashparts import NETWORK_BITS, HashParts, by_group, from_groups
from tilestream.codecs.fields.hashsettings import HashSettings, quality_settings
from tilestream.codecs.fields.picture import Levels, Picture
from tilestream.codecs.fields.probing import Probing
from tilestream.codecs.fields.query import Query
from tilestream.codecs.quantise import quantise
from tilestream.errors import ConfigError
from tilestream.kernels.hash_decode import hash_decode
from tilestream.kernels.language import cuda, require_device
from tilestream.types import Array, Box

BACKENDS = ("cpu", "cuda", "torch")


class HashField:
    """A multiresolution hash grid and a perceptron behind it, fitted to all levels of a picture.

    Parameters
    ----------
    levels, features, log2_table, n_min : int
        Of the grid, see `tilestream.kernels.hashgrid.HashGrid`.
    n_max : float, optional
        Vertices of its finest level along the longer edge; by default half the edge's pixels, as Instant-NGP. With
        one more than there are pixels its vertices lie on pixel centres.
    hidden, layers : int
        Units of a hidden layer, and how many such layers.
    lmbda : float
        λ, MSE on 0 to 1 that a bit a pixel may cost: above 0 the bits of the table are part of what is fitted.
    bits : int, optional
        Of an entry of the table once `quantize` was called, known to the fit; 8 where λ is given.
    batch : int
        Pixels of a step; all that there are where they are fewer.
    seed : int
        Two fits of one seed and number of steps are equal.
    probing : Probing, optional
        Learned probing: levels of more vertices than 2^T share entries by choices that are fitted, not by hash alone.

    Attributes
    ----------
    settings : HashSettings
        The above.
    picture : Picture or None
        What it stands for.
    parts : HashParts or None
        Table and network.

    Raises
    ------
    ConfigError
        When a setting is none.
    """

    name: ClassVar[str] = KIND

    def __init__(  # noqa: PLR0913  the settings of the published model, and those of its quantisation
        self,
        *,
        levels: int = 16,
        features: int = 2,
        log2_table: int = 15,
        n_min: int = 16,
        n_max: float | None = None,
        hidden: int = 64,
        layers: int = 2,
        lmbda: float = 0.0,
        bits: int | None = None,
        batch: int = BATCH_PX,
        seed: int = 0,
        probing: Probing | None = None,
    ) -> None:
        self.settings = HashSettings(
            levels=levels,
            features=features,
            log2_table=log2_table,
            n_min=n_min,
            n_max=n_max,
            hidden=hidden,
            layers=layers,
            lmbda=lmbda,
            bits=8 if bits is None and lmbda > 0 else bits,
            batch_px=batch,
            seed=seed,
            probing=probing,
        )
        self.picture: Picture | None = None
        self.parts: HashParts | None = None
        self._table_scales: npt.NDArray[np.float32] | None = None

    @classmethod
    def of_quality(cls, quality: float, picture: Picture) -> Self:
        """Return the field that stores a picture in few bytes, not fitted yet.

        Parameters
        ----------
        quality : float
            1 to 100, see the top of this module.
        picture : Picture
            Its size decides how many levels the grid has.

        Returns
        -------
        HashField
            Its levels double up to one vertex a pixel, all of them stored one to one: on tissue entries that share a
            slot by hash cost more than the bits that they save, since a λ makes the bits of unused entries few.

        Raises
        ------
        ConfigError
            When `quality` is out of range.
        """
        return cls(**quality_settings(quality, picture.extent_px))

    @property
    def sizes(self) -> Mapping[str, int]:
        """Return how many numbers table and network have; none before a fit."""
        parts = self.parts
        return {} if parts is None else {"table": parts.table.size, "network": parts.network.size}

    def fit(
        self,
        source: Array | Sequence[Array] | Levels,
        *,
        steps: int | None = None,
        target_psnr: float | None = None,
        seconds: float | None = None,
        level_weights: Mapping[int, float] | None = None,
        backend: str | None = None,
    ) -> FitReport:
        """Fit it to all levels of a picture at once, from where it stands.

        Parameters
        ----------
        source : ndarray, sequence of ndarray, or Levels
            `(c, y, x)`; or its levels, finest first. See `Levels.of`.
        steps, target_psnr, seconds
            When it ends, see `Stop`.
        level_weights : mapping of int to float, optional
            Shares of a step's pixels by level, see `PixelSampler`.
        backend : {"cpu", "cuda", "torch"}, optional
            Our kernels on the CPU, the default, or on a CUDA device, or the reference in plain torch.

        Returns
        -------
        FitReport
            PSNR is of what `quantize` gives where `bits` or λ is set.

        Raises
        ------
        ConfigError
            When there is no end, or the picture is another one than before.
        """
        from tilestream.codecs.fields.fitting import fit_loop
        from tilestream.codecs.fields.hashfit import NOISY_SHARE, HashFit
        from tilestream.codecs.fields.sampler import PixelSampler

        stop = Stop(steps=steps, target_psnr=target_psnr, seconds=seconds)
        levels = source if isinstance(source, Levels) else Levels.of(source)
        where = _backend("fit", backend)
        parts = self._begin(levels.picture)
        sampler = PixelSampler(levels, level_weights=level_weights, seed=self.settings.seed)
        fitted = HashFit(parts, levels.picture, sampler, settings=self.settings, backend=where)

        def measure(level: int) -> float:
            self.picture, self.parts, self._table_scales = levels.picture, fitted.parts(), fitted.table_scales()
            stored = self if self.settings.bits is None else self.quantize()
            return levels.psnr(level, stored.decode(level=level))

        return fit_loop(
            fitted.learned(),
            sampler,
            fitted.loss_of,
            stop=stop,
            measure=measure,
            batch_px=min(self.settings.batch_px, sum(one[0].size for one in levels.pixels)),  # once each, or nearly
            settled_share=0.0 if self.settings.bits is None else NOISY_SHARE,
        )

    def _begin(self, picture: Picture) -> HashParts:
        """Return the parts that a fit to a picture starts with."""
        if self.picture is not None and self.parts is not None:
            if replace(self.picture, low=picture.low, high=picture.high) != picture:
                raise ConfigError.of(
                    "`fit` of a field that was fitted before",
                    got=f"{picture.shape}, {picture.channels} channels of {picture.dtype}, {picture.levels} levels",
                    expected="a picture of the same size and type",
                    do="Make a new field.",
                )
            return self.parts
        from tilestream.codecs.fields.hashfit import first_parts

        return first_parts(self.settings, picture)

    def decode(
        self,
        box: Box | None = None,
        *,
        level: float | None = None,
        out: Array | None = None,
        backend: str | None = None,
        threads: int | None = None,
    ) -> Array:
        """Return the samples of a box.

        Parameters
        ----------
        box : Box, optional
            In pixels of `level`; by default all of it.
        level : float, optional
            At least 0, also between two; by default that of the box, or 0.
        out : ndarray, optional
            `(c, y, x)` of the type of the picture, any strides; overwritten.
        backend : {"cpu", "cuda", "torch"}, optional
            Our kernels on the CPU, the default, or on a CUDA device, or the reference in plain torch.
        threads : int, optional
            Most CPU threads of our kernels, by default all cores.

        Returns
        -------
        ndarray
            `out`, or a view of new interleaved memory.

        Raises
        ------
        ConfigError
            When it was never fitted, or box, level or `out` do not fit.
        """
        query = Query.of(self.picture, box=box, level=level)
        where = _backend("decode", backend)
        found = query.room(out)
        if not found.size:
            return found
        picture = query.picture
        low, share = int(query.level), np.float32(query.level % 1)
        if picture.dtype == "uint8" and where == "cpu" and not share:  # codes are what the kernel writes: a pass less
            self._values(query, low, where, threads, found)
            return found
        values = self._values(query, low, where, threads, None)
        if share:
            values = values + share * (self._values(query, low + 1, where, threads, None) - values)
        return picture.from_unit(values, found)

    def _values(
        self, query: Query, whole: int, backend: str, threads: int | None, out: Array | None
    ) -> npt.NDArray[np.float32]:
        """Return what a whole level is at the pixels of a query, 0 to 1 as float32; or write codes of uint8."""
        parts = self.parts
        assert parts is not None
        at = parts.at_level(whole)
        is_between = whole != query.level
        if backend == "torch":
            from tilestream.codecs.fields.hashtorch import reference_decode

            centres = query.centres_xy(whole=whole if is_between else None)
            flat = reference_decode(at.table, at.network, centres, grid=at.grid, layers=parts.layers, kept=at.kept)
            return flat.reshape(*query.shape[1:], -1).transpose(2, 0, 1)
        arrays: tuple[Any, ...] = (at.table, at.network)
        if backend == "cuda":
            require_device()
            arrays = tuple(cuda.to_device(array) for array in arrays)
        extent, scale = float(parts.extent_px), 2.0**query.level
        where: dict[str, Any] = {"box": query.box, "extent_yx": (extent, extent), "scale_yx": (scale, scale)}
        if is_between:  # centres beyond the last of the whole level are moved onto it: one by one, not along rows
            centres = query.centres_xy(whole=whole)
            where = {"coords_xyz": cuda.to_device(centres) if backend == "cuda" else centres}
        found = hash_decode(
            *arrays,
            grid=at.grid,
            layers=parts.layers,
            max_level=at.kept - 1,
            dtype=np.float32 if out is None else np.uint8,
            out=out,
            threads=threads,
            **where,
        )
        found = found.copy_to_host() if backend == "cuda" else found
        return found.reshape(*query.shape[1:], -1).transpose(2, 0, 1) if is_between else found  # type: ignore[no-any-return]

    def quantize(self, bits: int | None = None) -> Self:
        """Return a copy whose table and network are whole numbers times a scale.

        Parameters
        ----------
        bits : int, optional
            Of an entry of the table, by default those it was fitted for, else 8; the network has 8.

        Returns
        -------
        HashField
            With a scale for each feature of each level: that of the fit if it knew of these bits, else of least error.

        Raises
        ------
        ConfigError
            When it was never fitted, or `bits` are none.
        """
        parts = self.parts
        if parts is None:
            raise ConfigError.of(
                "`quantize`", got="a field that was never fitted", expected="a fitted one", do="Fit it."
            )
        wanted = bits or self.settings.bits or 8
        if parts.coded is not None and parts.coded[0].bits == wanted:
            return copy.copy(self)
        scales = self._table_scales if wanted == self.settings.bits else None
        table = quantise(by_group(parts.stored, parts.stored_grid), parts.table_starts, wanted, scales=scales)
        network = quantise(parts.network, parts.network_starts, NETWORK_BITS)
        found = copy.copy(self)
        parts = parts.with_stored(from_groups(table.values(), parts.stored_grid))
        found.parts = replace(parts, network=network.values(), coded=(table, network))
        return found

    def to_bytes(self) -> bytes:
        """Return it as a container of the kind `hash`: as codes once it was quantised, else as float16."""
        if self.parts is None or self.picture is None:
            raise ConfigError.of(
                "`to_bytes`", got="a field that was never fitted", expected="a fitted one", do="Fit it."
            )
        return write_hash(self.parts, self.picture)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the field that bytes hold.

        Parameters
        ----------
        data : bytes
            What `to_bytes` gave.

        Returns
        -------
        HashField
            To be decoded, or fitted on with no λ.

        Raises
        ------
        DamagedError
            When the bytes are not whole.
        SourceError
            When they were written by a newer version.
        """
        parts, picture = read_hash(data)
        grid = parts.stored_grid
        found = cls(
            levels=grid.levels,
            features=grid.features,
            log2_table=grid.log2_table,
            n_min=grid.n_min,
            n_max=grid.n_min * grid.growth ** (grid.levels - 1),
            hidden=parts.layers.widths[1],
            layers=len(parts.layers.widths) - 2,
            bits=None if parts.coded is None else parts.coded[0].bits,
            probing=None if parts.probed is None else parts.probed.grid.probing,
        )
        found.picture, found.parts = picture, parts
        return found


def _backend(call: str, backend: str | None) -> str:
    if backend is not None and backend not in BACKENDS:
        raise ConfigError.of(
            f"`backend` of `{call}`", got=backend, expected=", ".join(BACKENDS), do="Leave it out for the CPU."
        )
    return backend or "cpu"
