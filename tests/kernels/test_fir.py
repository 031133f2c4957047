"""Weights of filters against their formulas, and light against its standards."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tilestream.errors import ConfigError
from tilestream.kernels.fir import BITS, FILTERS, Fir, fir_of, light_tables
from tilestream.kernels.stain import density_table


@pytest.mark.parametrize("name", FILTERS)
def test_weights_sum_to_a_power_of_two(name) -> None:
    fir = fir_of(name)
    assert fir.name == name
    assert (2 * sum(fir.weights)) ** 2 == 1 << fir.shift
    assert fir.radius <= 6


@pytest.mark.parametrize(("name", "window"), [
    ("lanczos", lambda d: np.sinc(d / 3)),
    ("kaiser", lambda d: np.i0(4 * np.sqrt(1 - (d / 3) ** 2)) / np.i0(4)),
])  # fmt: skip
def test_windowed_sincs_are_their_formula_to_fourteen_bits(name, window) -> None:
    d = (np.arange(6) + 0.5) / 2
    exact = np.sinc(d) * window(d)
    assert_allclose(np.array(fir_of(name).weights) / 2 ** (BITS - 1), exact / exact.sum(), atol=2 / 2**BITS)


def test_what_levels_depend_on_around_a_part() -> None:
    assert fir_of("box").halo_px(4) == 0
    assert fir_of("binomial").halo_px(1) == 1
    assert fir_of("lanczos").halo_px(4) == 75


@pytest.mark.parametrize("weights", [(), (3,), (1, 1, 1), (-1, 3), (4, -3, 1), (1,) * 8, (2**14,)])
def test_what_is_no_filter_is_refused(weights) -> None:
    with pytest.raises(ConfigError, match="`weights` of `Fir`"):
        Fir(name="mine", weights=weights)


def test_a_filter_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'sinc'.*box, binomial, kaiser, lanczos"):
        fir_of("sinc")


@pytest.mark.parametrize("light", ["linear", "density"])
def test_light_ascends_and_every_code_comes_back(light) -> None:
    table, edges = light_tables(light)
    assert (table[0], table[255]) == (0, 65535)
    assert (np.diff(table.astype(int)) > 0).all()
    assert_array_equal(np.searchsorted(edges, table, side="right"), np.arange(256))


def test_light_is_that_of_its_standard() -> None:
    table, _ = light_tables("linear")
    assert table[128] / 65535 == pytest.approx(0.21586, abs=1e-5)  # mid grey of sRGB, IEC 61966-2-1
    table, _ = light_tables("density")
    density = density_table("uint8")
    assert_allclose(density[0] - table / 65535 * density[0], density, atol=2e-5)
    assert density[0] == pytest.approx(math.log10(256))
