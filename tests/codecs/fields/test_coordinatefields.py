"""Networks of coordinates: sines, waves of both kinds, and one that latents modulate."""

import math
from functools import cache

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

torch = pytest.importorskip("torch")

from tests.codecs.fields.pictures import picture
from tests.kernels import hash_oracle
from tilestream.codecs.fields.coordinatefield import CoordinateField
from tilestream.codecs.fields.coordinatefit import CoordinateFit, first_parts
from tilestream.codecs.fields.coordinatesettings import stored_bits
from tilestream.codecs.fields.fourierfield import FourierField
from tilestream.codecs.fields.modulatedfield import ModulatedField
from tilestream.codecs.fields.picture import Levels, Picture
from tilestream.codecs.fields.sampler import PixelSampler
from tilestream.codecs.fields.sirenfield import SirenField
from tilestream.codecs.quality import psnr
from tilestream.errors import ConfigError, DamagedError, SourceError
from tilestream.types import Box

SMALL = {"hidden": 16, "layers": 2, "batch": 512}
MAKERS = {
    "siren": lambda **more: SirenField(**{**SMALL, **more}),
    "integrated": lambda **more: FourierField(**{**SMALL, **more}),
    "positional": lambda **more: FourierField(encoding="positional", **{**SMALL, **more}),
    "modulated": lambda **more: ModulatedField(**{**SMALL, **more}),
}
every_kind = pytest.mark.parametrize("kind", MAKERS)
STEPS = 25


@cache
def fitted(kind: str, dtype: str = "uint8") -> CoordinateField:
    field = MAKERS[kind]()
    field.fit(picture(24, 33, dtype=dtype), steps=STEPS)
    return field


def by_oracle(field: CoordinateField, level: float):
    """Return `(c, y, x)` of 0 to 1 in float64, from the table of rules alone."""
    parts, shape = field.parts, field.picture.shape_at(level)
    weights, encoding = parts.network(level), parts.encoding
    rows = parts.layers.layout.tolist()
    matrices = [weights[at:bias].reshape(given, taken) for taken, given, at, bias, _ in rows]
    biases = [weights[bias : bias + given] for _, given, _, bias, _ in rows]
    y, x = np.repeat(np.arange(shape.y), shape.x), np.tile(np.arange(shape.x), shape.y)
    shared = np.repeat(encoding.shared(level)[None], len(x), axis=0)
    inputs = np.concatenate([encoding.axis(x, level).T, encoding.axis(y, level).T, shared], axis=1)
    activation = np.sin if parts.layers.activation == "sine" else lambda z: np.maximum(z, 0)
    return hash_oracle.network(inputs, matrices, biases, activation).T.reshape(-1, *shape.yx)


@every_kind
@pytest.mark.parametrize("level", [0.0, 1.0, 0.5, 3.0])
def test_pixels_are_those_of_the_formula(kind: str, level: float) -> None:
    field = fitted(kind, "float32")
    exact = field.picture.from_unit(by_oracle(field, level).astype(np.float32))
    span = np.subtract(field.picture.high, field.picture.low).max()
    for backend in ("cpu", "torch"):
        assert_allclose(field.decode(level=level, backend=backend), exact, rtol=0, atol=2e-5 * span)


@pytest.mark.parametrize(("kind", "dtype"), [*[(kind, "uint8") for kind in MAKERS], ("siren", "int16")])
def test_any_box_of_any_level_is_part_of_it(kind: str, dtype: str) -> None:
    field = fitted(kind, dtype)
    whole = {level: field.decode(level=level, threads=1) for level in (0.0, 1.0, 1.3)}
    assert whole[1.3].shape == (3, *field.picture.shape_at(1.3).yx)
    for level, pixels in whole.items():
        assert pixels.dtype == dtype
        part = field.decode(Box(level=int(level), y=3, x=2, height=5, width=7), level=level, threads=2)
        assert_array_equal(part, pixels[:, 3:8, 2:9])
        plain = field.decode(level=level, backend="torch").astype(int)
        assert (np.abs(plain - pixels) <= (1 if dtype == "uint8" else 8)).all()


@every_kind
def test_a_fit_learns_all_levels(kind: str) -> None:
    pixels = picture(24, 33)
    field = MAKERS[kind]()
    report = field.fit(pixels, steps=5 * STEPS)
    levels = Levels.of(pixels)
    assert report.steps == 5 * STEPS
    assert len(report.psnr) == len(levels.pixels) == 3
    for level, (found, true) in enumerate(zip(report.psnr, levels.pixels, strict=True)):
        flat = np.broadcast_to(np.rint(true.mean(axis=(1, 2), keepdims=True)), true.shape).astype(np.uint8)
        assert found == psnr(true, field.decode(level=level))
        assert found > psnr(true, flat) + 2
    fresh = psnr(pixels, fitted(kind).decode())
    assert field.fit(pixels, steps=STEPS).psnr[0] > fresh + 0.5, "it goes on from where it stands"
    with pytest.raises(ConfigError, match="fitted before"):
        field.fit(pixels[:, 1:], steps=1)


@every_kind
def test_fits_of_one_seed_are_equal(kind: str) -> None:
    found = []
    for seed in (0, 0, 1):
        field = MAKERS[kind](seed=seed)
        field.fit(picture(9, 8), steps=3)
        found.append(field.quantize().to_bytes())
    assert found[0] == found[1] != found[2]


