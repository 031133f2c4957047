"""From a record to an encoder with weights: of a file, of a folder, or random because the user said so."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilestream.errors import ConfigError
from tilestream.models.encoders.download import fetched, is_download, pin
from tilestream.models.encoders.folders import weights_file
from tilestream.models.encoders.libraries import built, named_object, takes
from tilestream.models.encoders.record import EncoderRecord, record_of
from tilestream.registry import weights_digest

if TYPE_CHECKING:
    from torch import Tensor, nn

_one_at_a_time = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Whose weights an encoder gets; one of the two."""

    place: str | None = None
    """File or folder, or `download` with `@REVISION` behind it if wanted."""
    seed: int | None = None
    """Seed of random ones; a folder then gives the configuration only."""

    def require(self, record: EncoderRecord) -> None:
        """Raise `ConfigError` unless there are some: where they are published, and under which licence."""
        if self.seed is not None and self.place is not None and not Path(self.place).is_dir():
            raise ConfigError.of(
                f"weights of `{record.name}`",
                got="a file and a seed",
                expected="one of them",
                do="Leave --weights or --random-weights out.",
            )
        if self.place is None and self.seed is None:
            known = (
                record if record.source or record.library not in ("timm", "open_clip") else _with_facts(record, self)
            )
            raise ConfigError.of(
                f"weights of `{record.name}`",
                got="none",
                expected="a file of them, or a folder as the hub has it",
                do=f"{published(known)}Give them with --weights FILE, say `--weights download` if this machine may "
                "fetch them, or `--random-weights SEED` if the features need no meaning.",
            )

    def path(self, record: EncoderRecord) -> Path | None:
        """Return the file or folder on this machine, fetched if the user has said so; None where none was named."""
        if self.place is None:
            return None
        return fetched(record, self.place) if is_download(self.place) else Path(self.place)

    def folder(self, record: EncoderRecord) -> Path | None:
        """Return the folder that was named, which holds a configuration too; None where none was."""
        if self.may_download and record.library != "hf":  # of the others one file is fetched
            return None
        path = self.path(record)
        return path if path is not None and path.is_dir() else None

    @property
    def may_download(self) -> bool:
        """Return whether the user has said so."""
        return self.place is not None and is_download(self.place)


def published(record: EncoderRecord) -> str:
    """Return a sentence on where the weights of an encoder are published; nothing where that is not known."""
    page = record.source or (f"https://huggingface.co/{record.repository}" if record.repository else None)
    if page is None:
        return ""
    terms = "a licence that the page states" if record.licence is None else record.licence
    access = ", where access has to be asked for" if record.gated else ""
    return f"They are published at {page} under {terms}{access}. "


def pinned(record: EncoderRecord, weights: Weights) -> Weights:
    """Return weights that may be fetched with the revision that is there now; others as they are."""
    if weights.place is None or not weights.may_download:
        return weights
    known = _with_facts(record, Weights()) if record.library in ("timm", "open_clip") else record
    return replace(weights, place=pin(known, weights.place))


def complete(record: EncoderRecord, weights: Weights) -> EncoderRecord:
    """Return a record with what its library's own configuration says.

    Parameters
    ----------
    record : EncoderRecord
        As stated.
    weights : Weights
        A folder among them may hold the configuration.

    Returns
    -------
    EncoderRecord
        Complete.

    Raises
    ------
    ConfigError
        When the library is not there, does not know the model, or something that is needed is said nowhere.
    """
    known = _with_facts(record, weights)
    if not weights.may_download:  # nobody has said that a file is the one that the library would fetch
        known = replace(known, source=record.source, licence=record.licence)
    record = known
    lacking = [key for key in ("px", "mean", "std") if getattr(record, key) is None]
    if lacking:
        raise ConfigError.of(
            f"record of `{record.name}`",
            got=f"no {', '.join(f'`{key}`' for key in lacking)}, and nothing else says what",
            expected="the tiles and the scaling that it was trained with",
            do=f"{_in(record.note)}Write them into a JSON file ({_example(record)}) and name it: --encoder FILE.json.",
        )
    return record


