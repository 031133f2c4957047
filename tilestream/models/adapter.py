"""Any callable `[n, c, h, w] -> [n, d]`, or `-> [n, k, h, w]`, as a stage: channels by name, a checked output.

It takes NumPy arrays, or torch tensors where its contract says `"framework": "torch"`, on the device of the process. A
callable that takes nothing, or a class, makes the encoder once a process: weights are then loaded where they are used.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.cache.device import DeviceKey, key_of
from tilestream.errors import ConfigError, StageError, TilestreamError
from tilestream.models.channels import channel_error, check_scaling, check_units, find_channels
from tilestream.models.dense import check_dense, checked_map
from tilestream.models.runners import HostRunner, Once, Runner, TorchRunner, is_module, torch_type
from tilestream.registry import resolve
from tilestream.types import Array, Batch, ImageInfo, Pending, StageContract, StageSpec

TARGET = "callable"
"""Registered name of the factory below."""

_FIELDS = frozenset(f.name for f in fields(StageContract))


@dataclass(frozen=True, kw_only=True)
class AdaptedStage:
    """A user's callable with its contract."""

    target: str
    """What users call it, such as `module:callable`."""
    made_by: StageSpec = field(repr=False, compare=False)
    """How workers make it, but for what an image adds."""
    function: Any = field(default=None, repr=False, compare=False)
    """What the target names: the callable, or what makes it; None where nobody asks for its attributes."""
    runner: Runner = field(repr=False, compare=False)
    """Calls it where it computes; used by several threads at once."""
    recorded: StageContract
    """What it expects and gives."""
    channels: tuple[int, ...] | None = None
    """Positions of its channels in a batch; None = all of them, in stored order."""

    @property
    def contract(self) -> StageContract:
        """Return what the callable expects and gives."""
        return self.recorded

    def for_image(self, image: ImageInfo) -> StageSpec:
        """Return how workers make the stage for one image.

        Parameters
        ----------
        image : ImageInfo
            Channels are looked up in it by name.

        Returns
        -------
        StageSpec
            JSON values only; part of the recipe.

        Raises
        ------
        StageError
            When the image has another number of channels, or lacks one that is named.
        """
        positions = find_channels(self.recorded, image)
        check_scaling(self.recorded, len(positions))
        check_units(self.recorded, image)
        return replace(self.made_by, params={**self.made_by.params, "positions": list(positions)})

    def output_names(self, image: ImageInfo) -> tuple[str, ...]:
        """Return a name for each value: the callable's own `output_names`, or its name and a number.

        Parameters
        ----------
        image : ImageInfo
            Where the contract states no length, one black tile of this image's type tells it.

        Returns
        -------
        tuple of str
            In the order of the vectors.
        """
        own = getattr(self.function, "output_names", None)
        if own is not None and not callable(own):
            return tuple(str(name) for name in own)
        dim = self.recorded.dim
        if dim is None:
            dim = _probe(self, len(image.channels), image.dtype.str)
        if self.recorded.output == "dense" and dim in (1, len(self.recorded.classes)):
            return self.recorded.classes if dim == len(self.recorded.classes) else (self.recorded.name,)
        return tuple(f"{self.recorded.name}_{k}" for k in range(dim))

    @property
    def device(self) -> str:
        """Return where it computes in this process."""
        return self.runner.device

    def allocate(self, nbytes: int) -> npt.NDArray[np.uint8]:
        """Return memory that batches are best decoded into."""
        return self.runner.allocate(nbytes)

    def __call__(self, batch: Batch) -> Array:
        """Return the vectors or maps of a batch.

        Parameters
        ----------
        batch : Batch
            Tiles with the image's channels; the callable sees the halo too, and 0 where nothing is valid.

        Returns
        -------
        ndarray
            `(n, d)` float32, or `(n, k, h / stride, w / stride)` of the callable's type; values that are not finite are
            left as they are.

        Raises
        ------
        StageError
            When the channels or the output do not match the contract.
        """
        return self.start(batch)()

    def load(self) -> None:
        """Make the callable now and keep it; raise what is wrong with it, such as with its weights."""
        self.runner.function()

    def start(self, batch: Batch) -> Pending:
        """Begin with a batch; what is returned waits for its result and raises as `__call__` does."""
        return self._start(batch.pixels, key_of(batch, self.channels))

    def _start(self, pixels: Array, key: DeviceKey | None = None) -> Pending:
        found = self.runner.start(self._chosen(pixels), key)
        return lambda: self._checked(found(), pixels.shape)

    def _chosen(self, pixels: Array) -> Array:
        name, contract = self.recorded.name, self.recorded
        if self.channels is not None:
            if max(self.channels) >= pixels.shape[1]:
                raise channel_error(name, f"{pixels.shape[1]} channels", f"at least {max(self.channels) + 1}")
            if self.channels != tuple(range(pixels.shape[1])):
                pixels = pixels[:, list(self.channels)]
        elif isinstance(contract.channels, int) and pixels.shape[1] != contract.channels:
            raise channel_error(name, f"{pixels.shape[1]} channels", f"{contract.channels}")
        elif isinstance(contract.channels, tuple):
            raise channel_error(name, "a stage that no image was chosen for", f"the positions of {contract.channels}")
        return pixels

    def _checked(self, found: Array, shape: tuple[int, ...]) -> Array:
        if self.recorded.output == "dense":
            return checked_map(found, shape, self.recorded)
        dim, tiles = self.recorded.dim, shape[0]
        matches = found.ndim == 2 and len(found) == tiles and dim in (None, found.shape[1])
        if not matches or found.dtype.kind not in "fiub":
            raise StageError.of(
                f"output of `{self.recorded.name}`",
                got=f"{found.dtype} of shape {found.shape}",
                expected=f"real numbers of shape ({tiles}, {'d' if dim is None else dim})",
                do="Return one vector a tile, as long as `dim` of the contract says.",
            )
        return np.ascontiguousarray(found, np.float32)


