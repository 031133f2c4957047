"""Names of pluggable parts and where they live; a part is imported when it is chosen, not before."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from tilestream.errors import ConfigError

STAGES: Mapping[str, str] = {
    "attention": "tilestream.models.attention_stage:attention",
    "callable": "tilestream.models.adapter:adapt",
    "encoder": "tilestream.models.encoders.stage:library_encoder",
    "entropy": "tilestream.models.information:information",
    "fpn-vit": "tilestream.models.tilestages:fpn_vit",
    "gradient": "tilestream.models.filters:gradient",
    "handcrafted": "tilestream.models.handcrafted:handcrafted",
    "hipt": "tilestream.models.ownstage:hipt",
    "local_entropy": "tilestream.models.filters:local_entropy",
    "mvit": "tilestream.models.tilestages:mvit",
    "query": "tilestream.models.headed:query",
    "scorer": "tilestream.models.scorerstage:scorer",
    "stain": "tilestream.models.filters:stain",
    "structure": "tilestream.models.filters:structure",
}
"""Encoders and stages of maps by name; others come as `module:callable` or through the entry-point group
`tilestream.stages`."""

REGION_STAGES: Mapping[str, str] = {
    "vit": "tilestream.models.regionstages:vit",
    "vit4k": "tilestream.models.hipt:vit4k",
    "windowed": "tilestream.models.regionstages:windowed",
}
"""Second stages of hierarchies by name; others come as `module:callable` or through the entry-point group
`tilestream.region_stages`."""

AGGREGATORS: Mapping[str, str] = {
    "abmil": "tilestream.models.aggregators:GatedAttention",
    "head": "tilestream.models.headstage:trained_head",
    "hipt": "tilestream.models.hipt:SlideTransformer",
    "mean": "tilestream.models.aggregators:MeanPool",
    "simlp": "tilestream.models.aggregators:MeanMLP",
    "transformer": "tilestream.models.aggregators:BagTransformer",
}
"""What makes one vector of a bag, by name; others come as `module:callable` or through the entry-point group
`tilestream.aggregators`."""

RELEVANCE_TERMS: Mapping[str, str] = {
    "entropy": "tilestream.relevance.information:Entropy",
    "gradient": "tilestream.relevance.gradient:Gradient",
    "itti": "tilestream.relevance.itti:CentreSurround",
    "residual": "tilestream.relevance.residual:SpectralResidual",
}
"""Terms of a relevance that need nothing but the image, by name; others come as `module:callable` or through the
entry-point group `tilestream.relevance_terms`."""

CODECS: Mapping[str, str] = {
    "fourier": "tilestream.codecs.fields.fourierfield:FourierField",
    "hash": "tilestream.codecs.fields.hashfield:HashField",
    "modulated": "tilestream.codecs.fields.modulatedfield:ModulatedField",
    "pyramid": "tilestream.codecs.pyramid.pyramidcodec:PyramidCodec",
    "shared": "tilestream.codecs.fields.sharedfield:SharedField",
    "siren": "tilestream.codecs.fields.sirenfield:SirenField",
}
"""What holds pixels as few bytes, by name; others come as `module:callable` or through the entry-point group
`tilestream.codecs`."""

_BLOCK_BYTES = 1 << 22
WEIGHTS = "weights", "weights_4k"
"""Parameters of a part that name a file or folder of weights."""

_in_use: dict[str, tuple[ModuleSpec | None, str | None]] = {}


def resolve(target: str, *, table: Mapping[str, str], group: str) -> Any:
    """Return the object behind a registered name, an entry point or `module:attribute`.

    Parameters
    ----------
    target : str
        Name or `module:attribute`.
    table : Mapping
        Built-in names.
    group : str
        Entry-point group in which other packages register theirs.

    Returns
    -------
    object
        The imported object.

    Raises
    ------
    ConfigError
        When nothing has the name or its import fails; the reason is in the message.
    """
    path = table.get(target)
    if path is None:
        path = next((entry.value for entry in entry_points(group=group) if entry.name == target), target)
    module, colon, attribute = path.partition(":")
    if not colon:
        raise unknown_name(target, sorted(table))
    try:
        found: Any = import_module(module)
        source_digest(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError.of(
            f"`{target}`",
            got=str(error),
            expected="a module that can be imported and an attribute in it",
            do="Install the package, or set PYTHONPATH to the folder of the module.",
        ) from error
    return found


def unknown_name(target: str, names: Sequence[str], *, hint: str = "") -> ConfigError:
    """Return the error for a name that nothing has.

    Parameters
    ----------
    target : str
        What was given.
    names : sequence of str
        What there is.
    hint : str
        What else may be meant, as a sentence.

    Returns
    -------
    ConfigError
        Names them all, and the one that was perhaps meant.
    """
    close = get_close_matches(target, names, n=1)
    meant = f"Did you mean `{close[0]}`? Else check" if close else "Check"
    return ConfigError.of(
        f"`{target}`",
        got="an unknown name",
        expected=f"one of {list(names)} or `module:callable`",
        do=f"{meant} the spelling, or give the module that holds it. {hint}".rstrip(),
    )


def source_digest(target: str) -> str | None:
    """Return the digest of the source behind `module:attribute`: an edited function is another one of the same name.

    Parameters
    ----------
    target : str
        `module:attribute`.

    Returns
    -------
    str or None
        32 hex digits of BLAKE2b of the module's file; None where it has none. For a module that this process has
        imported it is that of the file as it was first met, which an edit since then does not change, a reload does.
    """
    name = target.partition(":")[0]
    if name not in sys.modules:
        return _digest(importlib.util.find_spec(name))
    spec = sys.modules[name].__spec__
    known = _in_use.get(name)
    if known is None or known[0] is not spec:
        known = _in_use[name] = (spec, _digest(spec))
    return known[1]


def weights_stamp(params: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the state of the weights that a part is made with, so that a changed file is another part.

    Parameters
    ----------
    params : Mapping
        Parameters of the part; `weights` and `weights_4k` may be paths of files or folders.

    Returns
    -------
    tuple of int or None
        Time of the last change in nanoseconds and size in bytes; None where there is no such file.
    """
    found = [path.stat() for path in weights_files(params)]
    return (max(one.st_mtime_ns for one in found), sum(one.st_size for one in found)) if found else None


