"""The encoder that a user names, made for one image."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from distributed import Client

from tilestream.cluster.client import default_profile
from tilestream.errors import ConfigError, StageError
from tilestream.grid import TileGrid
from tilestream.models.encoders.names import is_library_encoder, library_spec
from tilestream.models.encoders.record import ready_records
from tilestream.pipelines.recipe import stage_recipe
from tilestream.registry import STAGES, unknown_name
from tilestream.stream.attempts import RunningStage, black_batch, vectors_of
from tilestream.stream.work import make_stage
from tilestream.types import ImageInfo, Output, StageContract, StageSpec

NOT_ALONE = "callable", "encoder", "query"
"""Registered stages that are none by their name alone."""


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A stage with what it says of itself on one image."""

    name: str
    """Name under which its vectors are stored."""
    spec: StageSpec
    """How workers make it."""
    contract: StageContract
    """What it expects."""
    outputs: tuple[str, ...]
    """Name of each value of a vector."""
    recipe: Mapping[str, Any]
    """Its part of the recipe."""

    @property
    def is_on_device(self) -> bool:
        """Return whether it computes on a device in this process."""
        return self._running.is_on_device

    @property
    def _running(self) -> RunningStage:
        accept = vectors_of(self.name, len(self.outputs))
        return RunningStage(name=self.name, stage=make_stage(self.spec), accept=accept)

    def require(self, image: ImageInfo, grid: TileGrid) -> None:
        """Raise unless the stage does one black tile of a plan: what fails on every tile fails before the first.

        Parameters
        ----------
        image : ImageInfo
            The image.
        grid : TileGrid
            Says how large tiles are.

        Raises
        ------
        StageError
            With what it raises, or what is wrong with its output.
        """
        edge_px, own_px = grid.tile_px + 2 * grid.halo_px, self.contract.px
        try:
            self._running.require(black_batch(image, tile_px=grid.tile_px, halo_px=grid.halo_px))
        except StageError as error:
            if edge_px == own_px:
                raise
            raise StageError.of(
                f"encoder `{self.name}` on tiles of {edge_px} px",
                got=str(error),
                expected=f"tiles of {own_px} px, as its contract says",
                do="Leave --tile and --halo out, or give tiles of that size.",
            ) from error


def choose_encoder(
    name: str, params: Mapping[str, Any], image: ImageInfo, *, tile_px: int | None = None, output: Output = "vector"
) -> Encoder:
    """Return the encoder for an image.

    Parameters
    ----------
    name : str
        As `encoder_spec` takes it.
    params : Mapping
        Its parameters; JSON values.
    image : ImageInfo
        The image, with the channels that it will see.
    tile_px : int, optional
        Tile edge for a callable that states none.
    output : {"vector", "dense"}
        What it has to give.

    Returns
    -------
    Encoder
        Ready to be planned with.

    Raises
    ------
    ConfigError
        When there is no such encoder, or it gives something else.
    StageError
        When it does not take the image's channels.
    """
    given = make_stage(encoder_spec(name, params, tile_px=tile_px))
    require_output(given.contract, output)
    spec = given.for_image(image)
    stage = make_stage(spec)
    return Encoder(
        name=stage.contract.name,
        spec=spec,
        contract=stage.contract,
        outputs=stage.output_names(image),
        recipe=stage_recipe(spec, stage.contract, source=name if spec.target == "callable" else None),
    )


def encoder_spec(name: str, params: Mapping[str, Any], *, tile_px: int | None = None) -> StageSpec:
    """Return how an encoder is made before an image is known.

    Parameters
    ----------
    name : str
        Registered name; `timm:NAME`, `hf:FOLDER`, `open_clip:NAME`, `hub:REPO:NAME`, the name of a ready encoder or a
        JSON file that describes one; or `module:callable`, which goes through the adapter.
    params : Mapping
        Its parameters.
    tile_px : int, optional
        Tile edge for a callable that states none.

    Returns
    -------
    StageSpec
        The spec.

    Raises
    ------
    ConfigError
        When it is a callable itself, or its parameters are no JSON values: neither is a thing that other processes can
        make again.
    """
    if not isinstance(name, str):
        raise ConfigError.of(
            "stage",
            got=f"a {type(name).__name__}",
            expected="a registered name, `module:callable` or a StageSpec",
            do="Put it into a module, and name it: workers are other processes, and a recipe names it too.",
        )
    require_json(name, params)
    if is_library_encoder(name):
        return library_spec(name, params)
    if ":" not in name:
        require_registered(name)
        return StageSpec(target=name, params=dict(params))
    px = {} if tile_px is None else {"px": tile_px}
    return StageSpec(target="callable", params={"target": name, **px, **params})