def adapt(target: str, positions: Sequence[int] | None = None, **contract: Any) -> AdaptedStage:
    """Return a user's callable as a stage.

    Parameters
    ----------
    target : str
        `module:callable`, which takes `(n, c, h, w)` and returns `(n, d)` of NumPy, or of anything that
        converts to it (a torch tensor on any device); a `torch.nn.Module`; or what makes one of these.
    positions : sequence of int, optional
        Positions of its channels in a batch, as `for_image` finds them.
    **contract
        Fields of `StageContract`; they overrule those of the callable's own attribute `contract`.

    Returns
    -------
    AdaptedStage
        Not yet bound to an image where channels go by name: call `for_image`.

    Raises
    ------
    ConfigError
        When the callable cannot be found or called, or no contract says the size of its tiles.
    StageError
        When mean or standard deviation do not belong to the channels.
    """
    named = resolve(target, table={}, group="tilestream.callables")
    if not callable(named):
        raise ConfigError.of(
            f"`{target}`",
            got=f"a {type(named).__name__}",
            expected="something that can be called with (n, c, h, w)",
            do="Name a function, or an instance with `__call__`.",
        )
    function: Callable[[], Any] = Once(named, target) if _is_factory(named) else lambda: named
    described = named if hasattr(named, "contract") else function()
    recorded = _contract_of(target, described, contract)
    made_by = StageSpec(target=TARGET, params={"target": target, **_to_json(recorded)})
    return adapted(target, function, recorded, made_by=made_by, positions=positions, described=described)


def adapted(
    target: str,
    make: Callable[[], Any],
    contract: StageContract,
    *,
    made_by: StageSpec,
    positions: Sequence[int] | None = None,
    described: Any = None,
) -> AdaptedStage:
    """Return a callable with its contract as a stage.

    Parameters
    ----------
    target : str
        What users call it.
    make : callable
        Returns the callable or `torch.nn.Module`; called where it is first used, and may be called again.
    contract : StageContract
        What it expects and gives.
    made_by : StageSpec
        How workers make the stage; its parameters get `positions` added.
    positions : sequence of int, optional
        Positions of its channels in a batch, as `for_image` finds them.
    described : object, optional
        Has `output_names` where the callable names its values itself.

    Returns
    -------
    AdaptedStage
        Not yet bound to an image where channels go by name: call `for_image`.

    Raises
    ------
    ConfigError
        When the contract names a framework or type that there is not.
    StageError
        When mean or standard deviation do not belong to the channels.
    """
    check_scaling(contract, None if positions is None else len(positions))
    _check_framework(contract, target)
    runner = TorchRunner(make, contract) if contract.is_model else HostRunner(make, contract)
    return AdaptedStage(
        target=target,
        made_by=made_by,
        function=described,
        runner=runner,
        recorded=contract,
        channels=None if positions is None else tuple(int(k) for k in positions),
    )


