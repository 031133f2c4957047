"""The rate that patchify is promised at beside torch, at 70 % of its bar: below that is no noise."""

import pytest

from tests.bench.bench_resample import PATCHIFY_BAR, patchify_row
from tests.bench.table import until_held
from tests.bench.test_ratios import SHARE


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "patch"), [("float32", 0), ("float16", 16)])
def test_patchify_beats_the_torch_chain(dtype: str, patch: int) -> None:
    row = until_held(lambda: patchify_row(dtype=dtype, patch=patch, tiles=16, rounds=5, bar=SHARE * PATCHIFY_BAR))
    assert row["ok"], row
