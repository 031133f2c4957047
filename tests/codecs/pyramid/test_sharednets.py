"""Shared networks are known by their digests."""

import pytest

from tests.codecs.pyramid.made import made_nets
from tilestream.codecs.pyramid import sharednets
from tilestream.codecs.pyramid.sharednets import find_nets, keep_nets
from tilestream.errors import SourceError


@pytest.fixture(autouse=True)
def nothing_is_known(monkeypatch):
    monkeypatch.setattr(sharednets, "_known", {})


def test_networks_are_found_by_their_digest():
    nets = keep_nets(made_nets(seed=1))
    keep_nets(made_nets(seed=2))
    assert find_nets(nets.digest) is nets
    assert keep_nets(made_nets(seed=1)) is nets


def test_networks_that_are_not_known_are_named():
    one, other = keep_nets(made_nets(seed=1)), made_nets(seed=2)
    with pytest.raises(SourceError, match=other.digest.hex()) as told:
        find_nets(other.digest)
    assert one.digest.hex() in str(told.value)
    assert "--weights" in str(told.value)
