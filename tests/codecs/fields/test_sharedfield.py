import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.codecs.fields.madedecoder import SHAPE, made_codes, made_decoder
from tests.codecs.fields.pictures import picture
from tests.codecs.hostile import assert_harmless, cut_or_flipped, repacked, with_another_header, with_other_sections
from tilestream.codecs.container import pack, unpack
from tilestream.codecs.fields.decoders import find_decoder, keep_decoder, load_decoder, save_decoder
from tilestream.codecs.fields.picture import Levels, Picture
from tilestream.codecs.fields.shareddecoder import SharedDecoder, SharedShape
from tilestream.codecs.fields.sharedfield import SharedField
from tilestream.errors import ConfigError, DamagedError, SourceError
from tilestream.types import Box

torch = pytest.importorskip("torch")
DECODER = made_decoder()


def fitted(pixels, *, steps=6, decoder=DECODER, **options):
    field = SharedField(decoder, **options)
    return field, field.fit(pixels, steps=steps)


def test_a_field_comes_back_from_its_bytes_and_decodes_the_same():
    pixels = picture(37, 50)
    field, report = fitted(pixels)
    assert report.steps == 6
    assert len(report.psnr) == Levels.of(pixels).picture.levels
    again = SharedField.from_bytes(field.to_bytes(), decoder=SharedDecoder.from_bytes(DECODER.to_bytes()))
    assert again.to_bytes() == field.to_bytes() == field.quantize(8).to_bytes()
    for level in (0, 1, 2.5, 5):
        np.testing.assert_array_equal(again.decode(level=level), field.decode(level=level))


@pytest.mark.parametrize(("dtype", "shape"), [("uint8", (1, 1)), ("uint16", (9, 20)), ("float32", (33, 8))])
def test_small_pictures_and_wide_samples_are_fitted(dtype, shape):
    pixels = picture(*shape, dtype=dtype)
    field, report = fitted(pixels)
    found = SharedField.from_bytes(field.to_bytes(), decoder=DECODER).decode()
    assert (found.shape, found.dtype) == (pixels.shape, pixels.dtype)
    assert np.isfinite(report.psnr).all()


@given(st.data())
def test_a_box_of_any_level_is_cut_out_of_the_level_to_the_bit(data):
    field = SharedField(DECODER)
    field.picture = Picture.of(picture(40, 27))
    field._take(made_codes(np.random.default_rng(1), 3, 5, 4))
    level = data.draw(st.sampled_from([0, 0.4, 1, 2, 3.7]))
    whole = field.decode(level=level, threads=1)
    y, x = (data.draw(st.integers(0, size - 1)) for size in whole.shape[1:])
    height, width = (data.draw(st.integers(1, size - at)) for size, at in zip(whole.shape[1:], (y, x), strict=True))
    out = np.empty((3, height, width), np.uint8)
    found = field.decode(Box(level=int(level), y=y, x=x, height=height, width=width), level=level, out=out, threads=2)
    assert found is out
    np.testing.assert_array_equal(out, whole[:, y : y + height, x : x + width])


def test_fitting_sees_the_pixels_that_decoding_gives():
    from tilestream.codecs.fields.sharednet import SharedNetwork

    codes, network = made_codes(np.random.default_rng(2), 3, 4, 6), SharedNetwork.of(DECODER)
    about = Picture.of(picture(30, 45))
    features = network.features(torch.from_numpy(codes[None].astype(np.float32)))
    for level in (0, 1, 3):
        seen = network.pixels(features, about, level)[0].numpy().transpose(2, 0, 1)
        values = DECODER.values(DECODER.features(codes), about, about.box_at(level), level=level)
        np.testing.assert_allclose(seen, values, atol=2e-5)


def test_estimated_bits_are_about_those_of_the_coder():
    from tilestream.codecs.fields.sharednet import SharedNetwork

    codes = made_codes(np.random.default_rng(6), 3, 40, 40)
    prior = DECODER.prior.with_models([codes])
    estimated = float(SharedNetwork.of(DECODER).prior.bits(torch.from_numpy(codes[None].astype(np.float32))))
    assert 8 * len(prior.encode(codes)) == pytest.approx(estimated, rel=0.25)


