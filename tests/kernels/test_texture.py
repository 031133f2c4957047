"""The texture tier: its machine code on any machine; its answers in the simulator's emulation or on a device."""

import math
import struct
import subprocess
import sys
import textwrap
import time

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tests.kernels.answers import ON_CUDA, Answer
from tests.kernels.test_compile import CAPABILITIES
from tilestream.errors import ConfigError
from tilestream.kernels import texture, texture_memory
from tilestream.kernels.language import CudaKernel, cuda
from tilestream.kernels.texture import anisotropic_texture, sample_texture
from tilestream.kernels.texture_memory import Texture, make_texture
from tilestream.kernels.texture_source import CAN_LINK

on_cpu = pytest.mark.skipif(ON_CUDA, reason="compiles in the process of the CPU tests")
on_cuda = pytest.mark.skipif(not ON_CUDA, reason="the texture unit is that of a device, or emulated in the simulator")

INSTRUCTIONS = {
    texture._sample_texture_cuda: ("tex.level.2d.v4.f32.f32", 1),
    texture._sample_levels_cuda: ("tex.level.2d.v4.f32.f32", 2),
    texture._anisotropic_texture_cuda: ("tex.grad.2d.v4.f32.f32", 1),
    texture_memory._fill_cuda: ("sust.b.2d", 9),
}
SECONDS = 20
"""Of the processor, for all of them."""
spent: list[float] = []


def linked(kernel: CudaKernel, signature: str, capability: tuple[int, int]) -> tuple[bytes, str]:
    """Return machine code of a kernel and the CUDA C++ it calls, and the same as PTX after inlining; no driver."""
    from cuda.core import Linker, LinkerOptions, ObjectCode

    types = numba.core.sigutils.normalize_signature(signature)[0]
    codes, _ = cuda.compile_all(kernel.function, types, cc=capability, device=False, abi="numba", output="ltoir")
    objects = [code if isinstance(code, ObjectCode) else ObjectCode.from_ltoir(code) for code in codes]
    arch = f"sm_{capability[0]}{capability[1]}"

    def link(kind: str) -> bytes:
        options = LinkerOptions(arch=arch, link_time_optimization=True, ptx=kind == "ptx")
        return bytes(Linker(*objects, options=options).link(kind).code)

    return link("cubin"), link("ptx").decode()


@on_cpu
@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("kernel", INSTRUCTIONS, ids=lambda kernel: kernel.__name__)
def test_kernels_link_to_machine_code_with_the_texture_instruction(
    kernel: CudaKernel, capability: tuple[int, int]
) -> None:
    assert CAN_LINK, "install the extra `cuda` (make test does)"
    start = time.process_time()
    for signature in kernel.signatures:
        cubin, ptx = linked(kernel, signature, capability)
        instruction, times = INSTRUCTIONS[kernel]
        assert f".target sm_{capability[0]}{capability[1]}" in ptx
        assert ptx.count(instruction) == times
        assert "call" not in ptx.replace(".callgraph", ""), "the CUDA C++ is not inlined"
        assert ".f64" not in ptx
        machine = struct.unpack_from("<H", cubin, 18)[0]
        assert (cubin[:4], machine) == (b"\x7fELF", 190), "EM_CUDA"
        assert b".text." in cubin
        assert len(cubin) > 1000
    spent.append(time.process_time() - start)


@on_cpu
def test_all_of_it_in_time() -> None:
    assert spent, "run together with the tests above"
    assert sum(spent) < SECONDS


def bilinear(level, y, x):
    """Value and contrast of the four texels around (y, x) px of the level, in float64."""
    height, width = level.shape[1:]
    y, x = y - 0.5, x - 0.5
    ty, tx = y - math.floor(y), x - math.floor(x)
    rows = [min(max(math.floor(y) + k, 0), height - 1) for k in (0, 1)]
    columns = [min(max(math.floor(x) + k, 0), width - 1) for k in (0, 1)]
    near = level[:, rows][:, :, columns].astype(np.float64)
    value = np.einsum("crk,r,k->c", near, [1 - ty, ty], [1 - tx, tx])
    return value, near.max((1, 2)) - near.min((1, 2))


def oracle(levels, at, level):
    """Value `(c, n)` and the error that weights of 8 bits may make."""
    values, errors = [], []
    for (y, x), wanted in zip(at, level, strict=True):
        wanted = min(max(float(wanted), 0), len(levels) - 1)
        finer = math.floor(wanted)
        share = wanted - finer
        (a, contrast_a), (b, contrast_b) = (
            bilinear(one, float(y) * one.shape[1] / levels[0].shape[1], float(x) * one.shape[2] / levels[0].shape[2])
            for one in (levels[finer], levels[min(finer + 1, len(levels) - 1)])
        )
        values.append(a + share * (b - a))
        errors.append(np.maximum(contrast_a, contrast_b) / 128 + abs(b - a) / 256)
    return np.stack(values, 1), np.stack(errors, 1)


