"""The hash field: its definition in float64, levels between levels, every type of sample, bytes and back."""

import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

torch = pytest.importorskip("torch")

from tests.codecs.fields.pictures import picture
from tests.kernels import hash_oracle
from tilestream.codecs.fields.hashfield import HashField
from tilestream.codecs.fields.hashparts import STEP, HashParts, footprint_weights
from tilestream.codecs.fields.hashtorch import reference_encode, reference_mlp
from tilestream.codecs.fields.picture import Levels, Picture
from tilestream.codecs.quality import psnr
from tilestream.errors import ConfigError, DamagedError
from tilestream.kernels.hashgrid import HashGrid
from tilestream.kernels.mlp_layers import MlpLayers
from tilestream.types import Box, Shape


def small(**settings):
    """Return a field that is fitted in a moment."""
    return HashField(**{"levels": 4, "log2_table": 10, "n_min": 5, "hidden": 16, "batch": 1024} | settings)


@pytest.fixture(scope="module")
def fitted():
    """A field of a picture of three levels, and the picture's levels."""
    levels = Levels.of(picture(48, 37), levels=3)
    field = small(n_max=24)
    field.fit(levels, steps=60)
    return field, levels


def oracle(field, level, box):
    """Return a box of a level as `(c, y, x)` in float64, from the published rules and the rule of means alone."""
    low = int(level)
    values = [whole_level(field, number, level, box) for number in (low, low + 1)]
    return values[0] * (1 - level % 1) + values[1] * (level % 1)


def whole_level(field, number, level, box):
    """Return what level `number` is at the pixels of a box of `level`."""
    parts, extent = field.parts, field.picture.extent_px
    y, x = np.mgrid[box.y : box.y_stop, box.x : box.x_stop]
    coords = np.stack([x.ravel() + 0.5, y.ravel() + 0.5], axis=1) * 2.0**level
    last = field.picture.shape_at(number)
    coords = (
        np.minimum(coords, (np.array(last.xy) - 0.5) * 2.0**number) / extent if number != level else coords / extent
    )
    features = hash_oracle.encode(parts.grid, coords, parts.table).reshape(len(coords), parts.grid.levels, -1)
    hidden, grid_levels = parts.layers.widths[1], parts.grid.levels
    row = np.zeros(grid_levels + hidden)
    if number:
        rows = parts.network[parts.layers.parameters :].reshape(-1, grid_levels + hidden)
        row = rows[min(number, len(rows)) - 1].astype(np.float64)
    means = level_means(field, number)
    for own, (scale, *_) in enumerate(hash_oracle.levels(parts.grid)):
        if number and scale > 1.5 * extent / 2**number and (len(means) + 2) ** 2 <= 2**parts.grid.log2_table:
            features[:, own] = between(means[:, :, own], coords * extent / 2**number - 0.5)
        else:
            spread = 2.0**number / extent / math.sqrt(12)
            weight = math.erf(1 / math.sqrt(8 * (spread * float(scale)) ** 2)) ** 2
            features[:, own] *= weight if weight >= 2.0**-9 else 0
        features[:, own] *= 1 + row[own]
    matrices, biases = [], []
    for inputs, outputs, start, bias, *_ in parts.layers.layout:
        matrices.append(parts.network[start:bias].reshape(outputs, inputs).astype(np.float64))
        biases.append(parts.network[bias : bias + outputs].astype(np.float64))
    biases[0] = biases[0] + row[grid_levels:]
    value = hash_oracle.network(features.reshape(len(coords), -1), matrices, biases)
    return value.T.reshape(-1, box.height, box.width)


def level_means(field, number):
    """Return `(y, x, levels, features)`: means of the features of the pixels of level 0 under those of a level."""
    parts, extent = field.parts, field.picture.extent_px
    y, x = np.mgrid[:extent, :extent]
    coords = np.stack([x.ravel() + 0.5, y.ravel() + 0.5], axis=1) / extent
    found = hash_oracle.encode(parts.grid, coords, parts.table).reshape(extent, extent, parts.grid.levels, -1)
    for _ in range(number):
        found = np.pad(found, [(0, len(found) % 2)] * 2 + [(0, 0)] * 2, mode="edge")
        found = found.reshape(len(found) // 2, 2, len(found) // 2, 2, *found.shape[2:]).mean(axis=(1, 3))
    return found


def between(means, at_xy):
    """Return `(n, features)`, linear between means and constant beyond the outer ones."""
    cells = np.floor(at_xy).astype(int)
    found = 0
    for dy in (0, 1):
        for dx in (0, 1):
            share = np.abs(1 - dx - (at_xy[:, 0] - cells[:, 0])) * np.abs(1 - dy - (at_xy[:, 1] - cells[:, 1]))
            x, y = (np.clip(cells[:, axis] + d, 0, len(means) - 1) for axis, d in ((0, dx), (1, dy)))
            found = found + share[:, None] * means[y, x]
    return found


@pytest.mark.parametrize("level", [0, 0.5, 1, 1.75, 2, 3.5])
@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_it_is_the_published_definition(level, backend) -> None:
    field = small(n_max=40)
    field.fit(Levels.of(picture(48, 37, dtype="float32"), levels=3), steps=3)
    noise = np.random.default_rng(1)
    network = field.parts.network + noise.normal(0, 0.1, field.parts.network.shape).astype(np.float32)
    table = noise.normal(0, 0.1, field.parts.table.shape).astype(np.float32)
    field.parts = replace(field.parts, table=table, network=network)
    field.picture = replace(field.picture, low=(0.0,) * 3, high=(1.0,) * 3)
    shape = field.picture.shape_at(level)
    box = Box(y=1, x=2, height=shape.y - 2, width=shape.x - 2)
    found = field.decode(box, level=level, backend=backend)
    assert_allclose(found, np.clip(oracle(field, level, box), 0, 1), atol=1e-5)


def test_a_fit_finds_the_picture_and_its_levels(fitted) -> None:
    field, levels = fitted
    for level, pixels in enumerate(levels.pixels):
        assert psnr(field.decode(level=level), pixels) > 27
    assert field.sizes == {"table": field.parts.table.size, "network": field.parts.network.size}


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_the_last_column_of_a_level_between_goes_on_as_the_picture_does(backend) -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 40), (1, 40, 40)).astype(np.uint8)
    field = HashField.of_quality(70, Picture.of(ramp))
    field.fit(Levels.of(ramp, levels=3), steps=150)
    for level in (1.5, 1.7):
        last = field.decode(level=level, backend=backend)[0, :, -2:].astype(int)
        assert (last[:, 1] > last[:, 0]).all()


def test_levels_between_lie_between(fitted) -> None:
    field, _ = fitted
    means = [field.decode(level=level).mean() for level in (1, 1.25, 1.5, 1.75, 2)]
    assert max(means) - min(means) < 3
    half = field.decode(level=1.5)
    assert half.shape == (3, 17, 14)
    y, x = ((np.arange(size) + 0.5) * 2**1.5 for size in half.shape[1:])
    around = []
    for level in (1, 2):
        whole = field.decode(level=level).astype(float)
        rows, columns = (
            np.minimum(at / 2**level, size - 1).astype(int) for at, size in zip((y, x), whole.shape[1:], strict=True)
        )
        around.append(whole[:, rows[:, None], columns])
    assert np.abs(half - np.mean(around, axis=0)).mean() < 8


def test_a_box_is_a_part_of_the_whole(fitted) -> None:
    field, _ = fitted
    for level in (0, 0.7, 2):
        whole = field.decode(level=level)
        box = Box(y=3, x=1, height=5, width=7)
        assert_array_equal(field.decode(box, level=level), whole[:, 3:8, 1:8])
        out = np.zeros((3, 5, 7), np.uint8)
        assert field.decode(box, level=level, out=out, threads=1) is out
        assert_array_equal(out, whole[:, 3:8, 1:8])
    assert field.decode(Box(y=0, x=0, height=0, width=4)).shape == (3, 0, 4)


def test_levels_that_no_table_of_means_can_hold_are_read_less(fitted) -> None:
    field, _ = fitted
    small_table = replace(field.parts, grid=HashGrid(levels=5, log2_table=3, n_min=4, growth=2.0), extent_px=4096)
    grid = small_table.grid
    small_table = replace(
        small_table,
        table=np.ones((grid.entries, 2), np.float32),
        layers=MlpLayers(widths=(10, 16, 16, 3), biases=True),
        network=np.ones(2 * 21 + MlpLayers(widths=(10, 16, 16, 3), biases=True).parameters, np.float32),
    )
    kept = [small_table.at_level(level).kept for level in range(15)]
    assert kept[0] == 5
    assert kept == sorted(kept, reverse=True)
    assert kept[-1] < 5
    weights = footprint_weights(grid, level=0, extent_px=4096)
    assert weights[0] > 0.999
    assert (np.diff(weights) <= 0).all()


