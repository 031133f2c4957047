"""The fields of a profile file by kind, and what each may hold."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dask.utils import parse_bytes

from tilestream.errors import ConfigError


@dataclass(frozen=True)
class _Holds:
    """What a field may hold."""

    words: str
    accepts: Callable[[Any], bool]


def _is_whole(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_scale(value: Any) -> bool:
    if not isinstance(value, dict):
        return _is_whole(value)
    # at least one worker: nothing is asked for before the first has come
    is_pair = set(value) == {"minimum", "maximum"} and all(map(_is_whole, value.values()))
    return is_pair and value["minimum"] <= value["maximum"]


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_text(key) and isinstance(item, str) for key, item in value.items())


def _is_size(value: Any) -> bool:
    try:
        return _is_text(value) and parse_bytes(value) > 0
    except ValueError:
        return False


def _is_devices(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_text(item) or type(item) is int for item in value)


def _is_volumes(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, dict) and set(item) == {"claim", "path"} and all(map(_is_text, item.values()))
        for item in value
    )


WHOLE = _Holds("a whole number above 0", _is_whole)
SECONDS = _Holds("seconds above 0", lambda value: type(value) in (int, float) and value > 0)
TEXT = _Holds("text (in quotes where it looks like a number or a time)", _is_text)
TEXTS = _Holds("a list of text", lambda value: isinstance(value, list) and all(map(_is_text, value)))
SWITCH = _Holds("true or false", lambda value: isinstance(value, bool))
TABLE = _Holds("names with text (numbers in quotes)", _is_table)
SCALE = _Holds("a number of workers, or `minimum` (1 or more) and `maximum`", _is_scale)
SIZE = _Holds("a size such as 32GiB", _is_size)
DEVICES = _Holds("a list of numbers or UUIDs of devices", _is_devices)
VOLUMES = _Holds("a list of `claim` and `path`", _is_volumes)

_SECURITY = {"tls_ca_file": TEXT, "tls_cert": TEXT, "tls_key": TEXT}

FIELDS: Mapping[str, Mapping[str, _Holds]] = {
    "threads": {"threads": WHOLE},
    "local": {"scale": SCALE, "threads": WHOLE, "environment": TABLE, "local_directory": TEXT},
    "gpus": {"devices": DEVICES, "threads": WHOLE, "environment": TABLE, "local_directory": TEXT},
    "address": {"address": TEXT, **_SECURITY},
    "scheduler-file": {"path": TEXT, **_SECURITY},
    "slurm": {
        "scale": SCALE,
        "cores": WHOLE,
        "memory": SIZE,
        "processes": WHOLE,
        "queue": TEXT,
        "account": TEXT,
        "walltime": TEXT,
        "interface": TEXT,
        "directives": TEXTS,
        "prologue": TEXTS,
        "environment": TABLE,
        "python": TEXT,
        "local_directory": TEXT,
        "log_directory": TEXT,
        "job_name": TEXT,
        "encrypt": SWITCH,
    },
    "kubernetes": {
        "scale": SCALE,
        "image": TEXT,
        "name": TEXT,
        "namespace": TEXT,
        "cores": WHOLE,
        "memory": SIZE,
        "gpus": WHOLE,
        "volumes": VOLUMES,
        "environment": TABLE,
        "pull_secret": TEXT,
    },
}
"""Field → what it holds, by kind. All kinds know `kind` and `wait_s` too."""

REQUIRED: Mapping[str, tuple[str, ...]] = {
    "address": ("address",),
    "scheduler-file": ("path",),
    "local": ("scale",),
    "slurm": ("cores", "memory", "scale"),
    "kubernetes": ("image", "scale"),
}


def check_fields(found: Mapping[str, Any], where: str) -> str:
    """Return the kind of a profile whose fields are all known and hold what they may.

    Parameters
    ----------
    found : Mapping
        As read.
    where : str
        Name of the file, for errors.

    Returns
    -------
    str
        Its kind.

    Raises
    ------
    ConfigError
        For the first field that is wrong.
    """
    kind = found.get("kind")
    if not isinstance(kind, str) or kind not in FIELDS:
        got = "no `kind`" if "kind" not in found else f"`{kind}`"
        raise _error(where, "kind", got, f"one of {', '.join(FIELDS)}", _near(str(kind), FIELDS))
    known = {"kind": TEXT, "wait_s": SECONDS, **FIELDS[kind]}
    for name, value in found.items():
        if name not in known:
            expected = f"fields of `{kind}` among {', '.join(sorted(known))}"
            raise _error(where, name, "an unknown field", expected, _near(name, known))
        if not known[name].accepts(value):
            got = f"{value!r} ({type(value).__name__})"
            raise _error(where, name, got, known[name].words, "Correct it.")
    missing = [name for name in REQUIRED.get(kind, ()) if name not in found]
    if missing:
        got = "nothing"
        raise _error(where, missing[0], got, known[missing[0]].words, f"A profile of kind `{kind}` has to say it.")
    return kind


def _near(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"Did you mean `{near[0]}`?" if near else "Correct or remove it."


def _error(where: str, name: str, got: str, expected: str, do: str) -> ConfigError:
    return ConfigError.of(f"`{name}` in `{where}`", got=got, expected=expected, do=do)
