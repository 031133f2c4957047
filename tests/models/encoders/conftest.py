from __future__ import annotations

import pytest

from tests.torchvisions import stand_in


@pytest.fixture(scope="session", autouse=True)
def torchvision() -> None:
    """Let the libraries import where torchvision does not fit torch."""
    stand_in()
