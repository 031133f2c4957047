"""Files of shared networks, and what a store carries of them."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from tests.codecs.pyramid.madeshared import made_shared
from tilestream.codecs.container import pack
from tilestream.codecs.pyramid import sharednets
from tilestream.codecs.pyramid.netfile import pack_nets
from tilestream.codecs.pyramid.shared import KIND, SharedPyramid, load_shared, nets_of, nets_text, save_shared
from tilestream.codecs.pyramid.sharednets import find_nets
from tilestream.errors import ConfigError, DamagedError, SourceError


@pytest.fixture(autouse=True)
def nothing_is_known(monkeypatch):
    monkeypatch.setattr(sharednets, "_known", {})
    nets_of.cache_clear()


def test_a_file_holds_both_and_is_named_by_what_decodes(tmp_path) -> None:
    shared = made_shared()
    place = save_shared(shared, tmp_path / "new")
    assert place.name == f"{shared.name}.tspyramid"
    found = load_shared(place)
    assert found.nets.digest == shared.nets.digest
    assert found.lmbda == shared.lmbda
    np.testing.assert_array_equal(found.analysis.weights, shared.analysis.weights)
    assert find_nets(shared.nets.digest) is found.nets


def test_the_text_of_a_store_is_what_decodes_alone() -> None:
    shared = made_shared()
    text = nets_text(shared.nets)
    assert len(text) < 4 / 3 * len(pack_nets(shared.nets)) + 4
    assert nets_of(text).digest == shared.nets.digest
    assert find_nets(shared.nets.digest) is nets_of(text)


@pytest.mark.parametrize("text", ["no base64!", "aGFsbG8="])
def test_a_text_that_is_none_is_damage(text: str) -> None:
    with pytest.raises(DamagedError):
        nets_of(text)


def test_what_cannot_be_read_is_said(tmp_path) -> None:
    shared = made_shared()
    with pytest.raises(ConfigError, match="no file"):
        load_shared(tmp_path / "nothing")
    data = shared.to_bytes()
    for cut in (0, 3, 40, len(data) // 2, len(data) - 1):
        with pytest.raises(DamagedError):
            SharedPyramid.from_bytes(data[:cut])
    with pytest.raises(SourceError, match="pyramid-nets"):
        SharedPyramid.from_bytes(pack_nets(shared.nets))
    other = made_shared(scales=3).analysis.to_bytes()
    with pytest.raises(DamagedError, match="3 of 3 encoded"):
        SharedPyramid.from_bytes(pack(KIND, version=1, header={"l": 1e-3}, sections=(pack_nets(shared.nets), other)))
