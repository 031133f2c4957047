"""The folder of a training: one process at a time, and one recipe."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tilestream.codecs.checksums import checksum
from tilestream.codecs.durable import ensure_directory, explained, read_if_there, write_durable
from tilestream.codecs.metadata import encode_json
from tilestream.errors import ConfigError
from tilestream.stream.leases import claim

LEASE = ".training.lease"
RECIPE = "recipe.json"


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Hold a folder for a training, made where it is not there.

    Parameters
    ----------
    out : Path
        The folder.

    Yields
    ------
    None
        Nothing.

    Raises
    ------
    ConfigError
        When another process trains there.
    OutputError
        When it cannot be written.
    """
    ensure_directory(out)
    lease = claim(out / LEASE)
    if lease is None:
        raise ConfigError.of(
            f"`{out}`",
            got="another process that trains there",
            expected="one",
            do="Wait for it, or take another --out.",
        )
    with lease:
        yield


@contextmanager
def claimed(out: Path, recipe: dict[str, Any], *, resume: bool) -> Iterator[str]:
    """Hold a folder for the training of a recipe.

    Parameters
    ----------
    out : Path
        The folder.
    recipe : dict
        All that the results follow from; JSON values, the options of the training under `settings`.
    resume : bool
        Whether an earlier run is gone on with; otherwise its state is removed.

    Yields
    ------
    str
        Digest of the recipe.

    Raises
    ------
    ConfigError
        When another process trains there, or the folder holds another training.
    OutputError
        When it cannot be written.
    """
    state = out / "state"
    with held(out):
        if not resume and state.is_dir():
            with explained(state):
                shutil.rmtree(state)
        text = encode_json(recipe)
        known = read_if_there(state / RECIPE)
        if known is not None and known != text:
            raise ConfigError.of(
                f"`{out}`",
                got=f"another training: {_difference(known, recipe)}",
                expected="the same slides, labels and options",
                do="Take another --out, or --no-resume to train anew there.",
            )
        write_durable(state / RECIPE, text)
        yield checksum(text)


def _difference(known: bytes, recipe: dict[str, Any]) -> str:
    """Return what differs between two recipes, for a message."""
    try:
        before: dict[str, Any] = json.loads(known)
        old, new = (
            {**{k: v for k, v in one.items() if k != "settings"}, **one["settings"]} for one in (before, recipe)
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return "of an unknown kind"
    names = [name for name in new if json.dumps(old.get(name), sort_keys=True) != json.dumps(new[name], sort_keys=True)]
    short = [
        f"{name} {old.get(name)} there, {new[name]} here" if not isinstance(new[name], list | dict) else name
        for name in names
    ]
    return "; ".join(short) or "of an unknown kind"
