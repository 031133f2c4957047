"""The ways to run an operation, as a fixture."""

import pytest

from tests.kernels.answers import NAMES, ON_CUDA, Answer


@pytest.fixture(scope="session", params=NAMES)
def on(request: pytest.FixtureRequest) -> Answer:
    """Calls an operation in one of the ways that must agree: `on(operation, *arrays, **keywords)`."""
    return Answer(request.param)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not ON_CUDA:
        return
    chosen = [item for item in items if "on" in getattr(item, "fixturenames", ()) or "gpu" in item.keywords]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen
