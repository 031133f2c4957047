"""Each thing in which a worker may fall short of a run's starter is found and named."""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tilestream.cluster import demands as module
from tilestream.cluster.demands import Demands, code_digest
from tilestream.codecs.place import Place

ENCODER = "tried_encoder:encode"


@pytest.fixture
def demands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Demands]:
    for name in ("code", "in", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "code" / "tried_encoder.py").write_text("def encode(x):\n    return x\n")
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    (tmp_path / "in" / "a.svs").write_bytes(b"12345")
    (tmp_path / "in" / "b.svs").write_bytes(b"1")
    (tmp_path / "out" / "token").write_bytes(b"token")
    inputs = [str(tmp_path / "in" / "a.svs"), str(tmp_path / "in"), "s3://bucket/a.svs"]
    yield Demands.here(stages=[ENCODER, "handcrafted"], inputs=inputs, out=Place.of(tmp_path / "out"), token="token")
    sys.modules.pop("tried_encoder", None)


def test_a_process_like_the_starter_s(demands: Demands, tmp_path: Path) -> None:
    assert demands.differences() == ()
    assert demands.inputs == {str(tmp_path / "in" / "a.svs"): 5, str(tmp_path / "in"): None}
    assert len(pickle.dumps(demands)) < 4096
    assert demands.versions.keys() == {"python", "tilestream", "numpy", "zarr", "imagecodecs", "distributed"}


def test_a_choice_behind_the_path_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "scene").mkdir()
    found = Demands.here(inputs=[f"{tmp_path}/scene#classes=SCL", f"{tmp_path}/missing"])
    assert found.inputs == {f"{tmp_path}/scene": None}


def edit(demands: Demands, tmp_path: Path) -> None:
    (tmp_path / "code" / "tried_encoder.py").write_text("def encode(x):\n    return 2 * x\n")
    importlib.invalidate_caches()


def remove_input(demands: Demands, tmp_path: Path) -> None:
    (tmp_path / "in" / "a.svs").unlink()


def other_input(demands: Demands, tmp_path: Path) -> None:
    (tmp_path / "in" / "a.svs").write_bytes(b"123456")


def other_folder(demands: Demands, tmp_path: Path) -> None:
    (tmp_path / "out" / "token").unlink()


@pytest.mark.parametrize(
    ("change", "got", "do"),
    [
        (edit, f"other code of `{ENCODER}` in ", "restart those that have the old one"),
        (remove_input, "no `", "Mount the inputs at the same path"),
        (other_input, "another `", "Mount the inputs at the same path"),
        (other_folder, "another folder `", "on a file system that all machines mount"),
    ],
)
def test_what_differs_on_the_disk(
    change: Callable[[Demands, Path], None], got: str, do: str, demands: Demands, tmp_path: Path
) -> None:
    change(demands, tmp_path)
    (found,) = demands.differences()
    assert found.got.startswith(got)
    assert do in found.do


def test_an_edit_does_not_change_what_a_process_has_imported(demands: Demands, tmp_path: Path) -> None:
    assert demands.differences() == ()  # imports it, as the workers of a run do
    edit(demands, tmp_path)
    assert demands.differences() == (), "it is the old code that is there, and it is what was asked for"
    wanted = dict(demands.stages)
    importlib.reload(sys.modules["tried_encoder"])
    (found,) = demands.differences()
    assert "restart those that have the old one" in found.do
    assert Demands.here(stages=[ENCODER]).stages[ENCODER] != wanted[ENCODER]


def test_a_stage_that_cannot_be_imported(demands: Demands) -> None:
    (found,) = replace(demands, stages={"nosuch_module:encode": "x"}).differences()
    assert "No module named 'nosuch_module'" in found.got
    assert "PYTHONPATH" in found.do


@pytest.mark.parametrize("name", ["python", "tilestream", "numpy", "imagecodecs"])
def test_another_version(name: str, demands: Demands) -> None:
    other = replace(demands, versions={**demands.versions, name: "0.1"}, stages={"nosuch:x": ""})
    (found,) = other.differences()
    assert (found.got, found.expected) == (f"{name} {demands.versions[name]}", f"{name} 0.1")


def test_other_code_under_the_same_version(demands: Demands) -> None:
    (found,) = replace(demands, code="0" * 32).differences()
    assert found.got.startswith("another state of tilestream")


def test_the_code_is_all_of_it_and_only_its_bytes_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folders = {"tilestream": tmp_path / "a", "tilestream.kernels": tmp_path / "b"}
    for folder in folders.values():
        folder.mkdir()
        (folder / "x.py").write_text("1")

    def digest(places: dict[str, Path]) -> str:
        class Found:
            def __init__(self, name: str) -> None:
                self.submodule_search_locations = [str(places[name])]

        monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: Found(name) if name in places else None)
        return code_digest.__wrapped__()

    checkout = digest(folders)
    installed = tmp_path / "site"
    (installed / "kernels").mkdir(parents=True)
    for path in ("x.py", "kernels/x.py"):
        (installed / path).write_text("1")
    assert digest({"tilestream": installed, "tilestream.kernels": installed / "kernels"}) == checkout
    (installed / "kernels" / "x.py").write_text("2")
    assert digest({"tilestream": installed, "tilestream.kernels": installed / "kernels"}) != checkout
