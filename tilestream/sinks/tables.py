"""The groups of tiles and of regions in a feature store, filled part by part."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.codecs.metadata import NAN_FILL_ATTRIBUTE
from tilestream.sinks.chain import ChainRun
from tilestream.sinks.facts import PlanFacts
from tilestream.sinks.pooling import NewPooler, iter_regions, pool
from tilestream.sinks.rows import CHUNK_BYTES, RowArray, write_texts
from tilestream.sinks.tree import TreeWriter
from tilestream.types import Array, ImageInfo, PlanLevel, TileStatus

STATUS_ATTRIBUTES: Mapping[str, Any] = {
    "flag_values": [int(status) for status in TileStatus],
    "flag_meanings": " ".join(status.name.lower() for status in TileStatus),
}
NAN = float("nan")
CHAIN_POOLING = "slide"
"""What the vector of a slide says of itself that the stages of a hierarchy have made."""


@dataclass(frozen=True, kw_only=True)
class TableFacts:
    """What all tables of a store are made from."""

    image: ImageInfo
    """The image."""
    plan: PlanFacts
    """The plan."""
    encoders: tuple[tuple[str, tuple[str, ...]], ...]
    """Name of each encoder and of its outputs."""
    scalars: tuple[str, ...]
    """Names of the float32 values that each tile has besides vectors."""
    new_pooler: NewPooler
    """Makes the pooler of regions and slides."""
    runs: Mapping[str, ChainRun] = field(default_factory=dict)
    """What makes vectors of regions and of the slide by the encoder's name, where that is more than pooling."""
    chunk_bytes: int = CHUNK_BYTES
    """Aimed size of a chunk before compression."""
    contracts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What each encoder expects and gives, as JSON values by its name."""
    opened: npt.NDArray[np.uint8] | None = None
    """`(rows,)` 1 for tokens whose place finer ones have taken; None where nothing is opened."""

    def opened_of(self, part: Mapping[str, Array]) -> npt.NDArray[np.uint8]:
        """Return of the rows of a part which were opened, `(n,)`."""
        first, n = int(part["first_row"]), len(part["status"])
        return np.zeros(n, np.uint8) if self.opened is None else self.opened[first : first + n]

    def contract_of(self, name: str) -> dict[str, Any]:
        """Return the attribute that says under which contract the vectors of an encoder were made."""
        stated = {key: value for key, value in self.contracts.get(name, {}).items() if value not in (None, [])}
        return {"contract": stated} if stated else {}

    def has_region_stage(self, encoder: str) -> bool:
        """Return whether regions have a vector of their own besides the statistics of their tiles."""
        return encoder in self.runs and self.runs[encoder].chain.region_dim is not None

    @property
    def has_crs(self) -> bool:
        """Return whether places in the CRS are known."""
        return self.image.crs is not None and self.image.affine is not None


@dataclass
class Table:
    """One group whose variables share their first dimension; open until the stack is closed."""

    name: str
    """Name of the group and of the dimension."""
    tree: TreeWriter
    """The store."""
    facts: TableFacts
    """Common facts."""
    stack: ExitStack
    """Owner of open files."""
    columns: dict[str, tuple[RowArray, tuple[str, ...], dict[str, Any]]] = field(default_factory=dict)
    """Array, further dimensions and attributes by variable."""

    def add_column(
        self,
        name: str,
        dtype: str,
        *,
        fill_value: float = NAN,
        dimension: tuple[str, int] | None = None,
        **attributes: Any,
    ) -> None:
        """Open a variable.

        Parameters
        ----------
        name : str
            Its name.
        dtype : str
            Its type.
        fill_value : float
            Value of chunks that are not stored.
        dimension : tuple of str and int, optional
            Name and size of a second axis.
        **attributes : object
            Its attributes.
        """
        array = RowArray(
            self.tree.partial / self.name / name,
            dtype,
            row_shape=() if dimension is None else (dimension[1],),
            fill_value=fill_value,
            chunk_bytes=self.facts.chunk_bytes,
        )
        if math.isnan(fill_value):  # readers then know it as "no value"
            attributes["_FillValue"] = NAN_FILL_ATTRIBUTE
        further = () if dimension is None else (dimension[0],)
        self.columns[name] = (self.stack.enter_context(array), further, attributes)

    def fill_value(self, name: str) -> float:
        """Return the fill value of a variable."""
        return self.columns[name][0].fill_value

    def append(self, rows: Mapping[str, Array]) -> None:
        """Append rows to all variables.

        Parameters
        ----------
        rows : Mapping
            Values by variable, all of one length.
        """
        for name, (array, _, _) in self.columns.items():
            array.append(rows[name])

    def close(self, attributes: Mapping[str, Any] | None = None) -> None:
        """Make all variables whole and add the group with the names of the encoders' outputs.

        Parameters
        ----------
        attributes : Mapping, optional
            Attributes of the group.
        """
        self.tree.group(self.name, attributes)
        for name, (array, further, own) in self.columns.items():
            self.tree.array(f"{self.name}/{name}", array.close((self.name, *further), own))
        write_output_names(self.tree, self.name, self.facts)


def write_output_names(tree: TreeWriter, group: str, facts: TableFacts) -> None:
    """Add the coordinate of each encoder's dimensions to a group.

    Parameters
    ----------
    tree : TreeWriter
        The store.
    group : str
        The group.
    facts : TableFacts
        Knows the encoders.
    """
    for name, outputs in facts.encoders:
        dimensions = {feature_dimension(name): outputs}
        if group == "region" and facts.has_region_stage(name):
            dim = facts.runs[name].chain.region_dim or 0
            dimensions[chain_dimension(name, group)] = tuple(f"{name}_region_{k}" for k in range(dim))
        if group == "slide" and name in facts.runs:
            dim = facts.runs[name].chain.slide_dim
            dimensions[chain_dimension(name, group)] = tuple(f"{name}_slide_{k}" for k in range(dim))
        for dimension, texts in dimensions.items():
            path = f"{group}/{dimension}"
            tree.array(path, write_texts(tree.partial / path, texts, dimension))


def feature_dimension(encoder: str) -> str:
    """Return the name of the dimension along an encoder's outputs."""
    return f"feature_{encoder}"


