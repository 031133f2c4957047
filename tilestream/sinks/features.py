"""The feature store of one image: parts while the run goes on, one Zarr store when it is done."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.codecs.checksums import checksum
from tilestream.codecs.metadata import encode_json
from tilestream.errors import ConfigError, OutputError
from tilestream.sinks.chain import Chain, ChainRun
from tilestream.sinks.facts import PlanFacts, image_facts, plan_facts
from tilestream.sinks.parts import expected_parts, iter_parts, lost_parts, remove_parts, write_part
from tilestream.sinks.pooling import NewPooler
from tilestream.sinks.rows import CHUNK_BYTES
from tilestream.sinks.slidetable import SlideTable
from tilestream.sinks.tables import RegionTable, TableFacts, TileTable
from tilestream.sinks.tree import OWNER, TreeWriter, check_replaceable, remove_leftovers, root_attributes
from tilestream.types import Array, ImageInfo, Receipt, SuperTile, TileStatus

FORMAT = 1
"""Version of the layout of the store."""
GROUPS = ("tile", "region", "slide")
SCALARS = ("valid", "tissue", "entropy")
KNOWN = frozenset({"valid", "tissue", "relevance"})
"""Scalars that have a value on every tile, whatever became of it."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_TAKEN = frozenset(
    {*SCALARS, "relevance", "opened", "status", "x", "y", "size", "level", "crs_x", "crs_y", "n", "n_ok", *GROUPS}
)
_BESIDE = ("status", "mean", "std", "n_ok", "n_regions", "n_regions_ok", "slide")
"""What variables beside an encoder's vectors end in, in a store or a cohort."""


