"""Canvases of a gigapixel with digits that matter among many that do not, and a question for each 4096² of it.

The ground is cloudy noise. In its cells of 128 px lie digits of 100 to 124 px, one in eleven cells; in two of three
fields of 4096² one to three of them are of the two classes that matter. All digits are hatched, along y or along x,
with a period of about two pixels: at half resolution that is gone. The question of a field is whether it holds digits
that matter, and which way those are hatched. So where to look is seen from afar, as far as digits of 7 px can be told
apart, and the answer is in the finest pixels alone, as with glands and their nuclei, or fields and what grows there.

Digits that matter and others are drawn from the same sizes, contrasts, hatchings and places; their histograms of ink
are equal (`canvas_glyphs`). Everything follows from the seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tests.bench.canvas_glyphs import Glyph, glyphs

CELL_PX = 128
"""A digit lies within a cell of this grid: what happens to objects that tiles cut is another question."""
FIELD_PX = 4096
DENSITY = 0.0875
"""Share of cells with a digit that does not matter: three in ten blocks of 256 px hold one, so that a perfect detector
of digits that is blind to classes finds 0.4 of those that matter in a tenth of the blocks."""
MOST_TARGETS = 3
NONE, ALONG_Y, ALONG_X = range(3)
"""Answers: no digit that matters, hatched along y, hatched along x."""
CONTRAST = (50.0, 80.0)
"""Least and most grey levels by which ink is brighter than the ground."""
PERIOD_PX = (2.1, 2.3)
HATCH = 0.5
"""How much the hatching modulates the ink."""
VARIANTS = {"train": 6, "tune": 4, "test": 3}
"""Drawings of each digit."""
GROUND = 110
_PERIODS = (1536, 1875)
"""Of the two noises whose sum is the ground: it repeats itself after a million pixels only."""
_SALT = {"train": 0, "tune": 1, "test": 2}

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Placed:
    """One digit on a canvas."""

    glyph: Glyph
    """Its drawing."""
    y: int
    """Row of its top-left corner, px."""
    x: int
    """Column of the same."""
    contrast: float
    """Grey levels of full ink."""
    state: int
    """`ALONG_Y` or `ALONG_X`."""
    period_px: float
    """Of its hatching."""
    phase: float
    """Of its hatching, radians."""
    matters: bool
    """Whether its class is one of those that matter."""

    @property
    def cell_yx(self) -> tuple[int, int]:
        """Return row and column of its cell."""
        return self.y // CELL_PX, self.x // CELL_PX


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """What is drawn where; pixels are made band by band when they are asked for."""

    seed: int
    """Of everything."""
    part: str
    """`train`, `tune` or `test`: which digits it may use."""
    rows: int
    """Height in fields."""
    columns: int
    """Width in fields."""
    density: float = DENSITY
    """Share of cells with a digit that does not matter."""
    most_targets: int = MOST_TARGETS
    """Most digits that matter in a field; one at least, unless it has none."""
    all_classes: bool = False
    """Whether every digit is of any class, those that matter included: for training on labels of tiles."""

    @property
    def targets(self) -> tuple[int, int]:
        """Return the classes that matter; over five seeds each digit once."""
        return 2 * self.seed % 10, 2 * self.seed % 10 + 1

    @property
    def shape(self) -> tuple[int, int]:
        """Return height and width, px."""
        return self.rows * FIELD_PX, self.columns * FIELD_PX

    @cached_property
    def answers(self) -> Ints:
        """Return the right answer of each field, `(rows, columns)`: as many of each as can be."""
        count = self.rows * self.columns
        answers = self._rng(1).permutation(np.arange(count) % 3)
        return answers.reshape(self.rows, self.columns)

    @cached_property
    def placed(self) -> tuple[Placed, ...]:
        """Return all digits, field by field."""
        rng = self._rng(2)
        bank = glyphs(self.seed, self.part, VARIANTS[self.part])
        found: list[Placed] = []
        side = FIELD_PX // CELL_PX
        for row in range(self.rows):
            for column in range(self.columns):
                answer = int(self.answers[row, column])
                wanted = 0 if self.all_classes or answer == NONE else int(rng.integers(1, self.most_targets + 1))
                others = int(rng.binomial(side * side, self.density))
                cells = rng.choice(side * side, size=min(wanted + others, side * side), replace=False)
                for index, cell in enumerate(cells):
                    matters = index < wanted
                    corner = row * FIELD_PX + cell // side * CELL_PX, column * FIELD_PX + cell % side * CELL_PX
                    found.append(self._place(rng, bank, corner, answer if matters else None))
        return tuple(found)

    def _place(
        self,
        rng: np.random.Generator,
        bank: tuple[tuple[Glyph, ...], ...],
        corner: tuple[int, int],
        answer: int | None,
    ) -> Placed:
        if self.all_classes:
            digit = int(rng.integers(10))
        elif answer is not None:
            digit = int(rng.choice(self.targets))
        else:
            digit = int(rng.choice([d for d in range(10) if d not in self.targets]))
        glyph = bank[digit][int(rng.integers(len(bank[digit])))]
        room = CELL_PX - glyph.edge
        state = int(rng.integers(1, 3))
        return Placed(
            glyph=glyph,
            y=int(corner[0] + rng.integers(room + 1)),
            x=int(corner[1] + rng.integers(room + 1)),
            contrast=float(rng.uniform(*CONTRAST)),
            state=state if answer is None else answer,
            period_px=float(rng.uniform(*PERIOD_PX)),
            phase=float(rng.uniform(0, 2 * np.pi)),
            matters=digit in self.targets,
        )

    @property
    def ratio(self) -> float:
        """Return the share of the image that digits that matter cover, their boxes counted."""
        return sum(p.glyph.edge**2 for p in self.placed if p.matters) / (self.shape[0] * self.shape[1])

    def field_rows(self, row: int) -> Bytes:
        """Return one row of fields, `(4096, width)` grey levels."""
        noises = self._noises
        at = np.arange(row * FIELD_PX, (row + 1) * FIELD_PX)
        out = np.empty((FIELD_PX, self.shape[1]), np.uint8)
        for y, line in zip(at, out, strict=True):
            np.add(noises[0][y % _PERIODS[0]], noises[1][y % _PERIODS[1]], out=line)
        for digit in self.placed:
            if digit.y // FIELD_PX == row:
                _ink(out, digit, digit.y - row * FIELD_PX)
        return out

    @cached_property
    def _noises(self) -> tuple[Bytes, Bytes]:
        made = []
        for period in _PERIODS:
            noise = _noise(period, self._rng(period))
            made.append(np.tile(noise, (1, -(-self.shape[1] // period)))[:, : self.shape[1]])
        return made[0], made[1]

    def _rng(self, purpose: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, _SALT[self.part], self.rows, self.columns, purpose))


def _ink(out: Bytes, digit: Placed, y: int) -> None:
    """Draw a digit into a band."""
    edge = digit.glyph.edge
    wave = 1 + HATCH * np.sin(2 * np.pi * np.arange(edge) / digit.period_px + digit.phase)
    hatch = wave[:, None] if digit.state == ALONG_Y else wave[None, :]
    part = out[y : y + edge, digit.x : digit.x + edge]
    part[...] = np.clip(np.rint(part + digit.contrast * digit.glyph.ink * hatch), 0, 255)


def _noise(period: int, rng: np.random.Generator) -> Bytes:
    """Return periodic noise of amplitude 1/f, stronger here and weaker there, with a little of a sensor's on top."""
    clouds = _filtered(rng, period, 1.0)
    strength = np.exp(0.6 * _filtered(rng, period, 2.0))
    noise = 8 * clouds * strength + 2 * rng.standard_normal((period, period), np.float32)
    half = GROUND / 2 - 1
    return np.rint(half * np.tanh(noise / half) + GROUND / 2).astype(np.uint8)


def _filtered(rng: np.random.Generator, period: int, power: float) -> npt.NDArray[np.float32]:
    spectrum = np.fft.rfft2(rng.standard_normal((period, period), np.float32))
    f = np.hypot(np.fft.fftfreq(period)[:, None], np.fft.rfftfreq(period)[None, :])
    f[0, 0] = np.inf
    found = np.fft.irfft2(spectrum / np.maximum(f, 1 / 256) ** power, s=(period, period))
    return np.asarray(found / found.std(), np.float32)
