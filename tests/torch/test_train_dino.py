"""DINO on feature grids: it learns, does not collapse, and goes on to the same bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.torch.madegrids import make_grids, neighbours
from tilestream.errors import ConfigError, StageError
from tilestream.models.hipt import vit4k
from tilestream.models.weights import load_weights, random_weights
from tilestream.torch.crops import random_crops
from tilestream.torch.dino import dino_loss, evenness, followed, spread, targets
from tilestream.torch.train_dino import DinoSettings, DinoTraining, new_backbone

SMALL = DinoSettings(
    dim=24, depth=2, heads=2, large_cells=7, small_cells=3, smalls=4, prototypes=64, hidden=64, epochs=22, lr=2e-2,
    warmup_epochs=2, momentum=0.95,
)  # fmt: skip
TINY = replace(SMALL, dim=8, depth=1, smalls=2, prototypes=8, hidden=8, epochs=3, batch=4)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def training(path, settings, grids, recipe="r"):
    return DinoTraining(grids, settings=settings, checkpoint=path, recipe=recipe)


def test_it_learns_what_chance_does_not_know_and_does_not_collapse(tmp_path):
    known, asked = make_grids(128), make_grids(96, seed=1)
    backbone, epochs = training(tmp_path / "c.pth", SMALL, known).fit(hear=lambda _: None)
    assert epochs[-1].loss < 0.9 * epochs[0].loss
    assert min(epoch.spread for epoch in epochs) > 0.3
    assert epochs[-1].usage > 0.3  # not one answer for all
    assert epochs[-1].sharpness < epochs[-1].usage  # and an answer for each
    by_chance = []
    for seed in range(5):
        other = new_backbone(known.dim, SMALL).eval()
        random_weights(other, seed=seed)
        by_chance.append(neighbours(other, known, asked))
    found = neighbours(backbone, known, asked)
    assert found >= np.mean(by_chance) + 0.08
    assert found > max(by_chance)


def state(path):
    known = torch.load(path, weights_only=True)
    return {name: values.numpy().tobytes() for part in ("student", "teacher") for name, values in known[part].items()}


def test_the_seed_decides_every_bit(tmp_path):
    grids, outside = make_grids(12), torch.get_rng_state()
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        training(tmp_path / name, replace(TINY, seed=seed), grids).fit(hear=lambda _: None)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert state(tmp_path / "a") != state(tmp_path / "c")
    assert (torch.get_rng_state() == outside).all()


class Killed(BaseException):
    pass


class Cut:
    """Grids of which a process dies as it reads those of a step."""

    def __init__(self, grids, reads):
        self._grids, self._left = grids, reads
        self.dim, self.count = grids.dim, grids.count

    def read(self, numbers):
        if self._left == 0:
            raise Killed
        self._left -= 1
        return self._grids.read(numbers)


@pytest.mark.parametrize("stop", [1, 4, 5, 8])
def test_killed_in_any_step_it_ends_with_the_same_bits(tmp_path, stop):
    grids = make_grids(14)  # three steps of four, and two regions that wait for the next epoch
    _, epochs = training(tmp_path / "whole", TINY, grids).fit(hear=lambda _: None)
    cut = tmp_path / "cut"
    with pytest.raises(Killed):
        training(cut, TINY, Cut(grids, stop)).fit(hear=lambda _: None, gap_s=0.0)
    heard = []
    _, after = training(cut, TINY, grids).fit(hear=heard.append)
    assert cut.read_bytes() == (tmp_path / "whole").read_bytes()
    assert tuple(heard) == after == epochs
    assert [epoch.epoch for epoch in epochs] == [1, 2, 3]
    _, again = training(cut, TINY, Cut(grids, 0)).fit(hear=lambda _: None)  # done: nothing is read any more
    assert again == epochs


def test_another_training_is_not_gone_on_with(tmp_path):
    grids = make_grids(8)
    training(tmp_path / "c", TINY, grids).fit(hear=lambda _: None)
    with pytest.raises(ConfigError, match="got the checkpoint of another training"):
        training(tmp_path / "c", TINY, grids, recipe="other").fit(hear=lambda _: None)


def test_the_checkpoint_loads_strictly_as_the_second_stage_of_hipt(tmp_path):
    settings = DinoSettings(epochs=1, batch=2, smalls=1, prototypes=16, hidden=16)
    one = training(tmp_path / "c.pth", settings, make_grids(2, dim=384, cells=16))
    backbone, _ = one.fit(hear=lambda _: None)
    found = vit4k()
    load_weights(found, tmp_path / "c.pth", model="vit4k")
    assert one.parameters == 2_781_504
    made = make_grids(2, dim=384, cells=16, seed=3)
    with torch.inference_mode():
        assert torch.equal(found.eval()(made.grids, made.mask), backbone(made.grids, made.mask))
    known = torch.load(tmp_path / "c.pth", weights_only=True)
    assert {"student", "teacher", "optimizer", "epoch", "args", "dino_loss"} <= set(known)
    assert all(name.startswith("module.") for name in known["student"])
    assert {name.partition(".")[0] for name in known["teacher"]} == {"backbone", "head"}


def test_a_training_that_diverges_says_so(tmp_path):
    with pytest.raises(StageError, match=r"the loss in step \d+.*Take smaller steps than 1e\+30: `--lr`"):
        training(tmp_path / "c", replace(TINY, lr=1e30, warmup_epochs=0), make_grids(8)).fit(hear=lambda _: None)


def test_squares_are_cut_and_mirrored_out_of_what_is_there():
    cells = torch.arange(1, 65.0).reshape(1, 1, 8, 8).repeat(400, 1, 1, 1)
    mask = torch.ones(400, 8, 8, dtype=torch.bool)
    crops, own = random_crops(cells, mask, cells=6, generator=torch.Generator().manual_seed(0))
    assert own.all()
    first, flipped = crops[:, 0, 0].amin(1) - 1, crops[:, 0, 0, 0] > crops[:, 0, 0, 1]
    straight = torch.where(flipped[:, None, None], crops[:, 0].flip(2), crops[:, 0])
    assert (straight == first[:, None, None] + 1 + torch.arange(6) + 8 * torch.arange(6)[:, None]).all()
    assert 0.4 < flipped.float().mean() < 0.6
    places, counts = first.unique(return_counts=True)
    assert len(places) == 9  # all places
    assert counts.min() > 400 / 9 / 2


def test_squares_of_partly_covered_regions_are_never_empty():
    mask = torch.zeros(200, 16, 16, dtype=torch.bool)
    mask[:100, 2, 3] = True  # a single tile
    mask[100:, :, :8] = True
    _, own = random_crops(torch.zeros(200, 1, 16, 16), mask, cells=6, generator=torch.Generator().manual_seed(0))
    assert (own[:100].sum((1, 2)) == 1).all()
    assert (own[100:].sum((1, 2)) >= 18).all()


def test_the_loss_is_that_of_the_definition():
    rng = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(4 * 3, 5, generator=rng), torch.randn(2 * 3, 5, generator=rng)
    centre = torch.randn(5, generator=rng)
    said = targets(teacher, centre, temperature=0.5)
    total, pairs = 0.0, 0
    for one in range(2):
        for other in range(4):
            if one == other:
                continue
            pairs += 1
            for n in range(3):
                q = torch.softmax((teacher[one * 3 + n] - centre) / 0.5, 0)
                p = torch.softmax(student[other * 3 + n] / 0.2, 0)
                total += float(-(q * p.log()).sum()) / 3
    assert float(dino_loss(student, said, views=4, temperature=0.2)) == pytest.approx(total / pairs, rel=1e-5)
    torch.testing.assert_close(followed(centre, teacher), 0.9 * centre + 0.1 * teacher.mean(0))


def test_measures_of_a_collapse():
    apart, same = torch.randn(500, 64, generator=torch.Generator().manual_seed(0)), torch.ones(500, 64)
    assert spread(apart) == pytest.approx(1, abs=0.02)
    assert spread(same) == pytest.approx(0, abs=1e-6)
    assert evenness(torch.full((3, 8), 1 / 8)) == pytest.approx(1)
    assert evenness(torch.eye(8)) == pytest.approx(0, abs=1e-6)
