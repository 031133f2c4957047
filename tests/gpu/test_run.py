import subprocess
import sys
from pathlib import Path

import pytest

from tilestream.kernels.language import cuda

REPO = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(cuda.is_available(), reason="has a device")
def test_without_a_device_the_device_suite_says_so_and_fails(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.run", "--results", str(tmp_path)],
        cwd=REPO, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "make gpu needs a CUDA device" in done.stderr
    assert "expected an NVIDIA GPU with its driver" in done.stderr
    assert not list(tmp_path.iterdir())
