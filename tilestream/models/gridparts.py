"""Region stages and aggregators by name, made once a process, and what they give as checked float32 vectors."""

from __future__ import annotations

import inspect
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError, StageError, TilestreamError
from tilestream.models.runners import is_module, one_torch_thread, to_numpy, torch_device
from tilestream.registry import AGGREGATORS, REGION_STAGES, resolve, weights_stamp
from tilestream.types import Array, RegionContract, StageSpec

Mask = npt.NDArray[np.bool_]

CONTRACTS: Mapping[str, RegionContract] = {
    # trained on grids of 14 x 14 cut out of 16 x 16, all of them there
    "vit4k": RegionContract(tiles=16, whole_regions=True, framework="torch"),
}
"""What region stages of our own were made for."""
WEIGHTS, SEED = "weights", "random_weights"
"""Parameters that every part that is a torch module has."""
_making = threading.RLock()


@dataclass(frozen=True, kw_only=True)
class PartKind:
    """A kind of step above the tiles."""

    word: str
    """What users call it."""
    option: str
    """Option that names one."""
    weights_option: str
    """Option that names its weights."""
    group: str
    """Entry-point group in which other packages register theirs."""

    @property
    def table(self) -> Mapping[str, str]:
        """Return those of our own by name."""
        return REGION_STAGES if self is REGION else AGGREGATORS