def weights_digest(params: Mapping[str, Any]) -> str | None:
    """Return the digest of the weights that a part is made with.

    Parameters
    ----------
    params : Mapping
        Parameters of the part; `weights`, or else `weights_4k`, may be the path of a file or folder.

    Returns
    -------
    str or None
        32 hex digits of BLAKE2b of what is in the file, or of all names and contents of a folder; None where there are
        no such files. They are read once a process and state.
    """
    stamp = weights_stamp(params)
    path = next((params[key] for key in WEIGHTS if params.get(key)), "")
    return None if stamp is None else _content_digest(str(path), stamp)


@lru_cache(maxsize=16)
def _content_digest(path: str, stamp: tuple[int, int]) -> str:
    del stamp  # a part of the key
    root, found = Path(path), hashlib.blake2b(digest_size=16)
    for file in weights_files({"weights": path}):
        if root.is_dir():
            found.update(file.relative_to(root).as_posix().encode())
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                found.update(block)
    return found.hexdigest()


def weights_files(params: Mapping[str, Any]) -> list[Path]:
    """Return the files of the weights that a part is made with, in the order of their names; none where it has none."""
    found: list[Path] = []
    for path in (params.get(key) for key in WEIGHTS):
        if isinstance(path, str) and path:
            root = Path(path)
            found += sorted(one for one in (root.rglob("*") if root.is_dir() else [root]) if one.is_file())
    return found


def _digest(spec: ModuleSpec | None) -> str | None:
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return None
    return hashlib.blake2b(Path(spec.origin).read_bytes(), digest_size=16).hexdigest()
