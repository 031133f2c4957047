"""Maps without weights: what they say of an image is what our kernels say of it in one piece."""

import numpy as np
import pytest

import tilestream as ts
from tests.stream.test_dense import whole
from tilestream import kernels
from tilestream.errors import StageError
from tilestream.kernels.orientation_coherence import orientation_coherence
from tilestream.models.filters import gradient, local_entropy, stain, structure
from tilestream.plan.dense import DenseGrid
from tilestream.stream.dense import DenseStage
from tilestream.stream.mapform import map_form
from tilestream.stream.work import make_stage
from tilestream.types import StageSpec

IMAGE = np.random.default_rng(5).integers(0, 256, (3, 413, 340), np.uint8)


def mapped(stage, image=IMAGE):
    pyramid, contract = ts.open_pyramid(image), stage.contract
    core = contract.px - 2 * contract.halo_px
    plan = ts.plan_tiles(pyramid, tile_px=core // 2, halo_px=contract.halo_px, where="all")
    grid = DenseGrid(plan=plan, stride=contract.stride, trim_px=contract.halo_px)
    names = stage.output_names(pyramid.info)
    form = map_form(contract, names, np.zeros((1, len(names), 2, 2), "f4"))
    return whole(pyramid, DenseStage(stage=stage, grid=grid, form=form)).base.pixels.transpose(2, 0, 1)


def test_gradient():
    np.testing.assert_array_equal(mapped(gradient())[0], kernels.gradient_magnitude(IMAGE))


def test_structure():
    tensor = kernels.structure_tensor(IMAGE, 1.5)
    found = orientation_coherence(tensor)
    coherence, cos, sin, energy = mapped(structure(1.5))
    np.testing.assert_array_equal(coherence, found.coherence)
    np.testing.assert_allclose(np.arctan2(sin, cos) % (2 * np.pi), 2 * found.theta % (2 * np.pi), atol=1e-4)
    np.testing.assert_array_equal(energy, tensor[0] + tensor[2])


def test_stain():
    np.testing.assert_array_equal(mapped(stain()), kernels.stain_separation(IMAGE))


def test_local_entropy():
    inside = IMAGE[:, :400, :320]
    np.testing.assert_array_equal(mapped(local_entropy(), inside), kernels.tile_entropy(inside, tile_px=16))
    edge = mapped(local_entropy())
    assert edge.shape == (3, 26, 22)
    np.testing.assert_array_equal(edge[:, :25, :21], kernels.tile_entropy(IMAGE[:, :400, :336], tile_px=16))


@pytest.mark.parametrize("name", ["gradient", "structure", "stain", "local_entropy"])
def test_workers_make_the_same_stage(name):
    stage = make_stage(StageSpec(target=name))
    info = ts.open_pyramid(IMAGE).info
    spec = stage.spec
    assert make_stage(spec).contract == stage.contract
    assert len(stage.output_names(info)) == (stage.contract.dim or 3)


def test_stains_are_those_of_transmitted_light():
    with pytest.raises(StageError, match="red, green and blue of brightfield"):
        stain().for_image(ts.open_pyramid(IMAGE).info)
