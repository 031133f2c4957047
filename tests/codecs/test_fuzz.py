"""Some of the files of `make fuzz`."""

import pytest

from tests.codecs.fuzz import run


@pytest.mark.slow
def test_two_thousand_files_by_chance_do_no_harm() -> None:
    found = run(2000)
    assert found["refused"] > 500
    assert found["read"] > 100
