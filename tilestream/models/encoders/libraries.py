"""Libraries that build encoders, imported where they are used; an absent one is an error that says what to do."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from tilestream.errors import ConfigError

PACKAGES: Mapping[str, str] = {
    "timm": "timm",
    "transformers": "transformers",
    "open_clip": "open_clip_torch",
    "huggingface_hub": "huggingface_hub",
}
"""Name on the package index by name of the module."""


def import_library(module: str) -> Any:
    """Return a library.

    Parameters
    ----------
    module : str
        A key of `PACKAGES`.

    Returns
    -------
    module
        Imported.

    Raises
    ------
    ConfigError
        When it is not installed, or does not import.
    """
    package = PACKAGES[module]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module:
            raise _broken(module, error) from error
        raise ConfigError.of(
            f"library `{module}`",
            got="not installed",
            expected="what builds the encoder",
            do=f"pip install {package}, or pip install -e '.[encoders]' for all of them.",
        ) from error
    except (ImportError, RuntimeError, AttributeError) as error:  # a torchvision of another build raises each of these
        raise _broken(module, error) from error


def _broken(module: str, error: Exception) -> ConfigError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    do = f"Install it anew: pip install --upgrade {PACKAGES[module]}."
    if isinstance(error, ModuleNotFoundError) and error.name == "torch":
        do = "pip install -e '.[encoders]'."
    elif "torchvision" in reason:
        do = "Install the torchvision that belongs to this torch (same index, same build)."
    return ConfigError.of(
        f"library `{module}`",
        got=f"{type(error).__name__}: {reason}",
        expected="that it can be imported",
        do=do,
    )


def named_object(text: str, *, what: str) -> Any:
    """Return the object behind `module:name`.

    Parameters
    ----------
    text : str
        Module and name.
    what : str
        Whose it is, for messages.

    Returns
    -------
    object
        What is there.

    Raises
    ------
    ConfigError
        When it cannot be imported.
    """
    module, _, name = text.partition(":")
    try:
        found = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, RuntimeError, ValueError) as error:
        raise ConfigError.of(
            f"{what}: `{text}`",
            got=f"{type(error).__name__}: {error}",
            expected="a module that can be imported and a name in it",
            do=f"Install the package of `{module.partition('.')[0] or text}`.",
        ) from error
    return found


def built(make: Callable[..., Any], arguments: Mapping[str, Any], *, what: str) -> Any:
    """Return what a factory of a library makes.

    Parameters
    ----------
    make : callable
        The factory.
    arguments : Mapping
        Its keyword arguments; text `module:name` is replaced by the class or function of that name.
    what : str
        Whose it is, for messages.

    Returns
    -------
    object
        What it returned.

    Raises
    ------
    ConfigError
        With what it raised.
    """
    ready = {key: _object_of(value, what) for key, value in arguments.items()}
    try:
        return make(**ready)
    except (ImportError, RuntimeError, TypeError, ValueError, AssertionError, LookupError, AttributeError) as error:
        raise ConfigError.of(
            f"{what}, as it is built",
            got=f"{type(error).__name__}: {error}",
            expected="a network",
            do="Correct `model` or `arguments` of its record, or install the version of the library that has it.",
        ) from error


def _object_of(value: Any, what: str) -> Any:
    is_name = isinstance(value, str) and all(part.isidentifier() for part in value.replace(":", ".", 1).split("."))
    return named_object(value, what=what) if is_name and ":" in value else value


def takes(make: Callable[..., Any], argument: str) -> bool:
    """Return whether a callable has a parameter of a name."""
    return argument in inspect.signature(make).parameters