def chain_dimension(encoder: str, group: str) -> str:
    """Return the name of the dimension along what the stage of a group, `region` or `slide`, gives."""
    return f"{group}_feature_{encoder}"


def statistic_name(encoder: str, number: int, statistic: str, *, is_chain: bool = False) -> str:
    """Return the variable of a pooled statistic; the first bears the encoder's name, unless a stage's vector does."""
    return encoder if number == 0 and not is_chain else f"{encoder}_{statistic}"


class TileTable:
    """Group `tile`: one row a tile in plan order.

    Parameters
    ----------
    tree : TreeWriter
        The store.
    facts : TableFacts
        Common facts.
    stack : ExitStack
        Owner of open files.
    """

    def __init__(self, tree: TreeWriter, facts: TableFacts, stack: ExitStack) -> None:
        self.facts = facts
        self._table = Table(name="tile", tree=tree, facts=facts, stack=stack)
        self._open()

    def close(self) -> None:
        """Make the group whole."""
        self._table.close()

    def _open(self) -> None:
        add_column = self._table.add_column
        plan, places = self.facts.plan, "x y crs_x crs_y" if self.facts.has_crs else "x y"
        for name, outputs in self.facts.encoders:
            dimension = (feature_dimension(name), len(outputs))
            add_column(name, "float32", dimension=dimension, coordinates=places, **self.facts.contract_of(name))
            add_column(f"{name}_status", "uint8", fill_value=255, **STATUS_ATTRIBUTES)
        add_column("status", "uint8", fill_value=255, coordinates=places, **STATUS_ATTRIBUTES)
        for axis in "xy":
            add_column(axis, "float64", units="px", long_name=f"{axis} of the core's top-left corner, level 0")
        scale_y, scale_x = plan.level.scale_yx
        edges_px = [plan.grid.tile_px * scale_y, plan.grid.tile_px * scale_x]
        # One value for all rows is the fill value: the variable then needs no chunks.
        add_column(
            "size", "float64", fill_value=self._edge_px(plan.level), units="px", size_yx=edges_px,
            long_name="edge of the core, level 0",
        )  # fmt: skip
        add_column("level", "int16", fill_value=plan.level.stored, long_name="stored level that was read")
        for name in self.facts.scalars:
            add_column(name, "float32", coordinates=places)
        if self.facts.opened is not None:
            add_column("opened", "uint8", fill_value=0, long_name="1 where finer tokens have taken its place")
        if self.facts.has_crs:
            for axis in "xy":
                add_column(f"crs_{axis}", "float64", crs=self.facts.image.crs, long_name=f"{axis} of the centre")

    def add_part(self, part: Mapping[str, Array]) -> None:
        """Append the rows of one part.

        Parameters
        ----------
        part : Mapping
            Arrays of `parts.iter_parts`.
        """
        n, level = len(part["tile_yx"]), self.facts.plan.level_of(part)
        corner_yx = part["corner_yx"] if "corner_yx" in part else part["tile_yx"] * np.array(level.scale_yx)
        y, x = corner_yx[:, 0], corner_yx[:, 1]
        rows: dict[str, Array] = {
            "x": x,
            "y": y,
            "status": part["status"],
            "size": np.full(n, self._edge_px(level)),
            "level": np.full(n, level.stored),
            "opened": self.facts.opened_of(part),
        }
        rows |= {name: part[f"scalar/{name}"] for name in self.facts.scalars}
        for name, _ in self.facts.encoders:
            rows[name], rows[f"{name}_status"] = part[f"encoder/{name}"], part[f"encoder/{name}/status"]
        if self.facts.has_crs:
            rows["crs_x"], rows["crs_y"] = self._centres(y, x, level)
        self._table.append(rows)

    def _edge_px(self, level: PlanLevel) -> float:
        """Return the edge of a core in pixels of level 0: of one of two edges their mean."""
        scale_y, scale_x = level.scale_yx
        tile_px = self.facts.plan.grid.tile_px
        return float(((tile_px * scale_y) * (tile_px * scale_x)) ** 0.5)

    def _centres(self, y: Array, x: Array, level: PlanLevel) -> tuple[Array, Array]:
        a, b, c, d, e, f = self.facts.image.affine or (1, 0, 0, 0, 1, 0)
        half_px = self.facts.plan.grid.tile_px / 2
        row = y + half_px * level.scale_yx[0]
        column = x + half_px * level.scale_yx[1]
        return a * column + b * row + c, d * column + e * row + f