def test_coarse_levels_of_what_claims_to_be_huge_take_no_memory() -> None:
    field = small(log2_table=12, n_max=4000)
    field.fit(picture(16, 16), steps=1)
    field.picture = replace(field.picture, shape=Shape(y=1 << 23, x=1 << 23))
    field.parts = replace(field.parts, extent_px=1 << 23)
    again = HashField.from_bytes(field.quantize().to_bytes())
    tracemalloc.start()
    assert again.decode(level=20).shape == (3, 8, 8)
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


@pytest.mark.parametrize("bits", [8, 4, None])
def test_bytes_come_back_as_the_same_pixels(fitted, bits) -> None:
    field, _ = fitted
    stored = field if bits is None else field.quantize(bits)
    data = stored.to_bytes()
    again = HashField.from_bytes(data)
    assert again.picture == stored.picture
    assert again.to_bytes() == data
    for level in range(3):
        if bits is not None:
            assert_array_equal(again.decode(level=level), stored.decode(level=level))
        found = again.decode(level=level)
        apart = np.abs(again.decode(level=level, backend="torch").astype(int) - found)
        assert (apart <= 1).mean() >= 0.999
    if bits != 4:
        assert psnr(again.decode(), field.decode()) > 40
    assert again.quantize(bits).to_bytes() == (data if bits else again.quantize(8).to_bytes())


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("channels", [1, 4])
def test_every_type_of_sample(dtype, channels) -> None:
    levels = Levels.of(picture(24, 31, channels=channels, dtype=dtype), levels=2)
    field = small(n_max=20)
    report = field.fit(levels, steps=40)
    assert report.psnr[0] > 20
    found = HashField.from_bytes(field.quantize().to_bytes()).decode()
    assert found.dtype == levels.pixels[0].dtype
    unit = levels.picture.to_unit
    assert psnr(unit(found), unit(levels.pixels[0]), high=1.0) > 20


def test_what_is_not_valid_is_no_part_of_it() -> None:
    pixels = picture(32, 32, dtype="float32")
    pixels[:, :12, :20] = np.nan
    field = small(n_max=24)
    report = field.fit(pixels, steps=60)
    assert report.psnr[0] > 22
    assert np.isfinite(field.decode()).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (5, 3), (17, 2)])
def test_tiny_pictures(shape) -> None:
    pixels = picture(*shape)
    field = HashField.of_quality(60, Levels.of(pixels, levels=3).picture)
    field.fit(Levels.of(pixels, levels=3), steps=40)
    again = HashField.from_bytes(field.quantize().to_bytes())
    assert again.decode().shape == pixels.shape
    assert again.decode(level=2).shape[1:] == field.picture.shape_at(2).yx


def test_a_constant_picture_is_constant() -> None:
    pixels = np.full((3, 20, 20), 77, np.uint8)
    field = HashField.of_quality(30, Picture.of(pixels))
    report = field.fit(pixels, steps=80)
    assert report.psnr[0] > 40
    assert len(field.quantize().to_bytes()) < 500


def test_bits_in_the_loss_are_bits_less() -> None:
    pixels = picture(64, 64)
    sizes, scores = [], []
    for lmbda in (0.0, 1e-4, 3e-3):
        field = small(features=1, log2_table=13, n_max=65, lmbda=lmbda, bits=8)
        scores.append(field.fit(pixels, steps=80).psnr[0])
        sizes.append(len(field.quantize().to_bytes()))
    assert sizes[0] > 1.2 * sizes[1] > 1.25 * sizes[2]
    assert scores[1] > scores[2]


def test_steps_of_a_rated_table_are_those_of_the_fit() -> None:
    field = small(lmbda=1e-3)
    field.fit(picture(32, 32), steps=20)
    table, network = field.quantize().parts.coded
    assert_array_equal(table.scales, np.float32(STEP))
    assert table.bits == network.bits == 8
    assert_array_equal(table.values() / STEP, table.codes)


def test_a_fit_that_knows_of_two_bits_loses_less_of_them() -> None:
    pixels, found = picture(32, 32), []
    for bits in (2, None):
        field = small(n_max=40, bits=bits)
        field.fit(pixels, steps=80)
        found.append(psnr(field.quantize(2).decode(), pixels))
    assert found[0] > found[1] + 0.5


