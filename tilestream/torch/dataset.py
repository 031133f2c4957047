"""The data set that training reads: plans of many images in, shuffled batches on the device out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from hashlib import blake2b
from typing import Any, get_args

import torch
from torch.utils.data import IterableDataset, get_worker_info

from tilestream.errors import ConfigError
from tilestream.sources.stamps import stamps_of
from tilestream.stream.supply import usable_cores
from tilestream.torch.feed import FeedSupply, Place, TileFeed
from tilestream.torch.order import Ends, EpochOrder, Share, UnitTable
from tilestream.torch.records import PlannedImage, TileBatch, labels_of
from tilestream.torch.sending import new_sender

FORMAT = 1
"""Version of a state; raised when the same state would mean other tiles."""
MOST_THREADS = 8


class TileDataset(IterableDataset[Any]):
    """Batches of tiles for training, read ahead by threads of this process; use it with `num_workers=0`.

    Parameters
    ----------
    images : sequence of PlannedImage
        Images with their plans and labels; all of one tile size, type and channels.
    batch : int
        Tiles in a batch.
    device : str or torch.device
        Where batches are wanted: `cpu`, or a CUDA device, to which pinned memory is copied beside the training.
    shuffle : bool
        Whether tiles come in another order each epoch; else as they lie in the images.
    seed : int
        What the order follows from, together with the epoch; the same on every rank.
    window : int
        Tiles that are shuffled among each other: super-tiles of all images in a chance order, so many tiles at a time.
        Memory is that of two windows and a few batches.
    ends : str
        What becomes of the tiles that do not make up full batches of equal number on all ranks. `drop`: they are not
        shown in this epoch. `pad`: some are shown twice, all at least once. `keep`: each is shown once; the last batch
        is smaller, and ranks may differ by a batch.
    rank, world_size : int, optional
        Which of how many processes this is; what `torch.distributed` says, where it was begun, else the only one.
    threads : int, optional
        Threads that decode; as many as there are cores, at most 8, by default.
    transform : callable, optional
        Applied to each `TileBatch` on the device; what it returns is what training gets. For random numbers that are
        the same after a resume, seed a generator with `batch.seed`.

    Notes
    -----
    Damaged tiles and tiles without a valid pixel are left out and counted (`left_out`). So that ranks still have equal
    numbers of full batches, tiles that were shown before take their place at the end of an epoch (`repeated`); with
    `keep` nothing does.

    Iterating again without `set_epoch` shows the same order again. `state_dict` says how far an epoch has gone, also
    between two batches; after `load_state_dict` the rest of it comes, the same to the bit. Both fit the
    `StatefulDataLoader` of torchdata. A `DataLoader` takes batches as they are with `batch_size=None`; its workers must
    be started by `spawn` or `forkserver`, since a forked process has the locks of threads that it does not have.

    Examples
    --------
    >>> images = [PlannedImage(pyramid=p, plan=ts.plan_tiles(p, mpp=0.5), label=1) for p in pyramids]  # doctest: +SKIP
    >>> feed = TileDataset(images, batch=64, device="cuda")  # doctest: +SKIP
    >>> for epoch in range(10):  # doctest: +SKIP
    ...     feed.set_epoch(epoch)
    ...     for batch in feed:
    ...         loss = criterion(model(batch.pixels / 255), batch.label)
    """

    def __init__(  # noqa: PLR0913 - the public call: each option is one keyword
        self,
        images: Sequence[PlannedImage],
        *,
        batch: int = 64,
        device: str | torch.device = "cpu",
        shuffle: bool = True,
        seed: int = 0,
        window: int = 512,
        ends: Ends = "drop",
        rank: int | None = None,
        world_size: int | None = None,
        threads: int | None = None,
        transform: Callable[[TileBatch], Any] | None = None,
    ) -> None:
        super().__init__()
        # a mask of the whole image is of no use here, and would travel to each worker
        self.images = tuple(replace(one, plan=replace(one.plan, selection=None)) for one in images)
        self._device = torch.device(device)
        self._supply = FeedSupply(
            images=self.images,
            labels=labels_of(self.images),
            stamps=tuple(stamps_of(one.pyramid.source) for one in self.images),
            threads=threads or min(MOST_THREADS, usable_cores()),
        )
        self._transform = transform
        _check(self.images, batch=batch, window=window, ends=ends, seed=seed)
        new_sender(self._device)
        self._order = EpochOrder(
            units=UnitTable.of([one.plan for one in self.images]),
            share=_share(rank, world_size),
            batch=batch,
            window=window,
            ends=ends,
            seed=seed if shuffle else None,
            epoch=0,
        )
        self._require_batches()
        self._place, self._placed_for = Place(), self._order.share
        self._feed: TileFeed | None = None
        self._pid = os.getpid()

    def __len__(self) -> int:
        """Return the batches of an epoch on this rank."""
        return self._order.batches

    def __repr__(self) -> str:
        """Return what an epoch shows, and what it does not."""
        order, tile_px = self._order, self.images[0].plan.grid.tile_px
        return (
            f"<TileDataset of {len(self.images)} images, {order.total:,} tiles of {tile_px} px: "
            f"rank {order.share.rank} of {order.share.ranks}, {order.batches:,} batches of {order.batch} an epoch; "
            f"ends={order.ends!r} leaves out {order.dropped:,} tiles>"
        )

    @property
    def epoch(self) -> int:
        """Return the number of the epoch."""
        return self._order.epoch

    @property
    def left_out(self) -> Mapping[str, int]:
        """Return how many tiles of this epoch were left out so far, by reason."""
        return dict(self._now.left_out)

    @property
    def repeated(self) -> int:
        """Return how many tiles of this epoch were shown a second time so far."""
        return self._now.repeated

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of another epoch; to be called before each pass, on every rank.

        Parameters
        ----------
        epoch : int
            Its number, from 0. That of a state that was loaded keeps its place.
        """
        if epoch < 0:
            raise ConfigError.of("`set_epoch`", got=epoch, expected="0 or more", do="Count epochs from 0.")
        if epoch != self._order.epoch:
            self._end()
            self._order = replace(self._order, epoch=epoch)
            self._place = Place()

    def __iter__(self) -> TileFeed:
        """Return the batches that are left of the epoch, all of them when it was shown whole or not begun."""
        if os.getpid() != self._pid:
            raise ConfigError.of(
                "`TileDataset`",
                got="a process that was forked from the one that it was made in",
                expected="no fork: threads do not survive it, and their locks stay closed for ever",
                do="Use `num_workers=0`, since it reads ahead by itself, or give the DataLoader "
                '`multiprocessing_context="spawn"` (or "forkserver").',
            )
        self._end()
        info = get_worker_info()
        if info is not None:
            share = replace(self._order.share, worker=info.id, workers=info.num_workers)
            self._order = replace(self._order, share=share)
        if self._place != Place() and self._placed_for != self._order.share:
            raise ConfigError.of(
                "state of a `TileDataset`",
                got=f"that of {self._placed_for}",
                expected=f"that of {self._order.share}",
                do="Go on with as many workers as when the state was taken; the state of each belongs to it "
                "(`StatefulDataLoader` of torchdata does so).",
            )
        place, self._place = self._place, Place()
        self._feed = TileFeed(self._supply, self._order, place, device=self._device, transform=self._transform)
        return self._feed

    def state_dict(self) -> dict[str, Any]:
        """Return how far the epoch has gone, as plain values."""
        return {
            "format": FORMAT,
            "epoch": self._order.epoch,
            "order": self._known_order(),
            "share": asdict(self._order.share),
            "place": asdict(self._now),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on at a place: the next iteration shows what is left of that epoch.

        Parameters
        ----------
        state : Mapping
            What `state_dict` returned, of the same data set on the same rank.

        Raises
        ------
        ConfigError
            When it is of another data set, order or rank, and would mean other tiles.
        """
        share = asdict(self._order.share)
        ours = {"format": FORMAT, "order": self._known_order(), "share": {**share, "worker": 0, "workers": 1}}
        there = {name: state.get(name) for name in ours}
        info = get_worker_info()
        if info is not None:
            ours["share"] = {**share, "worker": info.id, "workers": info.num_workers}
        differing = [name for name, value in ours.items() if there[name] != value]
        if differing:
            name = differing[0]
            raise ConfigError.of(
                "state of a `TileDataset`",
                got=f"{name} {there[name]}",
                expected=f"{name} {ours[name]}",
                do="Make the data set with the same images, options, ranks and workers as when the state was taken.",
            )
        self._end()
        self._order = replace(self._order, epoch=int(state["epoch"]))
        self._place = Place(**state["place"])
        self._placed_for = Share(**state["share"])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_feed": None}  # a copy has no threads yet, and begins the epoch

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._pid = os.getpid()

    @property
    def _now(self) -> Place:
        return self._place if self._feed is None else self._feed.place

    def _end(self) -> None:
        if self._feed is not None:
            self._feed.close()
            self._feed = None

    def _known_order(self) -> dict[str, Any]:
        """Return what decides, beside epoch and share, which tile is where."""
        order = self._order
        digest = blake2b("\0".join(one.plan.digest for one in self.images).encode(), digest_size=16)
        return {
            "plans": digest.hexdigest(),
            "seed": order.seed,
            "batch": order.batch,
            "window": order.window,
            "ends": order.ends,
        }

    def _require_batches(self) -> None:
        order = self._order
        if order.total < order.share.ranks or not order.batches:
            raise ConfigError.of(
                "tiles of the images",
                got=f"{order.total} for {order.share.ranks} ranks",
                expected=f"a batch of {order.batch} for each rank" if order.ends == "drop" else "one for each rank",
                do='Give more images or a smaller batch, or use ends="pad".',
            )


def _share(rank: int | None, world_size: int | None) -> Share:
    """Return whose tiles are meant."""
    if rank is None and world_size is None:
        distributed = torch.distributed
        if distributed.is_available() and distributed.is_initialized():
            return Share(rank=distributed.get_rank(), ranks=distributed.get_world_size())
        return Share()
    if rank is None or world_size is None or not 0 <= rank < world_size:
        raise ConfigError.of(
            "`rank`, `world_size`",
            got=f"{rank}, {world_size}",
            expected="both, or neither, and a rank from 0 to world_size - 1",
            do="Give what `torch.distributed` says.",
        )
    return Share(rank=rank, ranks=world_size)


def _check(images: Sequence[PlannedImage], *, batch: int, window: int, ends: str, seed: int) -> None:
    if not images:
        raise ConfigError.of("images", got="none", expected="at least one", do="Plan some: `ts.plan_tiles`.")
    if batch < 1 or window < batch or ends not in get_args(Ends) or seed < 0:
        raise ConfigError.of(
            "`TileDataset`",
            got=f"batch={batch}, window={window}, ends={ends!r}, seed={seed}",
            expected=f"batch of 1 or more, window of at least a batch, ends one of {get_args(Ends)}, seed of 0 or more",
            do="Correct it.",
        )
    kinds = [_kind(image) for image in images]
    for number, kind in enumerate(kinds):
        if kind != kinds[0]:
            raise ConfigError.of(
                f"image {number} (`{images[number].pyramid.address}`)",
                got=kind,
                expected=f"{kinds[0]}, as image 0",
                do="Plan all with one tile and halo, and choose the same channels: `pyramid.choose(bands=…)`.",
            )


def _kind(image: PlannedImage) -> str:
    grid, pyramid = image.plan.grid, image.pyramid
    names = ", ".join(channel.name for channel in pyramid.channels)
    return f"tiles of {grid.tile_px} px with a halo of {grid.halo_px} px, {pyramid.dtype} of {names}"