REGION = PartKind(
    word="region stage",
    option="--region-stage",
    weights_option="--weights-4k FILE",
    group="tilestream.region_stages",
)
SLIDE = PartKind(
    word="aggregator",
    option="--slide-stage",
    weights_option="--slide-stage NAME=FILE",
    group="tilestream.aggregators",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """A region stage or an aggregator in this process."""

    kind: PartKind
    """Which of them."""
    name: str
    """What the user calls it."""
    function: Callable[[Any, Any], Any]
    """What it is; a module is on the process's device and does not train."""
    contract: RegionContract
    """What it was made for."""

    def __call__(self, values: Array, mask: Mask) -> Array:
        """Return its vectors, `(n, d')` float32; values that are not finite are left as they are.

        Parameters
        ----------
        values : ndarray of float32
            Grids `(n, d, gh, gw)` or bags `(n, m, d)`.
        mask : ndarray of bool
            `(n, gh, gw)` or `(n, m)`, True where a vector counts.

        Returns
        -------
        ndarray of float32
            One vector each.

        Raises
        ------
        StageError
            When it raises, or gives something else. Want of memory and a lost device are raised as they are: they say
            nothing of the vectors.
        """
        try:
            found = self._on_torch(values, mask) if self.contract.framework == "torch" else self.function(values, mask)
            found = to_numpy(found)
        except Exception as error:
            if _is_of_the_machine(error):
                raise
            raise self._error(f"{type(error).__name__}: {error}", values) from error
        if found.ndim != 2 or len(found) != len(values) or not found.shape[1] or found.dtype.kind not in "fiub":
            raise self._error(f"{found.dtype} of shape {found.shape}", values)
        return np.ascontiguousarray(found, np.float32)

    def _on_torch(self, values: Array, mask: Mask) -> Any:
        import torch

        device = torch_device()
        sent = [torch.from_numpy(np.ascontiguousarray(each)).to(device) for each in (values, mask)]
        with torch.inference_mode(), one_torch_thread():
            return to_numpy(self.function(*sent))

    def _error(self, got: str, values: Array) -> StageError:
        return StageError.of(
            f"{self.kind.word} `{self.name}`",
            got=got,
            expected=f"{len(values)} vectors for {values.dtype} of shape {values.shape} and a mask",
            do=f"Choose one that takes vectors of {values.shape[1 if values.ndim == 4 else 2]} values.",
        )


def region_contract(spec: StageSpec) -> RegionContract:
    """Return what a region stage was made for, without making it where it says so itself.

    Parameters
    ----------
    spec : StageSpec
        Target and parameters.

    Returns
    -------
    RegionContract
        Nothing in particular where it says nothing.

    Raises
    ------
    ConfigError
        When there is no such stage, or what it says is not understood.
    """
    known = CONTRACTS.get(spec.target)
    return known or _contract(spec.target, resolve(spec.target, table=REGION_STAGES, group=REGION.group))


def make_part(kind: PartKind, spec: StageSpec, *, dim: int) -> Part:
    """Return the region stage or aggregator of a spec; made once a process and kept.

    Parameters
    ----------
    kind : PartKind
        Which of them.
    spec : StageSpec
        Target and parameters; `weights` is the path of a file, `random_weights` a seed.
    dim : int
        Length of the vectors that it takes, handed to what makes it where that has a parameter `dim`.

    Returns
    -------
    Part
        The same object for the same spec, until the file of the weights changes.

    Raises
    ------
    ConfigError
        When it cannot be made.
    """
    params = json.dumps(dict(spec.params), sort_keys=True)
    with _making:  # several images end at once
        return _made(kind, spec.target, params, weights_stamp(spec.params), dim)


@lru_cache(maxsize=16)
def _made(kind: PartKind, target: str, params: str, stamp: tuple[int, int] | None, dim: int) -> Part:
    del stamp  # a file that has changed is another part
    named = resolve(target, table=kind.table, group=kind.group)
    given: dict[str, Any] = json.loads(params)
    if not callable(named):
        raise _refused(kind, target, f"a {type(named).__name__}", "something that can be called")
    if _is_factory(named):
        function = _call(kind, target, named, given, dim)
    elif given:
        raise _refused(kind, target, f"parameters {sorted(given)}", "none, since it is the stage and not what makes it")
    else:
        function = named
    contract = CONTRACTS.get(target) or _contract(target, function if hasattr(function, "contract") else named)
    if is_module(function):
        function = function.eval().to(torch_device())
        contract = RegionContract(**{**asdict(contract), "framework": "torch"})
    return Part(kind=kind, name=target, function=function, contract=contract)


def _call(kind: PartKind, target: str, make: Callable[..., Any], given: dict[str, Any], dim: int) -> Any:
    """Return what a factory makes, with its weights."""
    takes = inspect.signature(make).parameters
    own = {key: given.pop(key) for key in (WEIGHTS, SEED) if key in given and key not in takes}
    if "dim" in takes:
        given = {"dim": dim, **given}
    try:
        with _same_chance():
            made = make(**given)
    except TilestreamError:
        raise
    except Exception as error:  # whatever a class of the user's raises
        raise _refused(kind, target, f"{type(error).__name__}: {error}", f"it to be made with {given}") from error
    if not callable(made):
        raise _refused(kind, target, f"a {type(made).__name__} from it", "something that can be called")
    loads_itself = target not in kind.table or WEIGHTS in takes
    if is_module(made) and (own or not (loads_itself or all(False for _ in made.parameters()))):
        _fill(kind, made, target, **own)
    elif own:
        raise _refused(kind, target, f"{sorted(own)}", "none of these: it is no torch module and has no such parameter")
    return made


@contextmanager
def _same_chance() -> Iterator[None]:
    """Have torch draw the same numbers in every process, for modules that come without weights of their own."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def _fill(
    kind: PartKind, module: Any, target: str, *, weights: str | None = None, random_weights: int | None = None
) -> None:
    from tilestream.models import weights as files

    if weights is not None:
        files.load_weights(module, Path(weights), model=target)
    elif random_weights is not None:
        files.random_weights(module, seed=random_weights)
    else:
        raise files.missing_weights(target, option=kind.weights_option)


def _is_factory(named: Callable[..., Any]) -> bool:
    """Return whether a callable makes the stage: a class, or a function that is not to be called with two arrays."""
    if isinstance(named, type):
        return True
    try:
        known = [p for p in inspect.signature(named).parameters.values() if p.kind is not p.VAR_KEYWORD]
    except (TypeError, ValueError):  # some of those written in C
        return False
    if is_module(named):
        return False
    positional = [p for p in known if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty]
    return len(positional) < 2 or positional[0].name == "dim"


def _contract(target: str, described: Any) -> RegionContract:
    own = getattr(described, "contract", None)
    if own is None or isinstance(own, RegionContract):
        return own or RegionContract()
    known = {field.name for field in fields(RegionContract)}
    if not isinstance(own, Mapping) or not known.issuperset(own):
        raise ConfigError.of(
            f"contract of `{target}`", got=repr(own), expected=f"fields among {sorted(known)}", do="Correct it."
        )
    return RegionContract(**own)


def _is_of_the_machine(error: BaseException) -> bool:
    """Return whether an exception speaks of memory or of a device, without importing torch."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError", "AcceleratorError"}) or "CUDA error" in str(error)


def _refused(kind: PartKind, target: str, got: str, expected: str) -> ConfigError:
    return ConfigError.of(f"{kind.word} `{target}`", got=got, expected=expected, do=f"Correct `{kind.option}`.")