def test_backends_of_a_fit_do_the_same() -> None:
    pixels, decoded = picture(32, 32), []
    for backend in ("cpu", "torch"):
        field = small(n_max=30)
        field.fit(pixels, steps=5, backend=backend)
        decoded.append(field.decode().astype(int))
    assert np.abs(decoded[0] - decoded[1]).max() <= 1


def test_a_fit_is_the_same_again_and_goes_on() -> None:
    pixels = picture(32, 32)
    fields = [small(n_max=30, lmbda=1e-4) for _ in range(2)]
    reports = [field.fit(pixels, steps=25) for field in fields]
    assert fields[0].quantize().to_bytes() == fields[1].quantize().to_bytes()
    assert fields[0].fit(pixels, steps=60).psnr[0] > reports[0].psnr[0]
    with pytest.raises(ConfigError, match="Make a new field"):
        fields[0].fit(picture(33, 32), steps=1)


def test_gradients_of_the_reference_are_those_of_differences() -> None:
    grid, layers = HashGrid(levels=3, log2_table=4, n_min=3, growth=1.7), MlpLayers(widths=(6, 5, 2), biases=True)
    noise = torch.Generator().manual_seed(5)
    coords = torch.rand(6, 2, dtype=torch.float64, generator=noise).requires_grad_()
    table = torch.randn(grid.entries, 2, dtype=torch.float64, generator=noise).requires_grad_()
    weights = torch.randn(layers.parameters, dtype=torch.float64, generator=noise).requires_grad_()

    def field(coords, table, weights):
        return reference_mlp(reference_encode(coords, table, grid=grid), weights, layers=layers)

    assert torch.autograd.gradcheck(field, (coords, table, weights))
    expected = hash_oracle.encode(grid, coords.detach().numpy(), table.detach().numpy())
    assert_allclose(reference_encode(coords, table, grid=grid).detach(), expected, atol=1e-12)


def test_quality_is_an_order() -> None:
    shape = Picture.of(picture(300, 200))
    rates = [HashField.of_quality(quality, shape).settings.lmbda for quality in (1, 50, 100)]
    assert rates == sorted(rates, reverse=True)
    settings = HashField.of_quality(50, shape).settings
    grid = settings.grid(settings.n_max)
    assert all(grid.dense)
    assert grid.resolutions[-1] == 301


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: HashField(levels=0), "`levels`"),
        (lambda: HashField(hidden=400), "`hidden`"),
        (lambda: HashField(lmbda=-1), "`lmbda`"),
        (lambda: HashField(bits=1), "`bits`"),
        (lambda: HashField(n_max=3), "`n_max`"),
        (lambda: HashField(batch=0), "`batch`"),
        (lambda: HashField.of_quality(0, Picture.of(picture(8, 8))), "`quality`"),
        (lambda: HashField().decode(), "never fitted"),
        (lambda: HashField().quantize(), "never fitted"),
        (lambda: HashField().to_bytes(), "never fitted"),
        (lambda: HashField().fit(picture(8, 8)), "of a fit"),
        (lambda: HashField().fit(picture(8, 8), steps=1, backend="gpu"), "`backend`"),
    ],
)
def test_what_cannot_be_is_refused(call, message) -> None:
    with pytest.raises(ConfigError, match=message):
        call()


def test_bytes_that_are_not_whole_are_told(fitted) -> None:
    data = fitted[0].quantize().to_bytes()
    for wrong in (data[:-1], data[:40], b"", data[:60] + b"\0" + data[61:], data + b"\0"):
        with pytest.raises(DamagedError):
            HashField.from_bytes(wrong)


def test_parts_know_where_their_groups_begin() -> None:
    grid, layers = HashGrid(levels=2, features=3, log2_table=4, n_min=3), MlpLayers(widths=(6, 4, 2), biases=True)
    table = np.zeros((grid.entries, 3), np.float32)
    parts = HashParts(
        grid=grid, layers=layers, extent_px=8, levels=2, table=table, network=np.zeros(layers.parameters + 6, "f4")
    )
    first, second = grid.sizes
    assert parts.table_starts == (0, first, 2 * first, 3 * first, 3 * first + second, 3 * first + 2 * second)
    assert parts.network_starts == (0, 24, 28, 36, 38, 40)