def require_registered(name: str) -> None:
    """Raise `ConfigError` with all that there are where a name is none of an encoder or stage."""
    others = [entry.name for entry in entry_points(group="tilestream.stages")]
    if name not in STAGES and name not in others:
        made = {known for known in STAGES if known not in NOT_ALONE}  # which are none by themselves
        raise unknown_name(name, sorted({*made, *others, *ready_records()}))


def require_known(name: str, output: Output) -> None:
    """Raise `ConfigError` with the names of one kind of stage where a name is none that is registered.

    Parameters
    ----------
    name : str
        Registered name, or `module:callable`.
    output : {"vector", "dense"}
        What it has to give.
    """
    others = [entry.name for entry in entry_points(group="tilestream.stages")]
    if ":" in name or name in (*STAGES, *others):
        return
    raise unknown_name(name, [known for known in sorted(STAGES) if _gives(known, output)])


def _gives(name: str, output: Output) -> bool:
    """Return whether a registered name is a stage of a kind as it is; it is not where it needs more than its name."""
    if name in NOT_ALONE:
        return False
    try:
        return make_stage(StageSpec(target=name)).contract.output == output
    except ConfigError:  # weights
        return False


def require_output(contract: StageContract, output: Output) -> None:
    """Raise `ConfigError` unless a stage gives vectors where they are wanted, and maps where those are."""
    if contract.output == output:
        return
    words = {"vector": "a vector a tile", "dense": "a map a tile"}
    raise ConfigError.of(
        f"stage `{contract.name}`",
        got=f"{words[contract.output]} (`output` of its contract)",
        expected=words[output],
        do="Run it with `tilestream map --stage`."
        if output == "vector"
        else 'Run it with `tilestream embed --encoder`; if it gives maps, add `"output": "dense"` to its contract.',
    )


def profile_for(*specs: StageSpec) -> str:
    """Return the cluster profile of a run that names none.

    Parameters
    ----------
    *specs : StageSpec
        Its models.

    Returns
    -------
    str
        `gpus` where one of them is on torch and a device is visible, else `threads`.
    """
    return default_profile(is_for_device=any(make_stage(spec).contract.framework == "torch" for spec in specs))


def load_here(client: Client, specs: Iterable[StageSpec]) -> None:
    """Load the models of a run before its first image where this process is the one that runs them.

    Parameters
    ----------
    client : distributed.Client
        Where it runs.
    specs : iterable of StageSpec
        Its encoders.

    Raises
    ------
    ConfigError
        With what is wrong with a model or its weights: else each image would say it again.
    """
    if not str(client.scheduler_info()["address"]).startswith("inproc://"):
        return
    for spec in specs:
        load = getattr(make_stage(spec), "load", None)
        if load is not None and spec.target != "callable":  # a user's own may be meant to be made on a worker
            load()


def require_json(name: str, params: Mapping[str, Any]) -> None:
    """Refuse parameters of a stage that cannot be written down.

    Parameters
    ----------
    name : str
        The stage.
    params : Mapping
        Its parameters.

    Raises
    ------
    ConfigError
        When they are no JSON values.
    """
    try:
        json.dumps(dict(params))
    except (TypeError, ValueError) as error:
        raise ConfigError.of(
            f"parameters of `{name}`",
            got=str(error),
            expected="numbers, text, and lists and mappings of these",
            do="Make what is more than that inside the module of the stage.",
        ) from error
