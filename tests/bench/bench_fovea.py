"""Reading less of one image: its path from pixels to tokens beside reading all of it, and a gaze that moves."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tests.bench.bench_allocate import fastest_ms
from tests.bench.bench_entropy import tissue
from tests.bench.table import at_least, make_row, rates
from tests.fovea.trace import gaze_trace
from tests.plan.build import described
from tilestream.fovea import (
    Fovea,
    GazeMove,
    GazePredictor,
    GazeStream,
    LevelsInMemory,
    LevelsOfPyramid,
    Normalising,
    TokenPixels,
)
from tilestream.fovea.gaze import keys_of
from tilestream.fovea.pixels import Fetch
from tilestream.kernels import mip
from tilestream.kernels.allocate import allocate
from tilestream.kernels.gather import gather
from tilestream.kernels.patchify import patchify
from tilestream.kernels.tile_entropy import tile_entropy
from tilestream.plan.tokens import plan_tokens
from tilestream.pyramid import open_pyramid
from tilestream.testing.slide import write_slide
from tilestream.types import Shape

EDGE_PX, PATCH_PX, BUDGET, LEVELS = 1024, 16, 273, 6
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GAZE_BAR_MS = 20.0
"""Of the slowest move, from where one looks to normalised tokens."""
READ_BAR = 3.0
"""Rate of the path and one block of a model to that of reading every patch and the block: choosing alone costs as much
as a pass over all that is decoded already, and pays where a model comes after."""
DIFFERENCE_BAR = 3.0
"""Rate of moves that read the difference to that of moves that read all in sight, on a slide."""
PLAN_BAR_MS = 50.0
"""Of `plan_tokens` on 131,072²: tens of milliseconds."""
WIDE_PX = 131072
MODEL = (384, 6, 1536)
"""Width, heads and hidden width of a ViT-S."""

Pixels = npt.NDArray[np.uint8]
Batch = npt.NDArray[np.float32]


def square(edge_px: int = EDGE_PX) -> Pixels:
    """Return interleaved RGB of tissue `(c, y, x)`."""
    return np.moveaxis(np.ascontiguousarray(tissue(2048)[:edge_px, :edge_px]), 2, 0)


def relevance_gains(level_1: Any, *, stream: int = 0) -> list[Any]:
    """Return what splitting each node is worth: the entropy of what it covers of level 1, one channel, times 2^level.

    A tile of level 1 is a node that can be split: finer entropies would decide nothing. Arrays are on the host or a
    device, here and below.
    """
    entropy = tile_entropy(level_1[1], tile_px=PATCH_PX, stream=stream)
    means = [entropy, *mip(entropy, levels=LEVELS - 1, stream=stream)]
    return [mean * 2.0**level for level, mean in enumerate(means, 1)]


def cut_of(gains: Sequence[Any], *, stream: int = 0) -> Any:
    """Return the tokens of the budget, `(n, 4)`."""
    return allocate(gains, BUDGET, leaf_px=PATCH_PX, stream=stream).leaves


def read_tokens(levels: Sequence[Any], tokens: Any, *, dtype: str = "float32", stream: int = 0) -> Any:
    """Return tokens, normalised."""
    ratios = [2.0**level for level in range(len(levels))]
    return gather(
        levels, tokens, patch_px=PATCH_PX, mean=MEAN, std=STD, scale=1 / 255, ratios=ratios, dtype=dtype, stream=stream
    )


def read_less(image: Any, *, dtype: str = "float32", stream: int = 0) -> Any:
    """Return the tokens that matter, from the pixels on: levels, relevance, cut, gather."""
    levels = [image, *mip(image, levels=LEVELS, stream=stream)]
    tokens = cut_of(relevance_gains(levels[1], stream=stream), stream=stream)
    return read_tokens(levels, tokens, dtype=dtype, stream=stream)


def read_all(image: Pixels) -> Batch:
    """Return every patch, by our kernel."""
    found: Batch = patchify(image[None], mean=MEAN, std=STD, patch_px=PATCH_PX)
    return found


def read_all_torch(image: torch.Tensor) -> torch.Tensor:
    """Return every patch, as users of torch do it."""
    mean, std = (torch.tensor(each)[:, None, None] for each in (MEAN, STD))
    found = image.float().div_(255).sub_(mean).div_(std)
    grid = image.shape[1] // PATCH_PX
    patches = found.reshape(3, grid, PATCH_PX, grid, PATCH_PX).permute(1, 3, 0, 2, 4)
    return patches.reshape(1, grid * grid, 3 * PATCH_PX**2)


def path_rows(image: Pixels, *, rounds: int = 5) -> list[dict[str, Any]]:
    """Return the rate of the path beside both ways of reading all, and the time of each of its steps."""
    whole = torch.from_numpy(np.ascontiguousarray(image))
    np.testing.assert_allclose(read_all(image), read_all_torch(whole).numpy(), atol=1e-5)
    levels = [image, *mip(image, levels=LEVELS)]
    gains = relevance_gains(levels[1])
    tokens = cut_of(gains)
    assert 0.97 * BUDGET <= len(tokens) <= BUDGET
    value, torch_rate, kernel_rate = rates(
        [_once(lambda: read_less(image)), _once(lambda: read_all_torch(whole)), _once(lambda: read_all(image))],
        rounds=rounds,
    )
    name = f"{image.shape[1]}² u8 RGB to {len(tokens)} tokens: levels, entropy, cut, gather"
    count = (image.shape[1] // PATCH_PX) ** 2
    steps: dict[str, Callable[[], object]] = {
        "levels": lambda: mip(image, levels=LEVELS),
        "relevance": lambda: relevance_gains(levels[1]),
        "cut": lambda: cut_of(gains),
        "gather": lambda: read_tokens(levels, tokens),
    }
    taken = ", ".join(f"{step} {fastest_ms(work, rounds * 4):.2f}" for step, work in steps.items())
    return [
        make_row(
            name, value, "images/s", rival=(f"torch, all {count:,} patches", torch_rate),
            note=f"to normalised float32 in memory, 2 threads; ms by step: {taken}; torch from contiguous planes: "
            "float, divide, subtract, divide in place, permuted into patches",
        ),
        make_row(
            f"{name}, against our own", value, "images/s", rival=(f"patchify, all {count:,} patches", kernel_rate),
            note="choosing costs what one pass over all that is decoded already does; what is saved comes after",
        ),
    ]  # fmt: skip


def model_row(image: Pixels, *, rounds: int = 3, bar: float = READ_BAR) -> dict[str, Any]:
    """Return the rate of the path with what a model then does, patch embedding and one block of a ViT-S."""
    width, heads, hidden = MODEL
    torch.manual_seed(0)
    embed = torch.nn.Linear(3 * PATCH_PX**2, width)
    block = torch.nn.TransformerEncoderLayer(width, heads, hidden, batch_first=True, norm_first=True).eval()

    def seen(patches: Batch) -> torch.Tensor:
        with torch.inference_mode():
            out: torch.Tensor = block(embed(torch.from_numpy(patches).reshape(1, -1, 3 * PATCH_PX**2)))
            return out

    value, rival = rates([_once(lambda: seen(read_less(image))), _once(lambda: seen(read_all(image)))], rounds=rounds)
    return make_row(
        "the same with one block of a ViT-S after it", value, "images/s", rival=("every patch, by our kernel", rival),
        bar=at_least(bar),
        note="patch embedding and one block of 384 wide, random weights, float32, torch on 2 threads; a ViT-S has 12",
    )  # fmt: skip


def slowest_move_ms(fetch: Fetch, fovea: Fovea, shape: Shape, *, seconds: float, rounds: int) -> tuple[float, str]:
    """Return the time of the slowest move of a trace, the shortest of some rounds of each, and what moves were."""
    trace, times, moves = list(gaze_trace(min(shape.yx), seconds=seconds, seed=2)), [], list[GazeMove]()
    for _ in range(rounds):
        stream = GazeStream(fovea, shape, patch_px=PATCH_PX)
        tokens, taken, moves = TokenPixels(fetch, patch_px=PATCH_PX), [], []
        for t_s, at in trace:
            start = time.perf_counter()
            move = stream.move(at, t_s)
            tokens.read(move.tokens)
            taken.append(time.perf_counter() - start)
            moves.append(move)
        times.append(taken)
    best = np.min(times, axis=0)[1:] * 1e3
    new = np.array([move.is_new.sum() for move in moves[1:]])
    many = np.mean([len(move.tokens) for move in moves])
    told = (
        f"{len(best)} moves at 60 Hz with saccades and pursuits, best of {rounds} rounds of each; median "
        f"{np.median(best):.2f} ms; {many:.0f} tokens in sight, {new.mean():.1f} of them new, {new.max()} at most"
    )
    return float(best.max()), told


def gaze_row(image: Pixels, *, seconds: float = 4.0, rounds: int = 3, bar: float = GAZE_BAR_MS) -> dict[str, Any]:
    """Return the time of a gaze's slowest move over an image in memory."""
    fetch = LevelsInMemory([image, *mip(image, levels=4)], Normalising(mean=MEAN, std=STD))
    shape = Shape(y=image.shape[1], x=image.shape[2])
    fovea = Fovea(fixations_yx=(0, 0), e0_px=45, max_level=4)
    value, told = slowest_move_ms(fetch, fovea, shape, seconds=seconds, rounds=rounds)
    name = f"a gaze moves to new tokens, {shape.y}² u8 RGB in memory"
    return make_row(name, value, "ms", bar=(0.0, bar), note=f"tree with hysteresis, gather of the difference; {told}")


