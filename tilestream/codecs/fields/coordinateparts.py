"""The parameters of a network of coordinates, how they make pixels of a level, and how they are quantised.

    weights     of all layers, matrix by matrix, each followed by its biases (`tilestream.kernels.mlp_layers`)
    mixing      (hidden units, latent), where there are latents
    latents     (levels, latent): level l adds mixing · latent_l to the biases of the hidden layers; between two levels
                its latent lies between theirs

all in one run. Once quantised, rows of matrices with at least `LEAST_ROW` numbers are codes with a scale a row; the
first layer of a network of plain coordinates, whose frequencies cannot be that coarse, biases and latents stay float16.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tilestream.codecs.fields.encoding import Encoding
from tilestream.codecs.fields.query import Query
from tilestream.codecs.quantise import Quantised, quantise
from tilestream.kernels.mlp_layers import MlpLayers

LEAST_ROW = 8


@dataclass(frozen=True, kw_only=True)
class CoordinateParts:
    """A network of coordinates."""

    encoding: Encoding
    """What it is asked with."""
    layers: MlpLayers
    """Its sizes, with biases; at least one hidden layer."""
    latent: int = 0
    """Numbers of a latent; 0 where there are none."""
    run: npt.NDArray[np.float32]
    """All parameters."""
    coded: Quantised | None = None
    """Where `run` is from, as far as it is codes."""

    @property
    def sizes(self) -> dict[str, int]:
        """Return how many parameters each part has."""
        network = self.layers.parameters
        found = {"network": network, "mixing": self.hidden * self.latent, "latents": self.encoding.levels * self.latent}
        return {name: size for name, size in found.items() if size}

    @property
    def hidden(self) -> int:
        """Return how many hidden units there are in all layers."""
        return sum(self.layers.widths[1:-1])

    @cached_property
    def shifted(self) -> npt.NDArray[np.intp]:
        """Return where the biases of hidden units are in the run, `(hidden,)`."""
        rows = self.layers.layout[:-1]
        return np.concatenate([np.arange(bias, bias + outputs) for _, outputs, _, bias, _ in rows.tolist()])

    @cached_property
    def matrix_rows(self) -> list[tuple[int, int, int]]:
        """Return start, rows and columns of each matrix that is quantised."""
        found = [(start, outputs, inputs) for inputs, outputs, start, *_ in self.layers.layout.tolist()]
        found.append((self.layers.parameters, self.hidden, self.latent))
        return [(start, rows, columns) for start, rows, columns in found if columns >= LEAST_ROW]

    @cached_property
    def is_coded(self) -> npt.NDArray[np.bool_]:
        """Return which parameters become codes."""
        found = np.zeros(sum(self.sizes.values()), np.bool_)
        for start, rows, columns in self.matrix_rows:
            found[start : start + rows * columns] = True
        return found

    @property
    def code_starts(self) -> tuple[int, ...]:
        """Return the first index of each row among the codes."""
        widths = [columns for _, rows, columns in self.matrix_rows for _ in range(rows)]
        return tuple(np.cumsum([0, *widths])[:-1].tolist()) or (0,)

    def quantised(self, bits: int) -> CoordinateParts:
        """Return them with rows of matrices as codes, and the rest as float16 holds it.

        Parameters
        ----------
        bits : int
            Of a code.

        Returns
        -------
        CoordinateParts
            Its run is what a file will hold.

        Raises
        ------
        ConfigError
            When bits are none, or a parameter is not finite.
        """
        coded = quantise(self.run[self.is_coded], self.code_starts, bits)
        return replace(self, run=self.joined(coded.values(), self.run[~self.is_coded].astype(np.float16)), coded=coded)

    def joined(self, codes: npt.NDArray[np.float32], rest: npt.NDArray[np.float16]) -> npt.NDArray[np.float32]:
        """Return the run of what is coded and what is not."""
        run = np.empty(self.is_coded.shape, np.float32)
        run[self.is_coded], run[~self.is_coded] = codes, rest
        return run

    def network(self, level: float) -> npt.NDArray[np.float32]:
        """Return the weights of the network of a level.

        Parameters
        ----------
        level : float
            At least 0; past the coarsest it stays that.

        Returns
        -------
        ndarray of float32
            `(layers.parameters,)`.
        """
        weights = self.run[: self.layers.parameters]
        if not self.latent:
            return weights
        mixing, latents = np.split(self.run[self.layers.parameters :], [self.hidden * self.latent])
        table = latents.reshape(self.encoding.levels, self.latent).astype(np.float64)
        below = min(int(level), self.encoding.levels - 1)
        above = min(below + 1, self.encoding.levels - 1)
        between = table[below] + min(1.0, level - below) * (table[above] - table[below])
        found = weights.copy()
        found[self.shifted] += (mixing.reshape(self.hidden, self.latent) @ between).astype(np.float32)
        return found

    def rasters(
        self, query: Query
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32], MlpLayers]:
        """Return what `tilestream.kernels.raster_mlp` takes for a box.

        Parameters
        ----------
        query : Query
            Box and level.

        Returns
        -------
        columns, rows : ndarray of float32
            `(first hidden width, width)` and `(…, height)`, made in float64.
        weights : ndarray of float32
            Of the layers after the first.
        layers : MlpLayers
            Their sizes.
        """
        weights = self.network(query.level)
        inputs, outputs, start, bias, _ = self.layers.layout[0].tolist()
        matrix = weights[start:bias].reshape(outputs, inputs).astype(np.float64)
        of_x, of_y, of_level = np.split(matrix, [self.encoding.axis_inputs, 2 * self.encoding.axis_inputs], axis=1)
        box = query.box
        offset = weights[bias : bias + outputs] + of_level @ self.encoding.shared(query.level)
        columns = of_x @ self.encoding.axis(np.arange(box.x, box.x_stop), query.level) + offset[:, None]
        rows = of_y @ self.encoding.axis(np.arange(box.y, box.y_stop), query.level)
        rest = replace(self.layers, widths=self.layers.widths[1:])
        return columns.astype(np.float32), rows.astype(np.float32), weights[bias + outputs :], rest
