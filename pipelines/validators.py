"""The validators of others for Zarr images: each runs where its package is installed, and says what it finds."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal, TypeAlias

import zarr
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore, LocalStore, WrapperStore

from tilestream.errors import SourceError
from tilestream.pipelines.geozarr_schemas import SCHEMAS, UUIDS
from tilestream.sources.files import File
from tilestream.sources.ngff import collection_of, read_node
from tilestream.sources.recognise import inside

Outcome: TypeAlias = Literal["valid", "invalid", "not applicable", "not installed"]

MOST_TEXT = 2000
"""Characters of one message of a validator that are kept."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one check says of an image."""

    check: str
    """What was looked at."""
    by: str
    """Package and version that looked."""
    outcome: Outcome
    """What it says."""
    problems: tuple[str, ...] = ()
    """Why it is invalid."""
    notes: tuple[str, ...] = ()
    """What a user should know."""


class NotApplicableError(Exception):
    """Raised by a validator for what it knows nothing of; the message says why."""


class SchemaValidationWarning(UserWarning):
    """What a schema recommends and does not ask for."""


@dataclass(frozen=True, kw_only=True)
class _Validator:
    check: str
    packages: tuple[str, ...]
    run: Callable[[File], list[str]]


def foreign_verdicts(root: File) -> list[Verdict]:
    """Return what the validators of others say of a Zarr store.

    Parameters
    ----------
    root : File
        Folder of the store.

    Returns
    -------
    list of Verdict
        One for each validator that is known, `not installed` for those that are not there.
    """
    return [_verdict(validator, root) for validator in _VALIDATORS]


def _verdict(validator: _Validator, root: File) -> Verdict:
    missing = [name for name in validator.packages if importlib.util.find_spec(name.replace("-", "_")) is None]
    if missing:
        note = f"pip install {' '.join(missing)}"
        return Verdict(check=validator.check, by=validator.packages[0], outcome="not installed", notes=(note,))
    by = f"{validator.packages[0]} {version(validator.packages[0])}"
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            problems = validator.run(root)
    except (NotApplicableError, SourceError) as error:  # metadata that we cannot read are reported as such already
        return Verdict(check=validator.check, by=by, outcome="not applicable", notes=(str(error),))
    except Exception as error:  # noqa: BLE001  each validator says "invalid" with errors of its own
        problems = [f"{type(error).__name__}: {error}"]
    notes = dict.fromkeys(_short(str(one.message)) for one in told if "ValidationWarning" in one.category.__name__)
    return Verdict(
        check=validator.check,
        by=by,
        outcome="invalid" if problems else "valid",
        problems=tuple(map(_short, problems)),
        notes=tuple(notes),
    )


def _short(text: str) -> str:
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]} …"


def _ome_version(root: File) -> str:
    """Return the version of OME-Zarr that the root states.

    Raises
    ------
    NotApplicableError
        When it states none.
    """
    node = read_node(root)
    attrs: Mapping[str, Any] = {} if node is None else node.attrs
    ome = attrs.get("ome")
    if isinstance(ome, Mapping):
        return str(ome.get("version"))
    first = attrs.get("multiscales") or [attrs.get("plate") or attrs.get("well") or {}]
    stated = first[0].get("version") if isinstance(first, list) and isinstance(first[0], Mapping) else None
    if stated is None:
        raise NotApplicableError("no OME metadata")
    return str(stated)


def _require_version(root: File, *known: str) -> str:
    stated = _ome_version(root)
    if stated not in known:
        raise NotApplicableError(f"OME-Zarr {stated}: it knows {' and '.join(known)}")
    return stated


def _yaozarrs(root: File) -> list[str]:
    from yaozarrs import open_group, validate_zarr_store

    _require_version(root, "0.4", "0.5")
    options = dict(root.options)
    if root.url.startswith("s3://"):
        options.setdefault("anon", False)  # which it would be
    validate_zarr_store(open_group(root.path if root.is_local else root.url, storage_options=options))
    return []