def test_a_target_ends_a_fit():
    pixels = np.full((3, 16, 16), 100, np.uint8)
    pixels[:, :, 8:] = 120
    report = SharedField(DECODER).fit(pixels, target_psnr=5.0)
    assert report.steps == 20


def test_what_is_not_valid_does_not_count():
    pixels, valid = picture(24, 24), np.ones((24, 24), bool)
    valid[:, 12:] = False
    wild = pixels.copy()
    wild[:, :, 12:] = 255 - wild[:, :, 12:]
    first, second = (fitted(Levels.of(one, valid), steps=4) for one in (pixels, wild))
    assert first[0].to_bytes() == second[0].to_bytes()
    assert first[1].psnr == second[1].psnr


def test_a_decoder_is_found_by_its_name_and_another_is_refused(tmp_path):
    mine = made_decoder(seed=11)
    field, _ = fitted(picture(16, 16), steps=1, decoder=mine)
    with pytest.raises(SourceError, match=mine.name):
        SharedField.from_bytes(field.to_bytes())
    with pytest.raises(SourceError, match=mine.name):
        SharedField.from_bytes(field.to_bytes(), decoder=DECODER)
    place = save_decoder(mine, tmp_path / "new")
    assert place.name == f"{mine.name}.tsdecoder"
    assert load_decoder(place) is keep_decoder(mine) is find_decoder(mine.digest)
    np.testing.assert_array_equal(SharedField.from_bytes(field.to_bytes()).decode(), field.decode())
    with pytest.raises(ConfigError, match="no file"):
        load_decoder(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda: SharedField(DECODER, price=0), "price"),
        (lambda: SharedField(DECODER).decode(), "never fitted"),
        (lambda: SharedField(DECODER).fit(picture(8, 8, channels=1)), "channels"),
        (lambda: SharedField(DECODER).fit(np.zeros((3, 8, 8), bool)), "pixels"),
        (lambda: SharedField(DECODER).fit(picture(8, 8), steps=1, level_weights={9: 1.0}), "level_weights"),
        (lambda: fitted(picture(8, 8), most_bytes=20), "most_bytes"),
        (lambda: SharedField(DECODER).quantize(4), "bits"),
        (lambda: SharedField.of_quality(50, Picture.of(picture(8, 8))), "train codec"),
        (lambda: fitted(picture(8, 8))[0].decode(backend="cuda"), "backend"),
        (lambda: fitted(picture(8, 8))[0].decode(level=-1), "level"),
        (lambda: fitted(picture(8, 8))[0].decode(Box(level=0, y=4, x=0, height=5, width=1)), "box"),
        (lambda: SharedShape(stride_px=7), "stride_px"),
    ],
)
def test_what_cannot_be_is_refused(act, says):
    with pytest.raises(ConfigError, match=says):
        act()


def read_decoder(data):
    decoder = SharedDecoder.from_bytes(data)
    decoder.features(np.zeros((decoder.shape.latents, 1, 1), np.int64))


@settings(max_examples=5)
@given(st.data())
def test_a_hostile_decoder_does_no_harm(data):
    written = DECODER.to_bytes()
    packed = unpack(written)
    assert_harmless(read_decoder, data.draw(cut_or_flipped(written)), whole=False)
    assert_harmless(read_decoder, data.draw(with_another_header(packed) | with_other_sections(packed)), whole=True)


def test_a_picture_that_its_decoder_cannot_be_of_is_damage():
    field, _ = fitted(picture(16, 16), steps=1)
    packed = unpack(field.to_bytes())
    for header in ({**packed.header, "p": [16, 16, 1, 0, 1]}, {**packed.header, "d": b"1234"}):
        with pytest.raises(DamagedError):
            SharedField.from_bytes(repacked(packed, header=header), decoder=DECODER)
    with pytest.raises(SourceError):
        SharedDecoder.from_bytes(pack("hash", version=1))
    assert DECODER.shape == SHAPE
