from __future__ import annotations

import sys
from pathlib import Path

import pytest

STUBS = Path(__file__).parents[2] / "stubs"


@pytest.fixture(scope="session", autouse=True)
def torchvision() -> None:
    """Let the libraries import where torchvision does not fit torch."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.path.insert(0, str(STUBS))