def slide_tokens(path: Path) -> LevelsOfPyramid:
    """Return what reads tokens of a slide."""
    return LevelsOfPyramid(open_pyramid(str(path)), Normalising(mean=MEAN, std=STD))


def slide_gaze_rows(*, edge_px: int = 4096, seconds: float = 4.0, rounds: int = 3) -> list[dict[str, Any]]:
    """Return the time of a gaze's slowest move over a slide of JPEG tiles, and what reading the difference saves."""
    shape, fovea = Shape(y=edge_px, x=edge_px), Fovea(fixations_yx=(0, 0), e0_px=45, max_level=6)
    with tempfile.TemporaryDirectory() as folder:
        path = write_slide(Path(folder) / "slide.svs", shape)
        times, told = [], ""
        for number in range(rounds):  # files of their own for the cache of blocks, so that each round decodes anew
            copy = Path(folder) / f"slide{number}.svs"
            copy.write_bytes(path.read_bytes())
            value, told = slowest_move_ms(slide_tokens(copy), fovea, shape, seconds=seconds, rounds=1)
            times.append(value)
        saved = difference_row(slide_tokens(path), fovea, shape, seconds=seconds, rounds=rounds)
    name = f"a gaze moves to new tokens, slide of {edge_px}² px in JPEG tiles"
    note = f"decoded from the file on the way, blocks kept in memory; {told}; the least of {rounds} cold runs"
    return [make_row(name, min(times), "ms", bar=(0.0, GAZE_BAR_MS), note=note), saved]