@every_kind
@pytest.mark.parametrize("bits", [None, 5, 8])
def test_bytes_hold_what_was_quantised(kind: str, bits: int | None) -> None:
    field = fitted(kind)
    small = field.quantize(bits)
    data = small.to_bytes()
    again = type(field).from_bytes(data)
    assert again.to_bytes() == data
    assert again.picture == field.picture
    for level in (0, 0.5, 2):
        assert_array_equal(again.decode(level=level), small.decode(level=level))
    parts = field.parts
    if bits != 5:
        bits_told = stored_bits(parts.encoding, (16, 16), 3, latent=parts.latent)
        assert 0.8 * bits_told < 8 * len(data) < 1.2 * bits_told
        assert psnr(small.decode(), field.decode()) > 30
    assert small.sizes == field.sizes
    assert sum(field.sizes.values()) == parts.run.size
    again.fit(picture(24, 33), steps=1)


@every_kind
def test_what_was_never_quantised_is_held_as_halves(kind: str) -> None:
    field = fitted(kind)
    again = type(field).from_bytes(field.to_bytes())
    assert_array_equal(again.parts.run, field.parts.run.astype(np.float16))
    assert len(field.to_bytes()) > 2 * field.parts.run.size > len(field.quantize().to_bytes())


@every_kind
def test_our_kernels_and_torch_have_one_loss(kind: str) -> None:
    levels = Levels.of(picture(24, 33))
    field = MAKERS[kind]()
    parts = first_parts(field.settings, field.encoding(levels.picture), 3)
    samples, found = PixelSampler(levels).draw(300), []
    for backend in ("cpu", "torch"):
        fit = CoordinateFit(parts, field.settings, backend=backend)
        loss = fit.loss_of(samples, 0.9)
        loss.backward()
        found.append([loss.item(), *[piece.grad.numpy() for piece in fit.pieces]])
    for ours, theirs in zip(*found, strict=True):
        assert_allclose(ours, theirs, rtol=0, atol=1e-4 * max(1e-6, np.abs(theirs).max(initial=0)))


def test_sines_begin_as_siren_does() -> None:
    field = SirenField(hidden=64, layers=3)
    levels = Levels.of(picture(64, 64))
    parts = first_parts(field.settings, field.encoding(levels.picture), 3)
    rows = parts.layers.layout.tolist()
    for number, (inputs, _, start, bias, _) in enumerate(rows):
        bound = 30 / inputs if number == 0 else math.sqrt(6 / inputs) / (30 if number == 3 else 1)
        assert 0.9 * bound < np.abs(parts.run[start:bias]).max() <= bound
    weights = torch.from_numpy(parts.run)
    x = torch.rand(2000, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for inputs, outputs, start, bias, _ in rows[:3]:  # sums of hidden layers stay normal with a deviation of 1
        z = x @ weights[start:bias].reshape(outputs, inputs).T + weights[bias : bias + outputs]
        x = z.sin()
        if start:
            assert 0.8 < float((z - weights[bias : bias + outputs]).std()) < 1.3


def test_latents_alone_tell_levels_apart() -> None:
    field = fitted("modulated")
    assert field.parts.encoding.inputs == 2
    one, two = field.parts.network(1), field.parts.network(2)
    changed = np.flatnonzero(one != two)
    assert set(changed) <= set(field.parts.shifted)
    assert changed.size
    assert_allclose(field.parts.network(1.25), 0.75 * one + 0.25 * two, atol=1e-5)
    assert_array_equal(field.parts.network(9), two)


@pytest.mark.parametrize("cls", [SirenField, FourierField, ModulatedField])
def test_quality_is_bits_a_pixel(cls: type[CoordinateField]) -> None:
    target = Picture.of(np.zeros((3, 256, 256), np.uint8), levels=4)
    told = []
    for quality in (1, 25, 50, 75, 100):
        field = cls.of_quality(quality, target)
        hidden = (field.settings.hidden,) * field.settings.layers
        told.append(stored_bits(field.encoding(target), hidden, 3, latent=field.settings.latent) / 256**2)
        assert field.settings.hidden <= 128
    assert_allclose(told, [2 ** (q / 25 - 3) for q in (1, 25, 50, 75, 100)], rtol=0.15)
    tiny = cls.of_quality(1, Picture.of(np.zeros((1, 1, 1), np.uint8)))
    assert tiny.fit(np.full((1, 1, 1), 7, np.uint8), steps=1).steps == 1
    for wrong in (0, 101, math.nan):
        with pytest.raises(ConfigError, match="`quality`"):
            cls.of_quality(wrong, target)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SirenField(hidden=0), "`hidden` of a field: got 0"),
        (lambda: SirenField(layers=17), "`layers`.*1 to 16"),
        (lambda: SirenField(omega=-1.0), "`omega`"),
        (lambda: SirenField(rate=math.nan), "`rate`"),
        (lambda: FourierField(encoding="gaussian"), "`encoding`.*gaussian.*integrated or positional"),
        (lambda: FourierField(octaves=0), "`octaves`"),
        (lambda: ModulatedField(latent=0), "`latent`.*SirenField"),
        (lambda: SirenField(bits=1), "`bits`"),
        (lambda: SirenField().decode(), "never fitted"),
        (lambda: SirenField().quantize(), "never fitted"),
        (lambda: SirenField().to_bytes(), "never fitted"),
        (lambda: fitted("siren").decode(backend="gpu"), "`backend` of `decode`.*gpu"),
        (lambda: fitted("siren").quantize(40), "`bits`.*40"),
        (lambda: SirenField().fit(np.zeros((3, 4, 4), np.uint8)), "`steps`"),
    ],
)
def test_what_cannot_be_is_refused(make, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_bytes_of_another_field_are_refused() -> None:
    data = fitted("siren").quantize().to_bytes()
    with pytest.raises(SourceError, match="kind `siren`"):
        FourierField.from_bytes(data)
    with pytest.raises(DamagedError):
        SirenField.from_bytes(data[:-9])
