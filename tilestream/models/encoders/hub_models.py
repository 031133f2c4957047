"""Encoders of torch.hub: what an entry point of a repository's `hubconf.py` makes, which is code that is run."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from tilestream.errors import ConfigError
from tilestream.models.encoders.libraries import built
from tilestream.models.encoders.record import EncoderRecord

HUBCONF = "hubconf.py"


def build(record: EncoderRecord, *, may_download: bool) -> Any:
    """Return what the entry point makes, without weights.

    Parameters
    ----------
    record : EncoderRecord
        Its `model` is `FOLDER:NAME`, or `OWNER/REPOSITORY:NAME` on GitHub.
    may_download : bool
        Whether the user has said that code may be fetched.

    Returns
    -------
    object
        A `torch.nn.Module`.

    Raises
    ------
    ConfigError
        When there is no such entry point, or it would have to be downloaded.
    """
    place, _, name = record.model.rpartition(":")
    is_local = (Path(place) / HUBCONF).is_file()
    if not place or not name or (not is_local and Path(place).is_absolute()):
        raise ConfigError.of(
            f"`hub:{record.model}`",
            got=f"no `{HUBCONF}` in `{place}`" if place else "no repository",
            expected="`hub:FOLDER:NAME` or `hub:OWNER/REPOSITORY:NAME`",
            do="Check the path of the clone.",
        )
    if not is_local and not may_download:
        raise ConfigError.of(
            f"`hub:{record.model}`",
            got="a repository that is not on this machine",
            expected="code that was fetched because the user said so",
            do="Clone it and give its folder, `hub:FOLDER:NAME`; or say `--weights download`, which also runs it.",
        )
    make = partial(_load, name, place, source="local" if is_local else "github")
    return built(make, record.arguments, what=f"`hub:{record.model}`")


def _load(name: str, place: str, *, source: str, **arguments: Any) -> Any:
    """Return what an entry point makes; told not to load weights where it knows how to be told."""
    import torch

    load = partial(torch.hub.load, place, name, source=source, trust_repo=True, skip_validation=True)
    try:
        return load(**{"pretrained": False, **arguments})
    except TypeError as error:
        if "pretrained" in arguments or "'pretrained'" not in str(error):
            raise
    return load(**arguments)
