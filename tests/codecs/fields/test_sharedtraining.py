import numpy as np
import pytest

from tests.codecs.fields.pictures import picture
from tilestream.codecs.fields.shareddecoder import SharedShape
from tilestream.codecs.fields.sharedfield import SharedField
from tilestream.codecs.quality import psnr
from tilestream.errors import ConfigError

pytest.importorskip("torch")
SMALL = SharedShape(latents=4, hidden=16, width=8, features=8, head=8)
PICTURES = [picture(64, 72, seed=seed) for seed in range(4)]
HELD_OUT = picture(40, 48, seed=9)


def training(**options):
    from tilestream.codecs.fields.sharedtraining import SharedTraining

    usual = {
        "steps": 160,
        "lmbda": 1e-3,
        "crop_px": 32,
        "batch": 4,
        "picture_px": 64,
        "bytes_a_picture": 150,
        "lr": 1e-2,
    }
    return SharedTraining(shape=options.pop("shape", SMALL), **(usual | options))


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def decoder(told):
    from tilestream.codecs.fields.sharedtraining import train_shared

    return train_shared(PICTURES, training(), hear=told.append, every=40)


def test_a_training_gets_better_and_leads_to_the_bytes_that_were_asked_for(decoder, told):
    assert [step.step for step in told] == [40, 80, 120, 160]
    assert told[-1].psnr > told[0].psnr + 0.7
    found = []
    for pixels in PICTURES:
        field = SharedField(decoder)
        field.fit(pixels[:, :64, :64], steps=60)
        found.append(len(field.to_bytes()))
    assert np.mean(found) == pytest.approx(training().bytes_a_picture, rel=0.1)


def test_a_picture_that_it_never_saw_is_better_than_its_mean(decoder):
    field = SharedField(decoder, price=0.2)
    report = field.fit(HELD_OUT, steps=40)
    mean = np.broadcast_to(np.rint(HELD_OUT.mean(axis=(1, 2), keepdims=True)).astype(np.uint8), HELD_OUT.shape)
    assert report.psnr[0] > psnr(HELD_OUT, np.ascontiguousarray(mean)) + 0.4
    assert report.psnr[0] == pytest.approx(psnr(HELD_OUT, field.decode()))


def test_a_higher_price_takes_fewer_bytes(decoder):
    free, dear = SharedField(decoder, price=0.2), SharedField(decoder, price=1000)
    for field in (free, dear):
        field.fit(HELD_OUT, steps=30)
    assert len(dear.to_bytes()) < len(free.to_bytes())


@pytest.mark.parametrize("share", [0.98, 0.85])
def test_most_bytes_are_kept_to_and_hardly_fewer_are_taken(decoder, share):
    free = SharedField(decoder, price=0.2)
    free.fit(PICTURES[0], steps=20)
    most = int(share * len(free.to_bytes()))
    tight = SharedField(decoder, price=0.2, most_bytes=most)
    report = tight.fit(PICTURES[0], steps=20)
    assert 0.9 * most <= len(tight.to_bytes()) <= most
    assert report.steps > 20
    assert report.psnr[0] == pytest.approx(psnr(PICTURES[0], tight.decode()))


def test_the_same_training_gives_the_same_decoder(monkeypatch):
    from tilestream.codecs.fields.sharedtraining import train_shared

    monkeypatch.setattr("tilestream.codecs.fields.sharedtraining.SETTLING_STEPS", 1)
    first, again, other = (train_shared(PICTURES, training(steps=3, seed=seed)) for seed in (1, 1, 2))
    assert first.digest == again.digest
    assert first.digest != other.digest


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda: training(crop_px=30), "crop_px"),
        (lambda: training(bytes_a_picture=40), "bytes_a_picture"),
        (lambda: training(lr=-1.0), "lr"),
    ],
)
def test_settings_that_cannot_be_are_refused(act, says):
    with pytest.raises(ConfigError, match=says):
        act()


@pytest.mark.parametrize(
    ("pictures", "says"),
    [
        ([], "0 of at least 32 px"),
        ([picture(31, 90)], "0 of at least 32 px"),
        ([picture(40, 40), picture(40, 40, dtype="uint16")], "several types"),
        ([picture(40, 40, channels=2)], "2 channels"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(pictures, says):
    from tilestream.codecs.fields.sharedtraining import train_shared

    with pytest.raises(ConfigError, match=says):
        train_shared(pictures, training(steps=1))
