"""Relevance as it is named on the command line."""

from __future__ import annotations

import pytest

from tilestream.errors import ConfigError
from tilestream.pipelines.relevance import relevance_of


def test_terms_that_need_only_the_image_come_by_name():
    found = relevance_of("entropy:0.5,gradient:1.5", normalise="rank")
    assert found.shares == {"entropy": 0.25, "gradient": 0.75}
    assert found.normalise == "rank"
    with pytest.raises(ConfigError, match="entropy"):
        relevance_of("entrpy")