def difference_row(
    fetch: Fetch, fovea: Fovea, shape: Shape, *, seconds: float, rounds: int, bar: float = DIFFERENCE_BAR
) -> dict[str, Any]:
    """Return the rate of moves of a gaze beside that of reading all that is in sight at every move."""
    trace = list(gaze_trace(min(shape.yx), seconds=seconds, seed=3))

    def ours() -> float:
        stream, tokens = GazeStream(fovea, shape, patch_px=PATCH_PX), TokenPixels(fetch, patch_px=PATCH_PX)
        for t_s, at in trace:
            tokens.read(stream.move(at, t_s).tokens)
        return float(len(trace))

    def theirs() -> float:
        for _, at in trace:
            fetch(replace(fovea, fixations_yx=(at,)).tokens(shape, patch_px=PATCH_PX), PATCH_PX)
        return float(len(trace))

    value, rival = rates([ours, theirs], rounds=rounds)
    return make_row(
        "moves of a gaze over a slide, only the difference", value, "moves/s", rival=("all in sight anew", rival),
        bar=at_least(bar), note="the same trace and tree, blocks in memory for both after the first round",
    )  # fmt: skip


def foreseen_row(*, seconds: float = 20.0) -> dict[str, Any]:
    """Return the share of tokens that come to be seen and were foreseen one sample before."""
    shape, counts = Shape(y=EDGE_PX, x=EDGE_PX), np.zeros(3, np.int64)
    fovea = Fovea(fixations_yx=(0, 0), e0_px=45, max_level=4)
    stream = GazeStream(fovea, shape, patch_px=PATCH_PX, predictor=GazePredictor())
    ahead: npt.NDArray[np.int64] | None = None
    for t_s, at in gaze_trace(EDGE_PX, seconds=seconds):
        move = stream.move(at, t_s)
        if ahead is not None:
            met = int(np.isin(keys_of(move.new), ahead).sum())
            counts += len(move.new), met, len(ahead) - met
        ahead = keys_of(move.ahead)
    new, met, vain = counts.tolist()
    return make_row(
        "tokens of a moving gaze foreseen one sample before they are seen", 100 * met / new, "%",
        note=f"{seconds:g} s at 60 Hz of fixations, saccades and pursuits: {new:,} new tokens, {met:,} of them "
        f"foreseen, {vain:,} foreseen and not seen in the next sample; constant velocity with damping",
    )  # fmt: skip


def plan_rows() -> list[dict[str, Any]]:
    """Return how long plans of 131,072² take that look at one place."""
    fovea = Fovea(fixations_yx=(70000, 60000), e0_px=2048, max_level=9)
    shape = Shape(y=WIDE_PX, x=WIDE_PX)
    pyramid = described(WIDE_PX, WIDE_PX)
    count = len(fovea.tokens(shape, patch_px=256))
    alone = fastest_ms(lambda: fovea.tokens(shape, patch_px=256))
    planned = fastest_ms(lambda: plan_tokens(pyramid, budget=2620, fovea=fovea, patch_px=256))
    return [
        make_row(
            f"Fovea.tokens of {WIDE_PX:,}²", alone, "ms", bar=(0.0, 10.0), note=f"{count:,} tokens of 256 px, best of 7"
        ),
        make_row(
            f"plan_tokens of {WIDE_PX:,}² with a fovea", planned, "ms", bar=(0.0, PLAN_BAR_MS),
            note="2,620 of 262,144 tokens of 256 px, records and their order included, best of 7",
        ),
    ]  # fmt: skip


def _once(work: Callable[[], object]) -> Callable[[], float]:
    def run() -> float:
        work()
        return 1.0

    return run


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    torch.set_num_threads(2)
    image = square()
    return [*path_rows(image), model_row(image), gaze_row(image), *slide_gaze_rows(), foreseen_row(), *plan_rows()]
