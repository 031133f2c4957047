import numpy as np

from tilestream.kernels.float16 import half_code_core, half_values
from tilestream.kernels.language import cpu_kernel

EVERY = np.arange(2**16, dtype=np.uint16).view(np.float16)


@cpu_kernel
def codes(values, out):
    for i in range(values.shape[0]):
        out[i] = half_code_core(values[i])


def test_every_code_and_what_lies_between_rounds_as_numpy_does() -> None:
    finite = EVERY[np.isfinite(EVERY)].astype(np.float32)
    between = (finite + np.roll(finite, 1)) / 2
    values = np.concatenate(
        [finite, between, np.float32([np.inf, -np.inf, 65519.99, 65520, 1e30, -65520, 1e-30, np.nan])]
    )
    values = np.concatenate([values, np.nextafter(values, np.float32(0)), np.nextafter(values, np.float32(1e9))])
    out = np.empty(values.shape, np.uint16)
    codes(values, out)
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16)
    np.testing.assert_array_equal(out.view(np.float16), expected)
    assert (np.signbit(out.view(np.float16)) == np.signbit(expected))[~np.isnan(expected)].all()


def test_every_code_has_its_number() -> None:
    np.testing.assert_array_equal(half_values(), EVERY.astype(np.float32))