@dataclass(frozen=True, kw_only=True)
class FeatureSink:
    """Takes the vectors of an image's tiles; picklable, workers write and the starter finishes.

    `write` wants by name, each in row order: `status` (uint8), each of `scalars` (float32), each encoder (float32
    `(n, d)`; a scalar may be `(n, 1)`) and `<encoder>/status` (uint8).
    """

    root: Path
    """Final store, `OUT/<relative path>.features.zarr`."""
    work: Path
    """Folder of the parts, owned by the sink; names in receipts are relative to it."""
    image: ImageInfo
    """The image."""
    plan: PlanFacts
    """The plan."""
    encoders: tuple[tuple[str, tuple[str, ...]], ...]
    """Name of each encoder and of its outputs."""
    new_pooler: NewPooler
    """Makes the pooler of regions and slides for vectors of a length."""
    recipe: Mapping[str, Any]
    """All that the store is a function of; JSON values."""
    recipe_digest: str
    """Digest of the recipe."""
    version: str
    """Version of tilestream."""
    chains: Mapping[str, Chain] = field(default_factory=dict)
    """Stages above the tiles by the encoder's name; regions and slides of other encoders are pooled."""
    scalars: tuple[str, ...] = SCALARS
    """Names of the float32 values that each tile has besides vectors; NaN on tiles that are not OK, except those that
    are known of all (`KNOWN`)."""
    opened: npt.NDArray[np.uint8] | None = None
    """`(rows,)` 1 for tokens whose place finer ones have taken, which is known when all units are done; else None."""
    replace: bool = False
    """Whether a finished store of another run may be replaced."""
    chunk_bytes: int = CHUNK_BYTES
    """Aimed size of a chunk before compression."""

    def __post_init__(self) -> None:
        beside = {f"{name}_{suffix}": name for name, _ in self.encoders for suffix in _BESIDE}
        for name, outputs in self.encoders:
            if name in beside:
                raise ConfigError.of(
                    f"encoder `{name}`",
                    got=f"the name of a variable of `{beside[name]}`",
                    expected="a name of its own",
                    do="Rename one of the two.",
                )
            if not _NAME.fullmatch(name) or name in _TAKEN:
                raise ConfigError.of(
                    f"encoder `{name}`",
                    got="the name of a variable that every store has" if name in _TAKEN else "that name",
                    expected="one of letters, digits and `_.-` that is not taken",
                    do="Rename it, or give it another name here: `--encoder NAME=ENCODER`.",
                )
            if not outputs or len(set(outputs)) != len(outputs):
                raise ConfigError.of(
                    f"encoder `{name}`",
                    got=f"{len(outputs)} outputs, {len(set(outputs))} different names",
                    expected="a name for each output",
                    do="Rename its outputs.",
                )

    def write(self, unit: SuperTile, results: Mapping[str, Array]) -> Mapping[str, str]:
        """Store the rows of one super-tile durably and return the checksum of its part by name.

        Parameters
        ----------
        unit : SuperTile
            The super-tile.
        results : Mapping
            Arrays by name; see the class.

        Returns
        -------
        Mapping
            One entry, relative to `work`.

        Raises
        ------
        OutputError
            When the place cannot be written.
        ConfigError
            When an array is missing or has another shape.
        """
        n = len(unit.tile_yx)
        arrays: dict[str, Array] = {
            "first_row": np.asarray(unit.first_row, np.int64),
            "tile_yx": np.asarray(unit.tile_yx, np.int64),
            "status": _take(results, "status", (n,), "uint8"),
        }
        if unit.corner_yx is not None:
            arrays["corner_yx"] = np.asarray(unit.corner_yx, np.float64)
        if unit.depth is not None:
            arrays["depth"] = np.asarray(unit.depth, np.int64)
        bad = arrays["status"] != TileStatus.OK
        for name in self.scalars:
            values = _take(results, name, (n,), "float32")
            arrays[f"scalar/{name}"] = values if name in KNOWN else _blank(values, bad)
        for name, outputs in self.encoders:
            status = np.where(bad, arrays["status"], _take(results, f"{name}/status", (n,), "uint8"))
            arrays[f"encoder/{name}/status"] = status
            vectors = _take(results, name, (n, len(outputs)), "float32")
            arrays[f"encoder/{name}"] = _blank(vectors, status != TileStatus.OK)
        return write_part(self.work, unit.first_row, arrays)

    def finish(self, receipts: Iterable[Receipt]) -> None:
        """Turn the parts into the final store, committed by one rename, and remove them.

        It may be killed at any moment and called again: the store is either not there or whole.

        Parameters
        ----------
        receipts : iterable of Receipt
            The receipts of all super-tiles in any order.

        Raises
        ------
        OutputError
            When a part is missing or damaged, or the place cannot be written or is taken.

        Notes
        -----
        Memory is one part and one chunk of each variable.
        """
        expected = expected_parts(receipts)
        content = checksum(encode_json(expected))
        if self.is_committed(content):
            remove_leftovers(self.root, names=GROUPS)
        else:
            if self.root.exists():
                check_replaceable(self.root, replace=self.replace)
            self._assemble(expected, content)
        remove_parts(self.work)

    def lost(self, receipts: Iterable[Receipt]) -> tuple[str, ...]:
        """Return the keys of the super-tiles whose parts are missing or altered while the store still needs them.

        Parameters
        ----------
        receipts : iterable of Receipt
            The receipts of all super-tiles.

        Returns
        -------
        tuple of str
            Empty when `finish` has all it needs.
        """
        known = tuple(receipts)
        expected = expected_parts(known)
        if self.is_committed(checksum(encode_json(expected))):
            return ()
        gone = lost_parts(self.work, expected)
        return tuple(receipt.key for receipt in known if gone.intersection(receipt.outputs))

    def is_committed(self, content: str | None = None) -> bool:
        """Return whether the final store of this recipe is in its place.

        Parameters
        ----------
        content : str, optional
            Digest of its parts, which then has to be the same too.

        Returns
        -------
        bool
            True when there is nothing left to do but to clean up.
        """
        found = (root_attributes(self.root) or {}).get(OWNER)
        if not isinstance(found, dict) or found.get("recipe_digest") != self.recipe_digest:
            return False
        return content is None or found.get("content") == content

    def _assemble(self, expected: Mapping[str, str], content: str) -> None:
        tree = TreeWriter(self.root, names=GROUPS)
        facts = TableFacts(
            image=self.image,
            plan=self.plan,
            encoders=self.encoders,
            scalars=self.scalars,
            new_pooler=self.new_pooler,
            runs={name: ChainRun(chain, self.new_pooler) for name, chain in self.chains.items()},
            chunk_bytes=self.chunk_bytes,
            contracts={name: dict(one.get("contract") or {}) for name, one in self.recipe.get("stages", {}).items()},
            opened=self.opened,
        )
        with ExitStack() as stack:
            regions = (RegionTable(tree, facts, stack),) if self.plan.has_regions else ()
            tables = (TileTable(tree, facts, stack), *regions, SlideTable(tree, facts))
            row = 0
            for part in iter_parts(self.work, expected):
                self._check_row(row, int(part["first_row"]))
                for table in tables:
                    table.add_part(part)
                row += len(part["status"])
            self._check_row(row, self.plan.rows)
            for table in tables:
                table.close()
        tree.commit(self._attributes(content), replace=self.replace)

    def _check_row(self, row: int, next_row: int) -> None:
        if row != next_row:
            raise OutputError.of(
                f"parts in `{self.work}`",
                got=f"rows up to {row}, then {next_row}",
                expected=f"all {self.plan.rows} rows of the plan, each once",
                do="Run the same command again: what is missing is computed anew.",
            )

    def _attributes(self, content: str) -> dict[str, Any]:
        mpp_yx = self.plan.mpp_yx
        return {
            OWNER: {
                "store": "features",
                "format": FORMAT,
                "version": self.version,
                "recipe_digest": self.recipe_digest,
                "content": content,
            },
            "recipe": dict(self.recipe),
            "image": image_facts(self.image),
            "plan": plan_facts(self.plan),
            "mpp": None if mpp_yx is None else (mpp_yx[0] * mpp_yx[1]) ** 0.5,
            "crs": self.image.crs,
        }


def _take(results: Mapping[str, Array], name: str, shape: tuple[int, ...], dtype: str) -> Array:
    values = np.asarray(results[name], dtype) if name in results else None
    if values is not None and values.shape == (*shape, 1):  # a stage whose vectors have one value
        values = values[:, 0]
    if values is None or values.shape != shape:
        raise ConfigError.of(
            f"results of `{name}`",
            got="nothing" if values is None else f"shape {values.shape}",
            expected=f"{dtype} of shape {shape}",
            do="Hand every array of the unit to the sink, one row a tile.",
        )
    return values


def _blank(values: Array, bad: Array) -> Array:
    return np.where(bad.reshape(-1, *(1,) * (values.ndim - 1)), np.float32("nan"), values)
