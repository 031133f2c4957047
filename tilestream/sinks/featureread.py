"""One finished feature store, read variable by variable: what exports are made from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError, DamagedError
from tilestream.sinks.rowsread import Ints, Positions, RowLayout, read_rows, read_texts
from tilestream.sinks.tables import feature_dimension
from tilestream.sinks.tree import OWNER
from tilestream.types import Array, TileStatus

PIECE_BYTES = 32 << 20
"""Vectors that are in memory at a time while they are copied."""


@dataclass(frozen=True, kw_only=True)
class StoredFeatures:
    """A feature store of one image; holds its metadata, no row and no open file."""

    folder: Path
    """The store."""
    key: str
    """Relative path of the image, which the store's name begins with."""
    attributes: Mapping[str, Any]
    """What the store says of the image, the plan and the encoders."""
    nodes: Mapping[str, Any]
    """Metadata of each variable by path."""

    @classmethod
    def open(cls, folder: Path, key: str) -> StoredFeatures:
        """Return a store.

        Parameters
        ----------
        folder : Path
            The store.
        key : str
            Relative path of its image.

        Returns
        -------
        StoredFeatures
            Its metadata.

        Raises
        ------
        DamagedError
            When it is no feature store of ours, or is cut.
        """
        try:
            document = json.loads((folder / "zarr.json").read_bytes())
            attributes, nodes = document["attributes"], document["consolidated_metadata"]["metadata"]
            if attributes[OWNER]["store"] != "features":
                raise DamagedError(f"`{folder}`: a store of another kind, not of features")
            if missing := {"image", "plan", "recipe"} - set(attributes):
                raise DamagedError(f"`{folder}`: a feature store that says nothing of its {', '.join(sorted(missing))}")
        except DamagedError:
            raise
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise DamagedError(
                f"`{folder}`: no metadata of a feature store ({type(error).__name__}: {error})"
            ) from error
        return cls(folder=folder, key=key, attributes=attributes, nodes=nodes)

    def __len__(self) -> int:
        """Return the number of tiles."""
        return int(self.nodes["tile/status"]["shape"][0])

    @property
    def image(self) -> Mapping[str, Any]:
        """Return what is known of the image; see `image_facts`."""
        found: Mapping[str, Any] = self.attributes["image"]
        return found

    @property
    def plan(self) -> Mapping[str, Any]:
        """Return what is known of the plan; see `plan_facts`."""
        found: Mapping[str, Any] = self.attributes["plan"]
        return found

    @property
    def content(self) -> str:
        """Return the digest of what the store was made from."""
        owner = self.attributes[OWNER]
        return f"{owner['recipe_digest']}-{owner['content']}"

    @cached_property
    def encoders(self) -> tuple[str, ...]:
        """Return the names of the encoders whose vectors it holds."""
        prefix = f"tile/{feature_dimension('')}"
        names = [path.removeprefix(prefix) for path in self.nodes if path.startswith(prefix)]
        return tuple(sorted(name for name in names if f"tile/{name}" in self.nodes))

    @property
    def is_mixed(self) -> bool:
        """Return whether it holds tokens of several sizes, or of another than the finest; see `sizes_yx`."""
        return any(depth["tokens"] for depth in self.plan.get("depths", ())[1:])

    @property
    def size_yx(self) -> tuple[float, float]:
        """Return the edges of a tile's core, pixels of level 0; of tokens those of the finest."""
        y, x = self.nodes["tile/size"]["attributes"]["size_yx"]
        return float(y), float(x)

    @property
    def mpp(self) -> float | None:
        """Return micrometres per pixel of level 0, None when unknown."""
        return _mean(self.image["mpp_yx"])

    @property
    def plan_mpp(self) -> float | None:
        """Return micrometres per pixel that the encoder saw, None when unknown."""
        return _mean(self.plan["mpp_yx"])

    def dim(self, encoder: str) -> int:
        """Return the length of an encoder's vectors."""
        return int(self.nodes[f"tile/{encoder}"]["shape"][1])

    def outputs(self, encoder: str) -> tuple[str, ...]:
        """Return the name of each value of an encoder's vectors."""
        return read_texts(self.folder / "tile" / feature_dimension(encoder))

    def has(self, name: str, group: str = "tile") -> bool:
        """Return whether a group has a variable."""
        return f"{group}/{name}" in self.nodes

    def read(self, name: str, rows: Positions | None = None, *, group: str = "tile") -> Array:
        """Return a variable, or rows of it.

        Parameters
        ----------
        name : str
            The variable.
        rows : range or ndarray of int64, optional
            Which rows, ascending; all by default.
        group : str
            `tile`, `region` or `slide`.

        Returns
        -------
        ndarray
            Its values.

        Raises
        ------
        DamagedError
            When its bytes cannot be decoded.
        """
        path = f"{group}/{name}"
        return read_rows(self.folder / path, RowLayout.of(self.nodes[path]), rows)

    def ok_rows(self, encoder: str) -> Ints:
        """Return the rows that have a vector; without tokens whose place finer ones have taken."""
        return np.flatnonzero((self.read(f"{encoder}_status") == TileStatus.OK) & ~self.opened()).astype(np.int64)

    def opened(self) -> npt.NDArray[np.bool_]:
        """Return which rows are tokens whose place finer ones have taken, `(n,)`."""
        return self.read("opened") > 0 if self.has("opened") else np.zeros(len(self), np.bool_)

    def sizes_yx(self, rows: Positions | None = None) -> npt.NDArray[np.float64]:
        """Return the edges of cores, `(n, 2)` in pixels of level 0."""
        sizes = self.read("size", rows)
        finest_yx = np.array(self.size_yx)
        times = np.rint(sizes / finest_yx.prod() ** 0.5) if self.is_mixed else np.ones(len(sizes))
        return np.asarray(times[:, None] * finest_yx, np.float64)

    def xy(self, rows: Positions | None = None) -> npt.NDArray[np.float64]:
        """Return the top-left corners of cores, `(n, 2)` as x, y in pixels of level 0."""
        return np.stack([self.read("x", rows), self.read("y", rows)], axis=1).astype(np.float64)

    def pieces(self, encoder: str, rows: Ints) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the vectors of some rows, about 32 MB at a time.

        Parameters
        ----------
        encoder : str
            Whose vectors.
        rows : ndarray of int64
            Which rows, ascending.

        Yields
        ------
        ndarray of float32
            `(k, d)`.
        """
        step = max(1, PIECE_BYTES // (4 * self.dim(encoder)))
        for first in range(0, len(rows), step):
            yield self.read(encoder, rows[first : first + step]).astype(np.float32, copy=False)

    def values(self, name: str) -> npt.NDArray[np.float64]:
        """Return one number a tile, NaN where there is none.

        Parameters
        ----------
        name : str
            A variable of one value, such as `entropy`; one output of an encoder, as `NAME` or `ENCODER:NAME`, or the
            number of it, `ENCODER:3`.

        Returns
        -------
        ndarray of float64
            `(n,)`.

        Raises
        ------
        ConfigError
            When there is no such value.
        """
        node = self.nodes.get(f"tile/{name}")
        if node is not None and len(node["shape"]) == 1 and node["data_type"] != "string":
            return self.read(name).astype(np.float64)
        encoder, column = self._column(name)
        step = max(1, PIECE_BYTES // (4 * self.dim(encoder)))
        found = [
            self.read(encoder, range(at, min(at + step, len(self))))[:, column] for at in range(0, len(self), step)
        ]
        return np.concatenate([np.empty(0), *found]).astype(np.float64)

    def _column(self, name: str) -> tuple[str, int]:
        wanted, _, output = name.rpartition(":")
        found = []
        for encoder in self.encoders:
            if wanted not in ("", encoder):
                continue
            names = self.outputs(encoder)
            if output in names:
                found.append((encoder, names.index(output)))
            elif wanted and output.isdecimal() and int(output) < self.dim(encoder):
                found.append((encoder, int(output)))
        if len(found) == 1:
            return found[0]
        single = [
            path.removeprefix("tile/")
            for path, node in self.nodes.items()
            if path.startswith("tile/") and len(node.get("shape", ())) == 1 and node["data_type"] == "float32"
        ]
        examples = [f"{encoder}:{self.outputs(encoder)[0]}" for encoder in self.encoders if self.dim(encoder)]
        raise ConfigError.of(
            "`--value`",
            got=f"`{name}`, " + (f"which {len(found)} encoders have" if found else f"which `{self.key}` does not have"),
            expected=f"one of {', '.join(single)}, or an output of an encoder such as {', '.join(examples)}",
            do="Name one of these; an encoder goes before its output.",
        )


def _mean(mpp_yx: Any) -> float | None:
    return None if mpp_yx is None else float((mpp_yx[0] * mpp_yx[1]) ** 0.5)