def _in(note: str | None) -> str:
    return "" if note is None else f"{note} "


def _example(record: EncoderRecord) -> str:
    known = {**record.to_json(), "px": record.px or 224, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    return json.dumps({key: known[key] for key in ("name", "library", "model", "px", "mean", "std") if key in known})


def _with_facts(record: EncoderRecord, weights: Weights) -> EncoderRecord:
    """Return a record with what its library says where it is not stated."""
    return record.with_facts(_facts(record, weights))


def _facts(record: EncoderRecord, weights: Weights) -> Mapping[str, Any]:
    if record.library == "timm":
        from tilestream.models.encoders import timm_models

        return timm_models.facts(record, weights.folder(record))
    if record.library == "open_clip":
        from tilestream.models.encoders import openclip_models

        return openclip_models.facts(record, weights.folder(record))
    if record.library == "hf":
        from tilestream.models.encoders import transformers_models

        return transformers_models.facts(record, _model_folder(record, weights))
    if record.library == "hub":
        return _attributes(_network(record, weights))
    return {}


def _attributes(network: Any) -> dict[str, Any]:
    """Return what a network says of itself as timm's do, in `pretrained_cfg` or `default_cfg`."""
    config = getattr(network, "pretrained_cfg", None) or getattr(network, "default_cfg", None) or {}
    own = getattr(network, "contract", None)
    size = config.get("input_size") or (None, None)
    found = {"px": size[1], "mean": config.get("mean"), "std": config.get("std")}
    known = set(EncoderRecord.__dataclass_fields__)
    return {**found, **({key: value for key, value in own.items() if key in known} if isinstance(own, Mapping) else {})}


def _model_folder(record: EncoderRecord, weights: Weights) -> Path:
    """Return the folder in which a model of transformers lies."""
    path = weights.path(record)
    if path is None or not path.exists():
        raise ConfigError.of(
            f"encoder `hf:{record.model}`",
            got="no folder of it on this machine",
            expected="its configuration, which lies beside its weights",
            do=f"{published(record)}Download the repository and name the folder: --encoder hf:FOLDER, or "
            "--weights FOLDER.",
        )
    return path if path.is_dir() else path.parent


def digest_of(record: EncoderRecord, weights: Weights) -> str:
    """Return the digest of the weights, `random:SEED` for random ones."""
    path = weights.path(record)
    if path is None or weights.seed is not None:
        return f"random:{weights.seed}"
    found = weights_digest({"weights": str(path)})
    if found is None:
        raise ConfigError.of(
            f"weights of `{record.name}`",
            got=f"nothing in `{path}`",
            expected="a file of them, or a folder as the hub has it",
            do="Check the path.",
        )
    return found


def load(document: Mapping[str, Any], weights: Weights, *, digest: str | None = None) -> nn.Module:
    """Return the encoder that a record describes, once a process.

    Parameters
    ----------
    document : Mapping
        A complete record, as JSON values.
    weights : Weights
        Its weights.
    digest : str, optional
        What the weights' digest has to be.

    Returns
    -------
    torch.nn.Module
        `[n, c, h, w]` to `[n, d]`.

    Raises
    ------
    ConfigError
        When it cannot be built, or the weights are not there, have changed, or are not those of it.
    """
    record = record_of(document, what="the encoder's record")
    with _one_at_a_time:
        found = _require_digest(record, weights, digest)
        return _loaded(json.dumps(dict(document), sort_keys=True), weights, found)


@lru_cache(maxsize=8)
def _loaded(document: str, weights: Weights, digest: str) -> nn.Module:
    from tilestream.models.encoders.pooled import PooledEncoder

    record = record_of(json.loads(document), what="the encoder's record")
    network = _filled(record, weights)
    network = network.visual if record.library == "open_clip" else network
    if record.prefix_tokens is None:
        record = replace(record, prefix_tokens=int(getattr(network, "num_prefix_tokens", 1)))
    if record.call is None and record.library == "timm" and record.pooling != "model":
        record = replace(record, call="forward_features")
    return PooledEncoder(network, record)


def load_whole(document: Mapping[str, Any], weights: Weights, *, digest: str | None = None) -> Any:
    """Return the whole network that a record describes, all its towers, made anew.

    Parameters
    ----------
    document : Mapping
        A complete record, as JSON values.
    weights : Weights
        Its weights.
    digest : str, optional
        What the weights' digest has to be.

    Returns
    -------
    torch.nn.Module
        As its library makes it, in evaluation mode.

    Raises
    ------
    ConfigError
        When it cannot be built, or the weights are not there, have changed, or are not those of it.
    """
    record = record_of(document, what="the encoder's record")
    with _one_at_a_time:
        _require_digest(record, weights, digest)
        return _filled(record, weights).eval()


def _require_digest(record: EncoderRecord, weights: Weights, digest: str | None) -> str:
    found = digest_of(record, weights)
    if digest is not None and found != digest:
        raise ConfigError.of(
            f"weights of `{record.name}`",
            got=f"digest {found}",
            expected=f"digest {digest}, which the run began with",
            do="Put the same file in its place on every machine, or start again.",
        )
    return found


def _filled(record: EncoderRecord, weights: Weights) -> Any:
    """Return the network with its weights."""
    from tilestream.models.weights import load_weights, random_weights

    network, path = _network(record, weights), weights.path(record)
    if weights.seed is not None:
        random_weights(network, seed=weights.seed)
    elif record.library != "hf" and path is not None:
        file = weights_file(path, _names(record), model=record.name) if path.is_dir() else path
        load_weights(network, file, model=record.name, select=lambda found: _selected(found, record, network))
    return network


def _selected(found: Mapping[str, Tensor], record: EncoderRecord, network: Any) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint that are the encoder's, under its names, and those that its build gives."""
    from tilestream.models.encoders import timm_models

    dropped = timm_models.classifier(network) if record.library == "timm" else ()
    kept = {key.removeprefix(record.prefix): value for key, value in found.items() if key.startswith(record.prefix)}
    own = {key: value for key, value in network.state_dict().items() if record.fixed and key.startswith(record.fixed)}
    return {**{key: value for key, value in kept.items() if not (dropped and key.startswith(dropped))}, **own}


def _names(record: EncoderRecord) -> tuple[str, ...]:
    from tilestream.models.encoders import openclip_models, timm_models

    usual = openclip_models.FILES if record.library == "open_clip" else timm_models.FILES
    return usual if record.file is None else (record.file, *usual)


def _network(record: EncoderRecord, weights: Weights) -> Any:
    """Return the network as its library makes it."""
    if record.library == "timm":
        from tilestream.models.encoders import timm_models

        return timm_models.build(record, weights.folder(record))
    if record.library == "open_clip":
        from tilestream.models.encoders import openclip_models

        return openclip_models.build(record, weights.folder(record))
    if record.library == "hf":
        from tilestream.models.encoders import transformers_models

        return transformers_models.build(record, _model_folder(record, weights), is_random=weights.seed is not None)
    if record.library == "hub":
        from tilestream.models.encoders import hub_models

        return hub_models.build(record, may_download=weights.may_download)
    return _called(record, weights)


def _called(record: EncoderRecord, weights: Weights) -> Any:
    """Return what a function of another package makes."""
    if not record.model:
        raise ConfigError.of(
            f"encoder `{record.name}`",
            got="a network that tilestream does not build",
            expected="code that makes it",
            do=f"{_in(record.note)}Make it in a module of yours and name that: --encoder module:callable.",
        )
    make = named_object(record.model, what=f"encoder `{record.name}`")
    arguments = dict(record.arguments)
    path = weights.path(record)
    if path is not None and takes(make, "checkpoint_path"):
        arguments["checkpoint_path"] = str(path)
    made = built(make, arguments, what=f"`{record.name}`")
    return made if record.take is None else made[record.take]