class RegionTable:
    """Group `region`: one row for each square of the region grid that has a tile.

    Parameters
    ----------
    tree : TreeWriter
        The store.
    facts : TableFacts
        Common facts.
    stack : ExitStack
        Owner of open files.
    """

    def __init__(self, tree: TreeWriter, facts: TableFacts, stack: ExitStack) -> None:
        self.facts = facts
        self._table = Table(name="region", tree=tree, facts=facts, stack=stack)
        self._open()

    def close(self) -> None:
        """Make the group whole; raise `StageError` where a stage has failed on all regions that have a tile."""
        for name, run in self.facts.runs.items():
            run.require_a_region()
            if run.failed:
                self._table.columns[f"{name}_status"][2]["failed"] = run.failed
        self._table.close()

    def _open(self) -> None:
        add_column = self._table.add_column
        plan = self.facts.plan
        for axis in "xy":
            add_column(axis, "float64", units="px", long_name=f"{axis} of the top-left corner, level 0")
        scale_y, scale_x = plan.level.scale_yx
        size_px = plan.region_px * (scale_y * scale_x) ** 0.5
        add_column("size", "float64", fill_value=size_px, units="px", long_name="edge, level 0")
        add_column("n", "int64", fill_value=-1, long_name="tiles")
        add_column("n_ok", "int64", fill_value=-1, long_name="tiles that could be decoded and are not empty")
        for name, outputs in self.facts.encoders:
            add_column(f"{name}_n_ok", "int64", fill_value=-1, long_name="tiles that the vector is made of")
            is_chain = self.facts.has_region_stage(name)
            if is_chain:
                stage = (chain_dimension(name, "region"), self.facts.runs[name].chain.region_dim or 0)
                add_column(name, "float32", dimension=stage, coordinates="x y", long_name="vector of the region stage")
                add_column(f"{name}_status", "uint8", fill_value=255, **STATUS_ATTRIBUTES)
            for number, statistic in enumerate(self.facts.new_pooler(len(outputs)).result()):
                dimension = (feature_dimension(name), len(outputs))
                add_column(
                    statistic_name(name, number, statistic, is_chain=is_chain), "float32", dimension=dimension,
                    pooling=statistic, coordinates="x y",
                )  # fmt: skip

    def add_part(self, part: Mapping[str, Array]) -> None:
        """Append the regions of one part; none reaches into another, since regions divide super-tiles.

        Parameters
        ----------
        part : Mapping
            Arrays of `parts.iter_parts`.
        """
        plan = self.facts.plan
        edge = plan.region_px // plan.grid.step_px
        for (iy, ix), members in iter_regions(plan, part["tile_yx"]):
            rows: dict[str, Array] = {
                "y": np.array([(iy * plan.region_px + plan.grid.origin_yx[0]) * plan.level.scale_yx[0]]),
                "x": np.array([(ix * plan.region_px + plan.grid.origin_yx[1]) * plan.level.scale_yx[1]]),
                "size": np.array([self._table.fill_value("size")]),
                "n": np.array([len(members)]),
                "n_ok": np.array([np.count_nonzero(part["status"][members] == TileStatus.OK)]),
            }
            for name, _ in self.facts.encoders:
                vectors, status = part[f"encoder/{name}"][members], part[f"encoder/{name}/status"][members]
                ok = status == TileStatus.OK
                rows[f"{name}_n_ok"] = np.array([np.count_nonzero(ok)])
                is_chain = self.facts.has_region_stage(name)
                if is_chain:
                    cells = plan.cells(part["tile_yx"][members]) - np.array([iy, ix], np.int64) * edge
                    made = self.facts.runs[name].add_region(vectors, cells, status, edge=edge)
                    rows[name], rows[f"{name}_status"] = made.vector[None], np.array([made.status])
                pooled = pool(self.facts.new_pooler, vectors, ok)
                for number, (statistic, vector) in enumerate(pooled.items()):
                    rows[statistic_name(name, number, statistic, is_chain=is_chain)] = vector[None]
            self._table.append(rows)
