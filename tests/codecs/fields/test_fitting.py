"""The loop of all fits, on parameters whose best values are known."""

import time

import numpy as np
import pytest
from numpy.testing import assert_allclose

torch = pytest.importorskip("torch")

from tests.codecs.fields.pictures import picture
from tilestream.codecs.fields.field import Stop
from tilestream.codecs.fields.fitting import LAST_SHARE, Learned, fit_loop, rate_share
from tilestream.codecs.fields.picture import Levels
from tilestream.codecs.fields.sampler import PixelSampler
from tilestream.errors import ConfigError


class Mean:
    """One colour for all pixels: its best value is their mean."""

    def __init__(self, rate=0.05, levels=2, seed=0):
        self.levels = Levels.of(picture(24, 20), levels=levels)
        self.colour = torch.zeros(3, requires_grad=True)
        self.learned = [Learned(tensors=(self.colour,), rate=rate)]
        self.sampler = PixelSampler(self.levels, seed=seed)
        self.shares = []

    def loss_of(self, samples, share):
        self.shares.append(share)
        return ((self.colour - torch.from_numpy(samples.values)) ** 2).mean()

    def measure(self, level):
        target = self.levels.picture.to_unit(self.levels.pixels[level]).reshape(3, -1).T
        return float(-10 * np.log10(((target - self.colour.detach().numpy()) ** 2).mean()))

    def fit(self, **stop):
        return fit_loop(
            self.learned, self.sampler, self.loss_of, stop=Stop(**stop), measure=self.measure, batch_px=256
        )  # fmt: skip


def test_it_finds_what_is_best() -> None:
    mean = Mean()
    report = mean.fit(steps=120)
    target = mean.levels.picture.to_unit(mean.levels.pixels[0]).mean(axis=(1, 2))
    assert_allclose(mean.colour.detach(), target, atol=0.01)
    assert report.steps == 120
    assert len(report.psnr) == 2
    assert report.psnr == (mean.measure(0), mean.measure(1))
    assert mean.shares[0] == 0
    assert mean.shares[-1] == 119 / 120


def test_one_seed_gives_one_result() -> None:
    found = []
    for seed in (4, 4, 5):
        mean = Mean(seed=seed)
        mean.fit(steps=30)
        found.append(mean.colour.detach().clone())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_it_goes_on_from_where_it_stands() -> None:
    mean = Mean(rate=0.01)
    first, second = mean.fit(steps=20), mean.fit(steps=200)
    assert second.psnr[0] > first.psnr[0]


def test_it_ends_at_whichever_comes_first() -> None:
    best = Mean()
    reached = best.fit(steps=200).psnr[0]
    soon = Mean()
    report = soon.fit(steps=5000, target_psnr=reached - 3)
    assert report.steps < 2000
    assert report.psnr[0] >= reached - 3
    start = time.perf_counter()
    assert Mean().fit(seconds=0.2, steps=10**7).steps < 10**7
    assert time.perf_counter() - start < 30


def test_what_grew_at_the_end_goes_back() -> None:
    mean = Mean()
    honest = mean.loss_of

    def spoilt(samples, share):
        if share >= 0.8:
            with torch.no_grad():
                mean.colour += 0.5
        return honest(samples, share)

    mean.loss_of = spoilt
    assert mean.fit(steps=200).psnr[0] > Mean().fit(steps=200).psnr[0] - 0.5


def test_a_loss_that_is_no_number_is_told() -> None:
    mean = Mean()
    mean.loss_of = lambda samples, share: (mean.colour * float("nan")).sum()
    with pytest.raises(ConfigError, match="loss of nan"):
        mean.fit(steps=5)


def test_rates_fall_when_the_end_is_known() -> None:
    by_steps, by_time, open_end = Stop(steps=1000), Stop(seconds=10.0), Stop(target_psnr=30.0)
    assert rate_share(0, 99.0, by_steps) == rate_share(500, 0.0, by_steps) == 1
    assert_allclose(rate_share(1000, 0.0, by_steps), LAST_SHARE)
    assert_allclose(rate_share(3, 7.5, by_time), rate_share(750, 0.0, by_steps))
    assert [round(rate_share(n, 0, open_end), 3) for n in (0, 19_999, 20_000, 30_000)] == [1, 1, 0.33, 0.109]


@pytest.mark.parametrize("stop", [{}, {"steps": 0}, {"steps": 3, "seconds": -1.0}])
def test_a_fit_without_an_end_is_refused(stop) -> None:
    with pytest.raises(ConfigError, match="of a fit"):
        Stop(**stop)
