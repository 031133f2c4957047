"""Tissue that never was: glands, stroma, fat and glass in the colours of haematoxylin and eosin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilestream.testing.noise import Floats, cell_walls, iter_points, value_noise
from tilestream.types import Box, Shape

HAEMATOXYLIN = np.array([0.5626, 0.7201, 0.4062], np.float32)
"""Optical density by channel, R G B (Macenko et al., "A method for normalizing histology slides", ISBI 2009)."""
EOSIN = np.array([0.2159, 0.8012, 0.5581], np.float32)
"""The same for eosin."""
GLASS = np.array([244, 243, 245], np.float32)
"""Colour of empty glass."""
_CELL_UM = 9.0
"""Mean distance of nuclei."""
_REACH_UM = 8.0
"""No nucleus reaches further from its centre."""
_LUMEN = 0.68
"""Above this the gland field is a hollow; below it the tissue begins."""


@dataclass(frozen=True, kw_only=True)
class Tissue:
    """One section on glass; every pixel follows from its place, so any part can be painted alone."""

    shape: Shape
    """Size of the whole image, px."""
    seed: int = 0
    """Another seed, another section."""
    mpp: float = 0.5
    """Micrometres per pixel."""

    def paint(self, box: Box) -> npt.NDArray[np.uint8]:
        """Return the pixels of a box of level 0.

        Parameters
        ----------
        box : Box
            Where; may reach outside the image, which goes on as glass.

        Returns
        -------
        ndarray of uint8
            `(box.height, box.width, 3)`, RGB.

        Notes
        -----
        About 2 million pixels a second; needs some 100 bytes a pixel of the box while it works.
        """
        grain = value_noise(box, cell_px=2.5, seed=self.seed + 1) - np.float32(0.5)
        inside = self._inside(box)
        if not inside.any():
            return self._develop(np.zeros_like(grain), np.zeros_like(grain), grain)
        reach = round(self._px(_REACH_UM))
        eosin, haematoxylin, room = self._ground(box.grow(reach))
        middle = slice(reach, reach + box.height), slice(reach, reach + box.width)
        eosin, haematoxylin = eosin[middle], haematoxylin[middle].copy()
        self._add_nuclei(box, haematoxylin, room)
        return self._develop(haematoxylin * inside, eosin * inside, grain)

    def _px(self, length_um: float) -> float:
        return length_um / self.mpp

    def _inside(self, box: Box) -> Floats:
        """Return 1 on tissue, 0 on glass, with a soft ragged edge about one cell wide."""
        y = (box.y + np.arange(box.height, dtype=np.float32))[:, None] / self.shape.y * 2 - 1
        x = (box.x + np.arange(box.width, dtype=np.float32))[None, :] / self.shape.x * 2 - 1
        distance = np.sqrt((y / np.float32(0.85)) ** 2 + (x / np.float32(0.8)) ** 2)
        coarse = min(self.shape.yx) / 3
        ragged = value_noise(box, cell_px=coarse, seed=self.seed + 2, octaves=6)
        soft = self._px(6) / min(self.shape.yx)
        edge: Floats = (1 - distance + np.float32(1.1) * (ragged - np.float32(0.5))) / np.float32(soft)
        return edge.clip(0, 1)

    def _ground(self, box: Box) -> tuple[Floats, Floats, Floats]:
        """Return eosin, haematoxylin and, for each pixel, how many nuclei its place holds (0 to 1)."""
        gland = value_noise(box, cell_px=self._px(130), seed=self.seed + 3, octaves=2)
        patch = value_noise(box, cell_px=self._px(900), seed=self.seed + 4, octaves=2)
        glands = np.clip((patch - np.float32(0.45)) * 12, 0, 1)  # some parts are glands, some are stroma
        depth = np.float32(_LUMEN) - gland  # 0 at the wall of the hollow, grows outwards
        wall = np.exp(-((depth - np.float32(0.05)) ** 2) / np.float32(2 * 0.04**2)) * glands
        hollow = np.clip(-depth * 40, 0, 1) * glands

        fibre_y = value_noise(box, cell_px=(self._px(6), self._px(26)), seed=self.seed + 5, octaves=3)
        fibre_x = value_noise(box, cell_px=(self._px(24), self._px(5)), seed=self.seed + 6, octaves=3)
        turn = value_noise(box, cell_px=self._px(200), seed=self.seed + 7)
        fibres = fibre_y * turn + fibre_x * (1 - turn)
        eosin = np.float32(0.06) + np.float32(0.36) * fibres + np.float32(0.16) * wall
        haematoxylin = np.float32(0.03) + np.float32(0.10) * wall

        fat = np.clip((np.float32(0.40) - patch) * 25, 0, 1)
        if fat.any():
            walls = cell_walls(box, cell_px=round(self._px(55)), seed=self.seed + 8)
            film = np.exp(-walls / np.float32(0.035))
            eosin = eosin * (1 - fat) + fat * np.float32(0.35) * film
            haematoxylin = haematoxylin * (1 - fat)
        eosin, haematoxylin = eosin * (1 - hollow), haematoxylin * (1 - hollow)
        room = (np.float32(0.16) + np.float32(0.8) * wall) * (1 - hollow) * (1 - np.float32(0.95) * fat)
        return eosin, haematoxylin, room

    def _add_nuclei(self, box: Box, haematoxylin: Floats, room: Floats) -> None:
        """Draw the nuclei that touch a box; `room` reaches further, so each is asked of at its own place."""
        reach = round(self._px(_REACH_UM))
        near = box.grow(reach)
        for y, x, drawn in iter_points(box, cell_px=round(self._px(_CELL_UM)), reach_px=reach, seed=self.seed + 9):
            row, column = int(y) - near.y, int(x) - near.x
            if not (0 <= row < near.height and 0 <= column < near.width) or drawn[0] > room[row, column]:
                continue
            self._draw_nucleus(box, haematoxylin, (y, x), drawn)

    def _draw_nucleus(self, box: Box, haematoxylin: Floats, centre_yx: tuple[float, float], drawn: Floats) -> None:
        long_px = self._px(2.4 + 2.0 * float(drawn[1]))
        thin = 0.5 + 0.45 * float(drawn[2])
        angle = np.pi * float(drawn[3])
        size = int(long_px * 1.3) + 2
        y0, x0 = int(centre_yx[0]) - size, int(centre_yx[1]) - size
        part = box.intersect(Box(level=box.level, y=y0, x=x0, height=2 * size + 1, width=2 * size + 1))
        if part.shape.area == 0:
            return
        y = (part.y + np.arange(part.height) - centre_yx[0])[:, None]
        x = (part.x + np.arange(part.width) - centre_yx[1])[None, :]
        along, across = y * np.sin(angle) + x * np.cos(angle), y * np.cos(angle) - x * np.sin(angle)
        radius = np.sqrt((along / long_px) ** 2 + (across / (long_px * thin)) ** 2)
        body = np.clip((1 - radius) * 4, 0, 1)
        rim = np.exp(-((radius - 0.85) ** 2) / 0.02)  # the membrane is darker than the middle
        density = (0.45 + 0.45 * float(drawn[4])) * body * (0.75 + 0.35 * rim)
        target = haematoxylin[part.y - box.y : part.y_stop - box.y, part.x - box.x : part.x_stop - box.x]
        np.maximum(target, density.astype(np.float32), out=target)

    def _develop(self, haematoxylin: Floats, eosin: Floats, grain: Floats) -> npt.NDArray[np.uint8]:
        """Return the colour that light has behind so much stain (Beer and Lambert), with the grain of a camera."""
        density = haematoxylin[..., None] * HAEMATOXYLIN + eosin[..., None] * EOSIN
        stained = density.sum(axis=-1, keepdims=True) > 0
        density = density * (1 + np.float32(0.25) * grain[..., None] * stained)
        colour: Floats = GLASS * np.power(np.float32(10), -density) + np.float32(3) * grain[..., None]
        return colour.round().clip(0, 255).astype(np.uint8)
