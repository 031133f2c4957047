"""The training of a second stage without labels: steps of DINO on feature grids, and a checkpoint to go on from."""

from __future__ import annotations

import copy
import io
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tilestream.codecs.durable import read_if_there, write_durable
from tilestream.errors import ConfigError, StageError
from tilestream.models.regionstages import trained_vit
from tilestream.models.runners import torch_device
from tilestream.models.vit import VisionTransformer
from tilestream.models.weights import random_weights
from tilestream.torch.chance import mixed_seed
from tilestream.torch.crops import random_crops
from tilestream.torch.dino import Dino, ProjectionHead, dino_loss, evenness, followed, spread, targets

Ints: TypeAlias = npt.NDArray[np.int64]

LONGEST_GAP_S = 60.0
"""How often a checkpoint is written at most; it holds both networks and the optimiser."""
LARGE = 2
"""Large squares of a grid."""


class Grids(Protocol):
    """Feature grids of many regions."""

    @property
    def dim(self) -> int:
        """Return the length of a vector."""

    @property
    def count(self) -> int:
        """Return the number of regions."""

    def read(self, numbers: Ints) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Return grids `[n, d, g, g]` float32, zeros where there is nothing, and a mask `[n, g, g]`."""


@dataclass(frozen=True, kw_only=True)
class DinoSettings:
    """How a second stage is trained; by default as HIPT's, but for the prototypes and the batch."""

    dim: int = 192
    """Length of its vectors."""
    depth: int = 6
    """Blocks."""
    heads: int = 6
    """Heads of attention."""
    large_cells: int = 14
    """Edge of the two large squares, and of the learned positions."""
    small_cells: int = 6
    """Edge of the small squares."""
    smalls: int = 8
    """Small squares of a grid."""
    prototypes: int = 4096
    """Length of what teacher and student agree on; DINO has 65,536 for millions of images."""
    hidden: int = 2048
    """Length of the hidden layers of the projection head."""
    epochs: int = 100
    """Times that all regions are shown."""
    batch: int = 32
    """Regions of a step."""
    lr: float = 5e-4
    """Largest step of AdamW for 256 regions; in proportion for other batches."""
    warmup_epochs: int = 10
    """Epochs in which it grows to that."""
    momentum: float = 0.996
    """Share that the teacher keeps in the first step; 1 in the last. Take less for few steps."""
    teacher_temperature: float = 0.04
    """Sharpens the teacher."""
    student_temperature: float = 0.1
    """Of the student."""
    seed: int = 0
    """What all chance follows from."""
    autocast: bool = False
    """Whether a CUDA device computes in bfloat16 where that is safe."""

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf:
            raise ConfigError.of("`--lr`", got=self.lr, expected="a step above 0", do="Correct it.")


LAST_LR, WEIGHT_DECAY, CLIP, FROZEN_EPOCHS = 1e-6, (0.04, 0.4), 3.0, 1
"""Of DINO: smallest step, decay from first to last step, longest gradient of a parameter, and epochs in which
prototypes stay."""


@dataclass(frozen=True, kw_only=True)
class DinoEpoch:
    """What an epoch has come to: means over its steps."""

    epoch: int
    """From 1."""
    loss: float
    """Cross-entropy; that of chance is the logarithm of the number of prototypes."""
    spread: float
    """How far the teacher's vectors of different regions point apart; towards 0 they have become one."""
    sharpness: float
    """Evenness of what the teacher says of a region; at 1 it says nothing."""
    usage: float
    """Evenness of what it says of all regions of a batch together; towards 0 it says the same of all."""


@dataclass
class _Course:
    """A training as far as it has come."""

    student: Dino
    teacher: Dino
    optimiser: torch.optim.Optimizer
    centre: Tensor
    step: int = 0
    epochs: list[DinoEpoch] = field(default_factory=list)
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)


def new_backbone(dim: int, settings: DinoSettings) -> VisionTransformer:
    """Return a second stage for vectors of a length.

    Parameters
    ----------
    dim : int
        Length of the vectors of tiles.
    settings : DinoSettings
        Its shape.

    Returns
    -------
    VisionTransformer
        `models.hipt.vit4k()` where the settings are as they are and `dim` is 384.
    """
    return trained_vit(dim, asdict(settings))


