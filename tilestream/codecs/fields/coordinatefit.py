"""The fit of a network of coordinates: first parameters, the loss of a batch, and rounding as its file will have it.

Networks of sines begin as SIREN does: rows of the first layer uniform in ±1/n, those after it in ±√(6/n)/ω, biases in
±1/√n, for n inputs. ω is part of the weights here, so all but the last layer are these times ω, and so is their rate.
Those of ReLU begin as He et al. say. Latents begin as zeros; what mixes them is uniform in ±√(6/n).

Sources: Sitzmann et al., SIREN, arXiv:2006.09661, §3.2 and code; Dupont et al., COIN++, arXiv:2201.12904 (shifts).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from tilestream.codecs.fields.coordinateparts import CoordinateParts
from tilestream.codecs.fields.coordinatesettings import CoordinateSettings
from tilestream.codecs.fields.coordinatetorch import inputs_at, reference_network
from tilestream.codecs.fields.encoding import Encoding
from tilestream.codecs.fields.fakequant import fake_quantise, scales_each
from tilestream.codecs.fields.fitting import Learned
from tilestream.codecs.fields.sampler import Samples
from tilestream.kernels.mlp_layers import MlpLayers
from tilestream.ops.field import mlp

ROUNDED_SHARE = 0.8
"""Of a fit whose length is known, after which rows are rounded as they will be stored."""
SCALE_STEPS = 50
"""Between two searches for the scales of rows."""
LATENT_RATE = 0.1
"""Of the rate of the network, for latents and what mixes them."""


def first_parts(settings: CoordinateSettings, encoding: Encoding, channels: int) -> CoordinateParts:
    """Return what a fit starts with.

    Parameters
    ----------
    settings : CoordinateSettings
        Sizes, ω and the seed.
    encoding : Encoding
        Inputs.
    channels : int
        Outputs.

    Returns
    -------
    CoordinateParts
        A network that gives numbers near mid-grey.
    """
    widths = (encoding.inputs, *[settings.hidden] * settings.layers, channels)
    layers = MlpLayers(widths=widths, biases=True, activation="relu" if settings.omega is None else "sine")
    noise = np.random.default_rng(settings.seed)
    omega, pieces = settings.omega or 1.0, []
    for number, (inputs, outputs, *_) in enumerate(layers.layout.tolist()):
        is_first, is_last = number == 0, number == len(layers.layout) - 1
        bound = 1 / inputs if is_first and settings.omega else math.sqrt(6 / inputs) / omega
        matrix = noise.uniform(-bound, bound, (outputs, inputs))
        bias = np.full(outputs, 0.5) if is_last else noise.uniform(-1, 1, outputs) / math.sqrt(inputs)
        if settings.omega is None and not is_last:
            bias = np.zeros(outputs)
        pieces += [(part if is_last else part * omega).ravel() for part in (matrix, bias)]
    if settings.latent:
        hidden = settings.hidden * settings.layers
        bound = math.sqrt(6 / settings.latent)
        pieces += [noise.uniform(-bound, bound, hidden * settings.latent), np.zeros(encoding.levels * settings.latent)]
    run = np.concatenate(pieces).astype(np.float32)
    return CoordinateParts(encoding=encoding, layers=layers, latent=settings.latent, run=run)


class CoordinateFit:
    """A network of coordinates while it is fitted.

    Parameters
    ----------
    parts : CoordinateParts
        Where it stands.
    settings : CoordinateSettings
        How it is fitted.
    backend : {"cpu", "cuda", "torch"}
        Our kernels where the tensors are, or plain torch on the CPU.
    """

    def __init__(self, parts: CoordinateParts, settings: CoordinateSettings, *, backend: str) -> None:
        self._start, self._settings = parts, settings
        self._device = torch.device("cuda" if backend == "cuda" else "cpu")
        self._network = reference_network if backend == "torch" else mlp
        inner = int(parts.layers.layout[-1, 2])  # all before the last matrix learns by ω
        pieces = np.split(parts.run, [inner, parts.layers.parameters])
        self.pieces = [torch.from_numpy(piece.copy()).to(self._device).requires_grad_() for piece in pieces]
        self._is_coded = torch.from_numpy(np.flatnonzero(parts.is_coded)).to(self._device)
        self._shifted = torch.from_numpy(parts.shifted).to(self._device)
        self._scales: torch.Tensor | None = None
        self._steps = 0

    def learned(self) -> list[Learned]:
        """Return what is fitted, and how fast."""
        rate = self._settings.rate
        inner, last, latents = self.pieces
        found = [
            Learned(tensors=(inner,), rate=rate * (self._settings.omega or 1.0)),
            Learned(tensors=(last,), rate=rate),
        ]
        if len(latents):
            found.append(Learned(tensors=(latents,), rate=rate * (self._settings.omega or 1.0) * LATENT_RATE))
        return found

    def parts(self) -> CoordinateParts:
        """Return where it stands."""
        run: npt.NDArray[np.float32] = torch.cat(self.pieces).detach().cpu().numpy().copy()
        return replace(self._start, run=run, coded=None)

    def loss_of(self, samples: Samples, share: float) -> torch.Tensor:
        """Return the loss of a batch, at 0 to 1 of the fit."""
        run = self._rounded(torch.cat(self.pieces), share)
        coords, values = (torch.from_numpy(array).to(self._device) for array in (samples.coords_xy, samples.values))
        parts = torch.split(coords, list(samples.counts))
        inputs = [inputs_at(part, self._start.encoding, level=level) for level, part in enumerate(parts)]
        if not self._start.latent:
            found = self._network(torch.cat(inputs), run, layers=self._start.layers)
            return (found - values).square().mean()
        total = values.new_zeros(())
        for level, (part, wanted) in enumerate(zip(inputs, torch.split(values, list(samples.counts)), strict=True)):
            if len(part):
                found = self._network(part, self._weights(run, level), layers=self._start.layers)
                total = total + (found - wanted).square().sum()
        return total / values.numel()

    def _weights(self, run: torch.Tensor, level: int) -> torch.Tensor:
        """Return the weights of a level; see `CoordinateParts.network`."""
        parts = self._start
        weights = run[: parts.layers.parameters]
        mixing, latents = run[parts.layers.parameters :].tensor_split([parts.hidden * parts.latent])
        shift = mixing.reshape(parts.hidden, -1) @ latents.reshape(-1, parts.latent)[level]
        return weights.index_add(0, self._shifted, shift)

    def _rounded(self, run: torch.Tensor, share: float) -> torch.Tensor:
        """Return the run as it will be after quantisation, towards the end of a fit."""
        if share < ROUNDED_SHARE or not len(self._is_coded):
            return run
        codes = run[self._is_coded]
        if self._scales is None or self._steps % SCALE_STEPS == 0:
            self._scales = scales_each(codes, self._start.code_starts, self._settings.bits)
        self._steps += 1
        return run.index_copy(0, self._is_coded, fake_quantise(codes, self._scales, self._settings.bits))
