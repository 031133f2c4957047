"""The same properties in Numba's CUDA simulator, in a process of its own since it must be chosen before the import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.answers import ON_CUDA

REPO = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.skipif(ON_CUDA, reason="starts the process that this one is")
@pytest.mark.timeout(600)
def test_cuda_twins_agree_in_the_simulator() -> None:
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "TILESTREAM_TEST_BACKEND": "cuda"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/kernels"],
        cwd=REPO, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