class DinoTraining:
    """Trains one second stage; asked again after it was killed it goes on.

    Parameters
    ----------
    grids : Grids
        The regions.
    settings : DinoSettings
        How.
    checkpoint : Path
        File of its state, in the layout of published checkpoints.
    recipe : str
        What tells this training from all others; a checkpoint of another one is not gone on with.
    """

    def __init__(self, grids: Grids, *, settings: DinoSettings, checkpoint: Path, recipe: str) -> None:
        self._grids = grids
        self._settings = settings
        self._checkpoint = checkpoint
        self._recipe = recipe
        self._batch = min(settings.batch, grids.count)
        self.steps_per_epoch = grids.count // self._batch
        self.steps = self.steps_per_epoch * settings.epochs

    @property
    def parameters(self) -> int:
        """Return the number of parameters of the second stage."""
        with torch.device("meta"):
            return sum(one.numel() for one in new_backbone(self._grids.dim, self._settings).parameters())

    def fit(
        self, *, hear: Callable[[DinoEpoch], None], gap_s: float = LONGEST_GAP_S
    ) -> tuple[VisionTransformer, tuple[DinoEpoch, ...]]:
        """Return the teacher's backbone after the last step, and all epochs.

        Parameters
        ----------
        hear : callable
            Told of each epoch, also of those that an earlier process has made.
        gap_s : float
            How often a checkpoint is written at most.

        Returns
        -------
        backbone : VisionTransformer
            In evaluation mode.
        epochs : tuple of DinoEpoch
            All of them.

        Raises
        ------
        StageError
            When the loss becomes NaN.
        """
        course = self._begun()
        for epoch in course.epochs:
            hear(epoch)
        written = time.monotonic()
        for grids, mask in self._shown(course.step):
            self._take_step(course, grids, mask)
            ended = course.step % self.steps_per_epoch == 0
            if ended:
                self._end_epoch(course)
            if course.step == self.steps or time.monotonic() - written >= gap_s:
                self._save(course)
                written = time.monotonic()
            if ended:
                hear(course.epochs[-1])
        backbone = course.teacher.backbone
        assert isinstance(backbone, VisionTransformer)
        return backbone.eval(), tuple(course.epochs)

    def _shown(self, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the grids of each step that is left, the next ones being read meanwhile."""
        with ThreadPoolExecutor(1, thread_name_prefix="grids") as pool:
            coming = [pool.submit(self._grids.read, self._numbers(first))] if first < self.steps else []
            for step in range(first, self.steps):
                grids, mask = coming.pop().result()
                if step + 1 < self.steps:
                    coming.append(pool.submit(self._grids.read, self._numbers(step + 1)))
                yield torch.from_numpy(grids), torch.from_numpy(mask)

    def _numbers(self, step: int) -> Ints:
        epoch, place = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self._settings.seed, epoch]).permutation(self._grids.count)
        return np.asarray(order[place * self._batch : (place + 1) * self._batch], np.int64)

    def _take_step(self, course: _Course, grids: Tensor, mask: Tensor) -> None:
        settings, device = self._settings, torch_device()
        self._schedule(course)
        chance = torch.Generator().manual_seed(mixed_seed((settings.seed, course.step)))
        grids = grids.to(device)
        large, small = (
            [random_crops(grids, mask, cells=cells, generator=chance) for _ in range(views)]
            for cells, views in ((settings.large_cells, LARGE), (settings.small_cells, settings.smalls))
        )
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=settings.autocast and device != "cpu"):
            with torch.no_grad():
                vectors, scores = course.teacher(*_joined(large))  # 2 n, dim; 2 n, k
            seen = [course.student(*_joined(views))[1] for views in (large, small) if views]
        said = targets(scores, course.centre, temperature=settings.teacher_temperature)  # 2 n, k
        loss = dino_loss(torch.cat(seen), said, views=LARGE + settings.smalls, temperature=settings.student_temperature)
        course.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        self._move(course)
        course.centre = followed(course.centre, scores)
        course.step += 1
        found = float(loss.detach()), spread(vectors[: len(grids)]), evenness(said), evenness(said.mean(0))
        if not math.isfinite(found[0]):
            raise StageError.of(
                f"the loss in step {course.step}",
                got="NaN or infinity",
                expected="a number",
                do=f"Take smaller steps than {settings.lr:g}: `--lr`.",
            )
        course.sums = [one + other for one, other in zip(course.sums, found, strict=True)]

    def _move(self, course: _Course) -> None:
        """Move the student by its gradients, and the teacher after it."""
        is_frozen = course.step < FROZEN_EPOCHS * self.steps_per_epoch
        for name, parameter in course.student.named_parameters():
            if is_frozen and name.startswith("head.last_layer"):
                parameter.grad = None
            elif parameter.grad is not None:
                torch.nn.utils.clip_grad_norm_([parameter], CLIP)
        course.optimiser.step()
        kept = 1 - (1 - self._settings.momentum) * _cosine(course.step, self.steps)
        with torch.no_grad():
            for slow, fast in zip(course.teacher.parameters(), course.student.parameters(), strict=True):
                slow.mul_(kept).add_(fast, alpha=1 - kept)

    def _schedule(self, course: _Course) -> None:
        settings, step = self._settings, course.step
        warm = min(settings.warmup_epochs, settings.epochs // 2) * self.steps_per_epoch
        top = settings.lr * self._batch / 256
        if step < warm:
            lr = top * step / warm
        else:
            lr = LAST_LR + (top - LAST_LR) * _cosine(step - warm, self.steps - warm)
        low, high = WEIGHT_DECAY
        decayed, plain = course.optimiser.param_groups
        decayed["lr"] = plain["lr"] = lr
        decayed["weight_decay"] = high + (low - high) * _cosine(step, self.steps)

    def _end_epoch(self, course: _Course) -> None:
        loss, apart, sharp, used = (one / self.steps_per_epoch for one in course.sums)
        number = len(course.epochs) + 1
        course.epochs.append(DinoEpoch(epoch=number, loss=loss, spread=apart, sharpness=sharp, usage=used))
        course.sums = [0.0] * 4

    def _begun(self) -> _Course:
        settings, device = self._settings, torch_device()
        with torch.random.fork_rng([]):  # what networks draw as they are made is not the caller's loss
            head = ProjectionHead(settings.dim, prototypes=settings.prototypes, hidden=settings.hidden)
            student = Dino(new_backbone(self._grids.dim, settings), head)
        # by fan-in: a deviation of 0.02, made for 384 values, lets small networks say the same of all for an age
        random_weights(student, seed=settings.seed)
        student.to(device)
        teacher = copy.deepcopy(student).requires_grad_(False)
        decayed = [one for one in student.parameters() if one.ndim > 1]
        plain = [one for one in student.parameters() if one.ndim < 2]
        groups: list[dict[str, Any]] = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
        optimiser = torch.optim.AdamW(groups)
        course = _Course(
            student=student,
            teacher=teacher,
            optimiser=optimiser,
            centre=torch.zeros(settings.prototypes, device=device),
        )
        data = read_if_there(self._checkpoint)
        if data is not None:
            self._restore(course, data)
        return course

    def _restore(self, course: _Course, data: bytes) -> None:
        known: Mapping[str, Any] = torch.load(io.BytesIO(data), map_location=torch_device(), weights_only=True)
        own = known.get("tilestream", {})
        if own.get("recipe") != self._recipe:
            raise ConfigError.of(
                f"`{self._checkpoint}`",
                got="the checkpoint of another training",
                expected="that of the same regions and options",
                do="Take another --out, or --no-resume to train anew there.",
            )
        course.student.load_state_dict({name.removeprefix("module."): one for name, one in known["student"].items()})
        course.teacher.load_state_dict(known["teacher"])
        course.optimiser.load_state_dict(known["optimizer"])
        course.centre = known["dino_loss"]["center"][0]
        course.step = own["step"]
        course.epochs = [DinoEpoch(**one) for one in own["epochs"]]
        course.sums = list(own["sums"])

    def _save(self, course: _Course) -> None:
        document = {
            "student": {f"module.{name}": one for name, one in course.student.state_dict().items()},
            "teacher": course.teacher.state_dict(),
            "optimizer": course.optimiser.state_dict(),
            "epoch": len(course.epochs),
            "args": asdict(self._settings),
            "dino_loss": {"center": course.centre[None]},
            "tilestream": {
                "recipe": self._recipe,
                "step": course.step,
                "epochs": [vars(epoch) for epoch in course.epochs],
                "sums": course.sums,
            },
        }
        buffer = io.BytesIO()
        torch.save(_unshared(document), buffer)
        write_durable(self._checkpoint, buffer.getvalue())


def _unshared(value: Any) -> Any:
    """Return a document whose pickle follows from what it says alone, not from which equal texts are one object."""
    if isinstance(value, Mapping):
        return {_unshared(name): _unshared(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([_unshared(one) for one in value])
    return sys.intern(value) if isinstance(value, str) else value


def _joined(views: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return the squares of all views one after the other, `[views * n, d, c, c]`, and their masks."""
    return torch.cat([crops for crops, _ in views]), torch.cat([mask for _, mask in views])


def _cosine(step: int, steps: int) -> float:
    """Return 1 in the first step, 0 after the last, a half wave between."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))