def pyramid(noise, sizes, channels, dtype, interleaved):
    levels = []
    for height, width in sizes:
        shape = (height, width, channels) if interleaved else (channels, height, width)
        if np.dtype(dtype).kind == "u":
            level = noise.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
        else:
            level = noise.normal(size=shape).astype(dtype)
        levels.append(np.moveaxis(level, 2, 0) if interleaved else level)
    return levels


@on_cuda
@given(data=st.data())
def test_samples_are_within_the_precision_of_the_weights(data: st.DataObject, on: Answer) -> None:
    up = data.draw(st.booleans())
    height, width, depth = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9)), data.draw(st.integers(1, 4))
    sizes = [(height, width)]
    while len(sizes) < depth and (max(sizes[-1]) > 1):
        sizes.append(tuple(max(1, (edge + up) // 2) for edge in sizes[-1]))
    dtype = data.draw(st.sampled_from(["uint8", "uint16", "float16", "float32"]))
    noise = np.random.default_rng(data.draw(st.integers(0, 999)))
    levels = pyramid(noise, sizes, data.draw(st.integers(1, 4)), dtype, data.draw(st.booleans()))
    at = (noise.random((3, 4, 2)) * [height + 4, width + 4] - 2).astype(np.float32)
    level = (noise.random((3, 4)) * (depth + 1) - 0.5).astype(np.float32)
    made = make_texture(on.put(levels))
    assert made.one_fetch == all(
        size == (max(1, height >> i), max(1, width >> i)) for i, size in enumerate(sizes)
    )  # fmt: skip
    found = on.get(sample_texture(made, on.put(at), on.put(level)))
    expected, error = oracle(levels, at.reshape(-1, 2), level.reshape(-1))
    span = max(float(np.ptp(one.astype(np.float64))) for one in levels)
    assert found.dtype == np.float32
    assert found.shape == (levels[0].shape[0], 3, 4)
    assert (np.abs(found.reshape(expected.shape) - expected) <= error + 1e-5 * max(span, 1)).all()
    made.close()
    made.close()


@on_cuda
def test_texels_come_back_as_they_were_stored(on: Answer) -> None:
    noise = np.random.default_rng(0)
    for dtype in ("uint8", "uint16", "float16", "float32"):
        levels = pyramid(noise, [(3, 5), (2, 3), (1, 2)], 3, dtype, interleaved=True)
        made = make_texture(on.put(levels))
        for number, level in enumerate(levels):
            y, x = np.indices(level.shape[1:])
            ratio = np.array(levels[0].shape[1:]) / level.shape[1:]
            at = ((np.stack([y, x], 2) + 0.5) * ratio).astype(np.float32)
            found = on.get(sample_texture(made, on.put(at), float(number)))
            assert_allclose(found, level.astype(np.float32), rtol=2e-7, atol=1e-3 if dtype == "uint16" else 1e-5)


@on_cuda
def test_levels_without_channels_and_results_in_any_strides(on: Answer) -> None:
    level = np.arange(12, dtype=np.float32).reshape(3, 4)
    made = make_texture(on.put([level[::-1, ::2]]))
    at = np.array([[0.5, 0.5], [2.5, 1.5], [-7, 9]], np.float32)
    assert_array_equal(on.get(sample_texture(made, on.put(at), 3.0)), [8, 2, 10])
    room = on.put(np.full((3, 2), 7, np.float32))
    assert sample_texture(made, on.put(at), 0.0, out=room[:, 1]) is not None
    assert_array_equal(on.get(room), [[7, 8], [7, 2], [7, 10]])
    assert on.get(sample_texture(made, on.put(at[:0]), 0.0)).shape == (0,)


@on_cuda
def test_a_footprint_follows_its_longer_side(on: Answer) -> None:
    """Stripes one px wide stay sharp along them and vanish across them."""
    stripes = np.zeros((1, 16, 16), np.uint8)
    stripes[:, :, 1::2] = 255
    grey = [np.full((1, 16 >> i, 16 >> i), 128, np.uint8) for i in range(1, 5)]
    made = make_texture(on.put([stripes, *grey]))
    at = on.put(np.array([[8, 7.5], [8, 8.5]], np.float32))
    rough = {"rtol": 0, "atol": 16}  # hardware chooses level and probes more or less by the rule
    along = on.get(anisotropic_texture(made, at, (8.0, 0.0), (0.0, 1.0)))
    assert_allclose(along, [[255, 0]], **rough)
    each = on.put(np.array([[0, 1], [8, 0]], np.float32)), on.put(np.array([[8, 0], [0, 8]], np.float32))
    assert_allclose(on.get(anisotropic_texture(made, at, *each)), [[255, 128]], **rough)
    blurred = make_texture(on.put([stripes, *grey]), max_anisotropy=1)
    assert_allclose(on.get(anisotropic_texture(blurred, at, (8.0, 0.0), (0.0, 1.0))), [[128, 128]], **rough)
    assert_allclose(on.get(anisotropic_texture(made, at, (0.0, 0.0), (0.0, 0.0))), [[255, 0]], **rough)


@on_cuda
def test_a_footprint_on_a_slope_is_its_middle(on: Answer) -> None:
    y, x = np.indices((16, 16), np.float32) + 0.5
    slope = (3 * y + 2 * x)[None]
    levels = [slope]
    while levels[-1].shape[1] > 2:
        levels.append(levels[-1].reshape(1, levels[-1].shape[1] // 2, 2, -1, 2).mean((2, 4)))
    made = make_texture(on.put(levels))
    noise = np.random.default_rng(0)
    at = (noise.random((20, 2)) * 2 + 7).astype(np.float32)
    a, b = ((noise.random((20, 2)) * 4 - 2).astype(np.float32) for _ in range(2))
    found = on.get(anisotropic_texture(made, on.put(at), on.put(a), on.put(b)))
    # a step of level 1 or 2, where these footprints are read, is 10 or 20 high
    assert_allclose(found[0], at @ np.array([3, 2], np.float32), rtol=0, atol=20 / 64)


LEVEL = np.zeros((3, 8, 8), np.uint8)


@pytest.mark.parametrize(
    ("levels", "keywords", "message"),
    [
        ([], {}, "`levels` of `make_texture`: got none"),
        (LEVEL, {}, "list of arrays"),
        ([LEVEL.astype(np.int32)], {}, "uint8 or uint16 or float16 or float32"),
        ([LEVEL[None]], {}, "2 or 3 axes"),
        ([np.zeros((5, 8, 8), np.uint8)], {}, "5 channels.*1 to 4"),
        ([LEVEL, LEVEL[:2, ::2, ::2]], {}, r"`levels\[1\]`.*2 channels"),
        ([LEVEL, LEVEL[:, ::2, ::2].astype(np.uint16)], {}, r"`levels\[1\]`.*uint16.*type uint8"),
        ([LEVEL, LEVEL], {}, "8×8, 8×8.*no longer than half"),
        ([LEVEL[:, :1, :1]] * 2, {}, "no more than there are halvings"),
        ([LEVEL], {"max_anisotropy": 32}, "`max_anisotropy`.*32.*1 to 16"),
    ],
)
def test_what_is_no_pyramid_is_refused(levels, keywords, message, on: Answer) -> None:
    with pytest.raises(ConfigError, match=message):
        make_texture(on.put(levels), **keywords)


@on_cuda
def test_what_does_not_belong_to_the_texture_is_refused(on: Answer) -> None:
    made = make_texture(on.put([LEVEL]))
    at, level = on.put(np.zeros((5, 2), np.float32)), on.put(np.zeros(5, np.float32))
    for arguments, keywords, message in [
        ((LEVEL, at, level), {}, "`texture` of `sample_texture`: got ndarray"),
        ((made, np.zeros((5, 2), np.float32), 0.0), {}, "`at_yx`.*host.*where the texture is"),
        ((made, on.put(np.zeros((5, 2))), 0.0), {}, "`at_yx`.*float64.*float32"),
        ((made, on.put(np.zeros((5, 3), np.float32)), 0.0), {}, r"`at_yx`.*\(5, 3\)"),
        ((made, at, level[:4]), {}, r"`level`.*\(5,\)"),
        ((made, at, math.nan), {}, "`level`.*nan"),
        ((made, at, level), {"out": on.put(np.zeros((4, 5), np.float32))}, r"`out`.*\(3, 5\)"),
    ]:
        with pytest.raises(ConfigError, match=message):
            sample_texture(*arguments, **keywords)
    up = make_texture(on.put([LEVEL[:, :5, :5], LEVEL[:, :3, :3]]))
    with pytest.raises(ConfigError, match=r"5×5 px that are rounded up.*software sampler"):
        anisotropic_texture(up, at, (1.0, 0.0), (0.0, 1.0))
    with pytest.raises(ConfigError, match="`du_yx`"):
        anisotropic_texture(made, at, 1.0, (0.0, 1.0))


@on_cpu
def test_it_is_imported_without_numba_cuda() -> None:
    """With the CUDA target that numba itself ships, which cannot link: nothing is launched there, all else works."""
    code = """
        import sys
        sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "NumbaCudaFinder"]
        from tilestream.kernels import texture, texture_source
        assert not texture_source.CAN_LINK
        assert texture_source.tex2d_lod is None
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


@on_cpu
def test_host_arrays_are_no_texture() -> None:
    with pytest.raises(ConfigError, match=r"`levels`.*on the host.*tilestream.kernels.sample"):
        make_texture([LEVEL])
    assert Texture.__dataclass_params__.frozen
