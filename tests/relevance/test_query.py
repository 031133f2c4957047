"""Queries: the formula, forms of examples, and what is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.plan.build import blank
from tilestream.errors import ConfigError
from tilestream.relevance.query import Place, Query, TileVectors
from tilestream.types import Box, Shape

PYR = blank(Shape(y=30, x=50))
TILES = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)


@dataclass
class Table:
    """Knows the vectors of tiles and of a few examples."""

    recipe: dict = field(default_factory=lambda: {"encoder": "table"})
    known: np.ndarray = field(default_factory=lambda: np.ones((3, 5), bool))
    asked: list = field(default_factory=list)

    def tiles(self, pyr):
        return TileVectors(vectors=TILES, known=self.known, cell_yx=(10.0, 10.0), notes=("told",))

    def place(self, pyr, where, *, searched=None):
        self.asked.append((pyr.info.shape.yx, where))
        return np.array([[2.0, 0, 0, 0], [0, 5, 0, 0]])

    def picture(self, path, *, searched=None):
        return np.array([[0, 0, 3.0, 0]])

    def texts(self, words):
        return np.array([[len(words[0]), 1.0, 0, 0]])


def plain(vectors: np.ndarray, side: list[np.ndarray], combine) -> np.ndarray:
    """The formula, in float64."""
    v = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return combine([v @ (w / np.linalg.norm(w)) for w in side], axis=0)


@pytest.mark.parametrize("combine", ["max", "mean"])
@pytest.mark.parametrize("unwanted", [[], [[0, 0, 1.0, 0]], [[0, 0, 1.0, 0], [1, 1, 1, 1]]])
def test_scores_are_those_of_the_formula(combine, unwanted):
    wanted, join = [[1.0, 2, 3, 4], [0, -1, 0, 0]], getattr(np, combine)
    others = [np.array(one) for one in unwanted]
    query = Query(embedder=Table(), wanted=[np.array(wanted)], unwanted=others, combine=combine)
    found = query(PYR)
    expected = plain(TILES.astype(float), [np.array(one) for one in wanted], join)
    if unwanted:
        expected = expected - plain(TILES.astype(float), others, join)
    np.testing.assert_allclose(found.values, expected, atol=1e-6)
    assert found.valid.all()
    assert (found.cell_yx, found.notes, found.name) == ((10.0, 10.0), ("told",), "query")


def test_values_with_units_of_their_own_are_brought_to_one_scale():
    table = Table()
    table.known[0, 0] = False
    example = TILES[1, 2] + np.float32(0.1)
    z = TILES[table.known].astype(float)
    mean, std = z.mean(axis=0), z.std(axis=0)
    found = Query(embedder=table, wanted=[example], unwanted=["a"], standardise=True)(PYR)
    ours, others = ((np.asarray(one) - mean) / std for one in (example, [1.0, 1, 0, 0]))
    expected = plain((TILES - mean) / std, [ours], np.max) - plain((TILES - mean) / std, [others], np.max)
    np.testing.assert_allclose(found.values[table.known], expected[table.known], atol=1e-5)
    assert not found.valid[0, 0]


def test_values_that_never_change_say_nothing_and_units_change_nothing(monkeypatch):
    tiles = np.concatenate([TILES, np.full((3, 5, 1), 7e4, np.float32)], axis=2)
    query = Query(embedder=Table(), wanted=[tiles[1, 2]], standardise=True)
    monkeypatch.setattr(f"{__name__}.TILES", tiles)
    found = query(PYR)
    assert found.values[1, 2] == found.values.max() == pytest.approx(1)
    monkeypatch.setattr(f"{__name__}.TILES", (tiles * [1, 100, 1, 1e-3, 5]).astype(np.float32))
    scaled = Query(embedder=Table(), wanted=[TILES[1, 2]], standardise=True)(PYR)
    np.testing.assert_allclose(scaled.values, found.values, atol=1e-4)


def test_what_cannot_be_standardised_says_why():
    with pytest.raises(ConfigError, match="no image by which"):
        Query(embedder=Table(), wanted=["a"], standardise=True).vectors()
    with pytest.raises(ConfigError, match="4 values each"):
        Query(embedder=Table(), wanted=[np.ones(3)], standardise=True)(PYR)
    alone = np.zeros((3, 5), bool)
    alone[1, 2] = True
    with pytest.raises(ConfigError, match="the very mean of all tiles"):
        Query(embedder=Table(known=alone), wanted=[TILES[1, 2]], standardise=True)(PYR)


def test_a_tile_of_which_nothing_is_known_is_not_valid():
    known = np.ones((3, 5), bool)
    known[1, 2] = False
    found = Query(embedder=Table(known=known), wanted=["a"])(PYR)
    assert not found.valid[1, 2]
    assert found.values[1, 2] == 0
    assert found.valid.sum() == 14


def save(path: Path, vectors: np.ndarray) -> Path:
    if path.suffix == ".npy":
        np.save(path, vectors)
    elif path.suffix == ".npz":
        np.savez(path, vectors=vectors)
    elif path.suffix == ".safetensors":
        from safetensors.numpy import save_file

        save_file({"v": vectors}, path)
    else:
        import torch

        torch.save(torch.from_numpy(vectors), path)
    return path


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors", ".pt"])
def test_vectors_come_from_a_file(suffix, tmp_path):
    vectors = np.array([[3.0, 0, 4, 0], [0, 0, 0, 2]], np.float32)
    query = Query(embedder=Table(), wanted=[save(tmp_path / f"q{suffix}", vectors)])
    np.testing.assert_allclose(query.vectors()[0], [[0.6, 0, 0.8, 0], [0, 0, 0, 1]], atol=1e-7)


def test_examples_of_all_forms_are_asked_of_the_embedder(tmp_path):
    picture, outline, other = tmp_path / "a.png", tmp_path / "a.geojson", tmp_path / "b.tif"
    picture.write_bytes(b"png")
    outline.write_text("{}")
    tifffile.imwrite(other, np.zeros((64, 80), np.uint8), tile=(16, 16))
    table, box = Table(), Box(y=1, x=2, height=3, width=4)
    query = Query(embedder=table, wanted=["four", picture, box], unwanted=[outline, Place(image=str(other), box=box)])
    wanted, unwanted = query.vectors(PYR)
    half = np.sqrt(0.5)
    np.testing.assert_allclose(
        wanted, [[4 / np.sqrt(17), 1 / np.sqrt(17), 0, 0], [0, 0, 1, 0], [half, half, 0, 0]], atol=1e-6
    )
    np.testing.assert_allclose(unwanted, [[half, half, 0, 0]] * 2, atol=1e-6)
    assert table.asked == [((30, 50), box), ((30, 50), outline), ((64, 80), box)]
    assert json.loads(json.dumps(query.recipe)) == query.recipe
    assert str(tmp_path) not in json.dumps(query.recipe)  # what is in a file decides, not where it lies


def test_recipes_differ_where_scores_do(tmp_path):
    one, other = save(tmp_path / "a.npy", np.eye(4)[:1]), save(tmp_path / "b.npy", np.eye(4)[1:2])
    same = save(tmp_path / "c.npy", np.eye(4)[:1])
    queries = [
        Query(embedder=Table(), wanted=["a"]),
        Query(embedder=Table(), wanted=["b"]),
        Query(embedder=Table(), wanted=["a"], unwanted=["b"]),
        Query(embedder=Table(), wanted=["a"], combine="mean"),
        Query(embedder=Table(recipe={"encoder": "x"}), wanted=["a"]),
        Query(embedder=Table(), wanted=[Box(y=0, x=0, height=1, width=1)]),
        Query(embedder=Table(), wanted=[np.ones(4)]),
        *(Query(embedder=Table(), wanted=[path]) for path in (one, other)),
    ]
    recipes = [json.dumps(query.recipe) for query in queries]
    assert len(set(recipes)) == len(recipes)
    assert json.dumps(Query(embedder=Table(), wanted=[same]).recipe) == recipes[-2]  # wherever it lies


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ([], "nothing that is wanted"),
        (["  "], "an empty one"),
        ([Path("nowhere.npy")], "no such file"),
        ([3], "a int"),
        ([np.zeros(4)], "a vector of zeros"),
        ([np.array([1, np.nan, 0, 0])], "not finite"),
        ([np.ones((2, 2, 2))], "numbers"),
        ([np.array(["a"])], "numbers"),
    ],
)
def test_examples_that_mean_nothing_are_refused_at_once(wanted, told):
    with pytest.raises(ConfigError, match=told):
        Query(embedder=Table(), wanted=wanted)


def test_vectors_of_another_length_are_refused():
    with pytest.raises(ConfigError, match="as many as the encoder gives"):
        Query(embedder=Table(), wanted=[np.ones(5)])(PYR)
    with pytest.raises(ConfigError, match="one length"):
        Query(embedder=Table(), wanted=[np.ones(5)], unwanted=[np.ones(4)])(PYR)
    with pytest.raises(ConfigError, match="`max` or `mean`"):
        Query(embedder=Table(), wanted=["a"], combine="sum")
    with pytest.raises(ConfigError, match="no image"):
        Query(embedder=Table(), wanted=[Box(y=0, x=0, height=1, width=1)]).vectors()


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.safetensors", "a.pt"])
def test_files_that_hold_something_else_say_what_to_do(name, tmp_path):
    (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(ConfigError, match="one array"):
        Query(embedder=Table(), wanted=[tmp_path / name])


@pytest.mark.parametrize(("vectors", "told"), [(np.zeros(4), "zeros"), (np.full(4, np.nan), "not finite")])
def test_vectors_of_a_file_that_mean_nothing_are_refused_at_once(vectors, told, tmp_path):
    with pytest.raises(ConfigError, match=f"q.npy.*{told}"):
        Query(embedder=Table(), wanted=[save(tmp_path / "q.npy", vectors)], standardise=True)


def test_a_file_of_several_arrays_names_them(tmp_path):
    np.savez(tmp_path / "q.npz", a=np.ones(4), b=np.ones(4))
    with pytest.raises(ConfigError, match="a, b"):
        Query(embedder=Table(), wanted=[tmp_path / "q.npz"])
