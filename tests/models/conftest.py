"""What tests of models share."""

import sys
from collections.abc import Iterator

import pytest

from tilestream.models.runners import one_torch_thread


@pytest.fixture(autouse=True)
def small_networks_on_one_thread() -> Iterator[None]:
    """Keep torch on the test's own thread: on a busy machine the others cost small networks most of their time."""
    if "torch" not in sys.modules:
        yield
        return
    with one_torch_thread():
        yield
