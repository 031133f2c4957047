"""A torchvision that can be imported, on machines whose own does not fit torch."""

import sys
from pathlib import Path

STUBS = Path(__file__).parent / "stubs"


def stand_in() -> None:
    """Let libraries that import torchvision do so: where it is absent or broken, a stub gives them its names."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.path.insert(0, str(STUBS))
