"""The group of the slide in a feature store: vectors and counts of the whole image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.codecs.metadata import NAN_FILL_ATTRIBUTE, Layout, array_metadata, inner_codecs
from tilestream.sinks.chain import ChainRun
from tilestream.sinks.depths import leaf_weights
from tilestream.sinks.pooling import Pooler
from tilestream.sinks.rows import RowArray
from tilestream.sinks.tables import (
    CHAIN_POOLING,
    NAN,
    STATUS_ATTRIBUTES,
    TableFacts,
    chain_dimension,
    feature_dimension,
    statistic_name,
    write_output_names,
)
from tilestream.sinks.tree import TreeWriter
from tilestream.types import Array, TileStatus


class SlideTable:
    """Group `slide`: one vector of the whole image for each encoder.

    Parameters
    ----------
    tree : TreeWriter
        The store.
    facts : TableFacts
        Common facts.
    """

    def __init__(self, tree: TreeWriter, facts: TableFacts) -> None:
        self._tree = tree
        self._facts = facts
        self._counts = dict.fromkeys(["n", "n_ok", *(f"{name}_n_ok" for name, _ in facts.encoders)], 0)
        self._poolers: dict[str, Pooler] = {name: facts.new_pooler(len(out)) for name, out in facts.encoders}

    def add_part(self, part: Mapping[str, Array]) -> None:
        """Take the rows of one part; regions of a hierarchy come from the table of regions, which has been there first.

        Parameters
        ----------
        part : Mapping
            Arrays of `parts.iter_parts`.
        """
        self._counts["n"] += len(part["status"])
        self._counts["n_ok"] += _count_ok(part["status"])
        opened = self._facts.opened_of(part) > 0
        weights = leaf_weights(self._facts.plan.depths, part, opened)
        for name, pooler in self._poolers.items():
            ok = (part[f"encoder/{name}/status"] == TileStatus.OK) & ~opened
            self._counts[f"{name}_n_ok"] += int(np.count_nonzero(ok))
            pooler.add(part[f"encoder/{name}"], ok, *(() if weights is None else (weights,)))
            if name in self._facts.runs and not self._facts.has_region_stage(name):
                self._facts.runs[name].add_rows(part[f"encoder/{name}"], ok)

    def close(self) -> None:
        """Write the group."""
        self._tree.group("slide")
        for name, count in self._counts.items():
            self._scalar(name, "int64", count)
        for name, pooler in self._poolers.items():
            is_chain = name in self._facts.runs
            if is_chain:
                self._write_chain(name, self._facts.runs[name])
            for number, (statistic, vector) in enumerate(pooler.result().items()):
                variable = statistic_name(name, number, statistic, is_chain=is_chain)
                self._vector(variable, vector, dimension=feature_dimension(name), pooling=statistic)
        write_output_names(self._tree, "slide", self._facts)

    def _write_chain(self, name: str, run: ChainRun) -> None:
        made = run.slide()
        self._vector(name, made.vector, dimension=chain_dimension(name, "slide"), pooling=CHAIN_POOLING)
        failed = {"failed": made.reason} if made.reason else {}
        self._scalar(f"{name}_status", "uint8", int(made.status), **STATUS_ATTRIBUTES, **failed)
        if self._facts.has_region_stage(name):
            self._scalar(f"{name}_n_regions", "int64", run.n)
            self._scalar(f"{name}_n_regions_ok", "int64", run.n_ok)

    def _scalar(self, name: str, dtype: str, value: int, **attributes: Any) -> None:
        """Write a value as the fill value of its variable: no file besides the metadata."""
        layout = Layout(grid_shape=(), codecs=tuple(inner_codecs(np.dtype(dtype))))
        document = array_metadata(
            (), dtype, layout=layout, dimension_names=(), fill_value=value, attributes=attributes or None
        )
        self._tree.array(f"slide/{name}", document)

    def _vector(self, name: str, vector: Array, *, dimension: str, pooling: str) -> None:
        path = f"slide/{name}"
        attributes = {"_FillValue": NAN_FILL_ATTRIBUTE, "pooling": pooling}
        with RowArray(self._tree.partial / path, "float32", fill_value=NAN) as array:
            array.append(vector)
            self._tree.array(path, array.close((dimension,), attributes))


def _count_ok(status: npt.NDArray[np.uint8]) -> int:
    return int(np.count_nonzero(status == TileStatus.OK))