def _ome_zarr_models(root: File) -> list[str]:
    from ome_zarr_models import open_ome_zarr

    stated = _require_version(root, "0.4", "0.5")
    if root.is_local:
        store: Any = LocalStore(root.path, read_only=True)
    else:
        store = FsspecStore.from_url(root.url, storage_options=dict(root.options), read_only=True)
    store = _WithoutLabels(store)
    for path in ("", *(f"labels/{name}" for name in _label_names(root))):
        open_ome_zarr(zarr.open_group(store, path=path, mode="r", use_consolidated=False), version=stated)
    return []


class _WithoutLabels(WrapperStore[Any]):
    """A store without the list of its labels, so that each image is looked at by itself.

    Given the list, ome-zarr-models 1.7 and 1.8 look for the arrays of labels beside the groups of their levels only.
    """

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        return None if key == "labels/zarr.json" else await super().get(key, prototype, byte_range)


def _label_names(root: File) -> tuple[str, ...]:
    node = read_node(inside(root, "labels"))
    collection = collection_of(node) if node is not None else None
    return collection[1] if collection is not None else ()


def _ngff_schema(root: File) -> list[str]:
    from jsonschema import ValidationError
    from ngff_zarr.validate import validate

    stated = _ome_version(root)
    problems = []
    for path, attrs, model in _ome_groups(root):
        for strict in (False, True):
            try:
                validate(dict(attrs), version=stated, model=model, strict=strict)
            except ValidationError as error:
                at = "/".join(map(str, error.absolute_path))
                text = f"{path or '/'}: {at}: {error.message}"
                if not strict:
                    problems.append(text)
                    break
                warnings.warn(f"recommended: {text}", SchemaValidationWarning, stacklevel=1)
            except FileNotFoundError:
                pass  # a model without recommendations
            except ValueError as error:
                raise NotApplicableError(str(error)) from error
    return problems


def _ome_groups(root: File) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """Yield path, attributes and model of the groups that have a schema."""
    for path in ("", *(f"labels/{name}" for name in _label_names(root))):
        node = read_node(inside(root, path) if path else root)
        ome = {} if node is None else node.attrs.get("ome", node.attrs)
        for key, model in (("multiscales", "image"), ("image-label", "label"), ("plate", "plate"), ("well", "well")):
            if node is not None and key in ome:
                yield path, node.attrs, model


def _geozarr(root: File) -> list[str]:
    from jsonschema import Draft202012Validator

    node = read_node(root)
    attrs: Mapping[str, Any] = {} if node is None else node.attrs
    registered = attrs.get("zarr_conventions")
    if not isinstance(registered, list) or not registered:
        raise NotApplicableError("no `zarr_conventions`")
    found = {one.get("uuid") for one in registered if isinstance(one, Mapping)}
    problems = []
    for name, uuid in UUIDS.items():
        if uuid not in found:
            if any(key.startswith(f"{name}:") for key in attrs):
                problems.append(
                    f"attributes of `{name}:`, which `zarr_conventions` does not register by its UUID {uuid}"
                )
            continue
        own = {key: value for key, value in attrs.items() if key.partition(":")[0] == name}
        for error in Draft202012Validator(SCHEMAS[name]).iter_errors(own):
            at = "/".join(map(str, error.absolute_path))
            problems.append(f"{name}: {at}: {error.message}" if at else f"{name}: {error.message}")
    return problems


_VALIDATORS = (
    _Validator(check="OME-Zarr by yaozarrs", packages=("yaozarrs",), run=_yaozarrs),
    _Validator(check="OME-Zarr by ome-zarr-models", packages=("ome-zarr-models",), run=_ome_zarr_models),
    _Validator(check="NGFF JSON schema", packages=("ngff-zarr", "jsonschema"), run=_ngff_schema),
    _Validator(check="GeoZarr JSON schemas", packages=("jsonschema",), run=_geozarr),
)
