"""Where a run works, as named on the command line: a word, an address or a file."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tilestream.cluster.fields import check_fields
from tilestream.cluster.profilefile import read_profile_file
from tilestream.errors import ConfigError

SHIPPED = ("slurm", "kubernetes")
"""Profiles that come as files in this folder."""
PROTOCOLS = ("tcp", "tls", "ws", "wss")
FILES = (".yaml", ".yml", ".toml", ".json")
PROFILES = (
    "`threads`, `threads:N`, `local:N`, `gpus`, `slurm`, `kubernetes`, `tcp://host:port`, or a profile (.yaml, .toml) "
    "or scheduler file (.json)"
)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Where to work; checked, nothing is started or asked yet."""

    given: str
    """As the user named it."""
    kind: str
    """`threads`, `local`, `gpus`, `address`, `scheduler-file`, `slurm` or `kubernetes`."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """What is said of it; those of its kind in `tilestream.cluster.fields`."""

    def get(self, name: str, default: Any = None) -> Any:
        """Return a field, or the default where nothing is said."""
        return self.fields.get(name, default)


def read_profile(given: str) -> Profile:
    """Return the profile that a user names.

    Parameters
    ----------
    given : str
        A word, an address or the path of a file.

    Returns
    -------
    Profile
        Checked.

    Raises
    ------
    ConfigError
        When it is not known, or its file is wrong.
    """
    word, colon, rest = given.partition(":")
    if word in PROTOCOLS and rest.startswith("//"):
        return Profile(given=given, kind="address", fields={"address": given})
    if given in SHIPPED:
        return _from_file(given, shipped_profile(given))
    if Path(given).suffix.lower() in FILES:
        return _from_file(given, Path(given))
    count = int(rest) if rest.isdigit() and int(rest) > 0 else None
    if word == "threads" and (count or not colon):
        return Profile(given=given, kind="threads", fields={} if count is None else {"threads": count})
    if word == "local" and count:
        return Profile(given=given, kind="local", fields={"scale": count})
    if given == "gpus":
        return Profile(given=given, kind="gpus")
    near = difflib.get_close_matches(word, ["threads", "local:2", "gpus", *SHIPPED], n=1)
    hint = f"Did you mean `{near[0]}`?" if near and near[0] != word else "Name one of these."
    raise ConfigError.of("`--cluster`", got=f"`{given}`", expected=PROFILES, do=hint)


def shipped_profile(name: str) -> Path:
    """Return the file of a profile that comes with tilestream.

    Parameters
    ----------
    name : str
        One of `SHIPPED`.

    Returns
    -------
    Path
        To be read or copied.
    """
    if name not in SHIPPED:
        raise ConfigError.of("profile", got=f"`{name}`", expected=" or ".join(SHIPPED), do="Name one of these.")
    return Path(__file__).with_name(f"{name}.yaml")


def _from_file(given: str, path: Path) -> Profile:
    if path.suffix.lower() == ".json":
        return Profile(given=given, kind="scheduler-file", fields={"path": str(path)})
    found = read_profile_file(path)
    kind = check_fields(found, str(path))
    return Profile(given=given, kind=kind, fields={key: value for key, value in found.items() if key != "kind"})