def _is_factory(named: Callable[..., Any]) -> bool:
    """Return whether a callable can only make the encoder: a class, or what cannot be called with samples."""
    try:
        signature = inspect.signature(named)
    except (TypeError, ValueError):  # some of those written in C
        return isinstance(named, type)
    if isinstance(named, type):
        return True
    try:
        signature.bind(None)
    except TypeError:
        return not any(p.default is p.empty and p.kind is not p.VAR_KEYWORD for p in signature.parameters.values())
    return False


def _check_framework(contract: StageContract, target: str) -> None:
    """Refuse a framework that is not known or not installed, and a type that torch does not have."""
    what, do = f"contract of `{target}`", "Correct the contract."
    if contract.framework not in ("numpy", "torch"):
        raise ConfigError.of(what, got=f"framework `{contract.framework}`", expected="`numpy` or `torch`", do=do)
    if not contract.is_model:
        return
    if importlib.util.find_spec("torch") is None:
        do = "pip install -e '.[torch]'."
        raise ConfigError.of(what, got="framework `torch`", expected="torch to be installed", do=do)
    if contract.dtype != "source":
        try:
            torch_type(contract.dtype)
        except AttributeError as error:
            raise ConfigError.of(what, got=str(error), expected="such as `float32` or `bfloat16`", do=do) from error


def _contract_of(target: str, function: Any, overrides: Mapping[str, Any]) -> StageContract:
    own = getattr(function, "contract", None)
    known: dict[str, Any] = {"name": target.rpartition(":")[2].replace(".", "_")}
    if isinstance(own, StageContract):
        known |= asdict(own)
    elif isinstance(own, Mapping):
        known |= own
    known |= overrides
    unknown = sorted(set(known) - _FIELDS)
    if unknown or "px" not in known:
        raise ConfigError.of(
            f"contract of `{target}`",
            got=f"unknown fields {unknown}" if unknown else "no `px`, the edge of its tiles",
            expected=f"fields among {sorted(_FIELDS)}, `px` at least",
            do='Set an attribute on it, such as `encode.contract = {"px": 256, "mpp": 0.5, "scale": 1 / 255}`; '
            'a stage of maps adds `"output": "dense"`.',
        )
    named = known.get("channels")
    if isinstance(named, Sequence) and not isinstance(named, str):
        known["channels"] = tuple(str(name) for name in named)
    known["classes"] = tuple(str(name) for name in known.get("classes") or ())
    if known.get("value_range") is not None:
        known["value_range"] = tuple(float(v) for v in known["value_range"])
    for key in ("mean", "std"):
        known[key] = tuple(float(v) for v in known.get(key) or ())
    if is_module(function):
        known.setdefault("framework", "torch")
    # An encoder that states its resolution gives wrong vectors at any other: only its own word makes it optional.
    known.setdefault("needs_mpp", known.get("mpp") is not None)
    contract = StageContract(**known)
    check_dense(contract)
    return contract


def _to_json(contract: StageContract) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(contract).items()}


@functools.lru_cache(maxsize=64)
def _probe(stage: AdaptedStage, channels: int, dtype: str) -> int:
    edge = stage.recorded.px
    free = replace(stage, recorded=replace(stage.recorded, dim=None))
    try:
        return int(free._start(np.zeros((1, channels, edge, edge), np.dtype(dtype)))().shape[1])
    except TilestreamError:
        raise
    except Exception as error:  # whatever a user's callable raises becomes one clear line
        is_dense = stage.recorded.output == "dense"
        what = "maps (n, k, y, x)" if is_dense else "vectors (n, d)"
        raise StageError.of(
            f"{'stage' if is_dense else 'encoder'} `{stage.target}`",
            got=f"{type(error).__name__}: {error}",
            expected=f"{what} for one black tile (1, {channels}, {edge}, {edge}) of {dtype}",
            do="Run it on such an array by itself.",
        ) from error
