"""Features of a cohort in the layouts of other projects: what `tilestream export` makes of feature stores."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tilestream.codecs.durable import durable_path, ensure_directory
from tilestream.codecs.place import Place
from tilestream.errors import ConfigError, OutputError, SourceError, TilestreamError
from tilestream.pipelines.exchange_form import LAYOUTS, STEMS, ExchangeOptions, Layout, Product, Products
from tilestream.pipelines.exchange_jobs import clam_products, trident_products
from tilestream.pipelines.exchange_sets import require_one_contract
from tilestream.pipelines.exchange_tables import (
    anndata_products,
    geojson_products,
    parquet_products,
    spatialdata_products,
)
from tilestream.pipelines.export import ExportOutcome, ExportRow, Listener, Status
from tilestream.pipelines.keys import is_remote
from tilestream.sinks.catalogue import find_stores
from tilestream.sinks.featureread import StoredFeatures
from tilestream.sinks.jobfiles import stem_of
from tilestream.sinks.storerecord import SUFFIX
from tilestream.stream.leasefiles import LocalLease
from tilestream.stream.leases import claim

MAKERS: Mapping[Layout, Callable[[StoredFeatures, ExchangeOptions], Products]] = {
    "trident": trident_products,
    "clam": clam_products,
    "anndata": anndata_products,
    "spatialdata": spatialdata_products,
    "geojson": geojson_products,
    "parquet": parquet_products,
    "geoparquet": parquet_products,
}
"""What makes the files of each layout."""


@dataclass(frozen=True, kw_only=True)
class ExchangeConfig:
    """What to make of the feature stores of a cohort."""

    out: Path
    """Folder of all outputs; made when it is not there."""
    options: ExchangeOptions
    """Layout and encoders."""
    resume: bool = True
    """Keep files of the same features and options that are there; False writes anew what this program has written."""


@dataclass(frozen=True, kw_only=True)
class Total:
    """What a run is about to write; told before it begins."""

    slides: int
    """Feature stores."""
    tiles: int
    """Tiles in them."""
    size_bytes: int
    """About how large the files become together."""


def exchange_config(
    *, out: str, to: str, encoders: Sequence[str] = (), value: str | None = None, resume: bool = True
) -> ExchangeConfig:
    """Return the configuration of a run, its options checked as far as one can without a store.

    Parameters
    ----------
    out, to, encoders, value, resume
        As in `ExchangeConfig` and `ExchangeOptions`.

    Returns
    -------
    ExchangeConfig
        The configuration.

    Raises
    ------
    ConfigError
        When there is no such layout, or the place is none for it.
    """
    layouts: dict[str, Layout] = {name: name for name in LAYOUTS}
    if to not in layouts:
        raise ConfigError.of("`--to`", got=repr(to), expected=f"one of {', '.join(layouts)}", do="Choose one.")
    if value is not None and to != "geojson":
        raise ConfigError.of(
            "`--value`",
            got=f"it together with --to {to}",
            expected="it for geojson, which has colours",
            do="Leave it out.",
        )
    options = ExchangeOptions(to=layouts[to], encoders=tuple(encoders), value=value)
    return ExchangeConfig(out=local_folder(out), options=options, resume=resume)


def local_folder(out: str) -> Path:
    """Return a folder of outputs on a disk.

    Parameters
    ----------
    out : str
        What a user has named.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ConfigError
        When it is a URL.
    """
    if is_remote(out):
        raise ConfigError.of(
            f"`{out}`",
            got="a URL",
            expected="a folder: features are exported to disks",
            do="Copy the files afterwards.",
        )
    return Place.of(out).path


def run_exchange(
    paths: Sequence[str],
    config: ExchangeConfig,
    *,
    on_total: Callable[[Total], None] = lambda total: None,
    on_progress: Listener = lambda key, share: None,
) -> ExportOutcome:
    """Write the features of a cohort in another layout.

    Parameters
    ----------
    paths : sequence of str
        Feature stores, and folders with some, such as the `--out` of `tilestream embed`.
    config : ExchangeConfig
        What to make of them.
    on_total : callable
        Hears of the size of it all before anything is written.
    on_progress : callable
        Hears of the share of a store that is done.

    Returns
    -------
    ExportOutcome
        A row a store; one that fails never stops the others.

    Raises
    ------
    ConfigError
        When there is no feature store, or TRIDENT's or CLAM's folders would mix vectors of two contracts.
    SourceError
        When a path is not there.
    OutputError
        When the folder cannot be written, or the disk has no room.
    """
    stores = find_features(paths)
    if config.options.to in STEMS:
        require_one_contract(stores, encoders=config.options.encoders, layout=config.options.to)
    clashes = _clashes(stores, config.options)
    planned = [_planned(store, config, clashes) for store in stores]
    ensure_directory(config.out)
    total = Total(
        slides=len(planned),
        tiles=sum(one.tiles for one in planned),
        size_bytes=sum(one.made.size_bytes for one in planned if one.made is not None),
    )
    on_total(total)
    _require_room(config.out, total, [one.made for one in planned if one.made is not None])
    return ExportOutcome(rows=tuple(_row(one, config, on_progress) for one in planned), ignored=(), unmatched=())


def find_features(paths: Sequence[str]) -> list[tuple[str, Path]]:
    """Return key and folder of each feature store under some paths.

    Parameters
    ----------
    paths : sequence of str
        Stores, and folders with some.

    Returns
    -------
    list of tuple
        In the order of the paths, each store once.

    Raises
    ------
    ConfigError
        When a path has none.
    SourceError
        When a path is not there.
    """
    if not paths:
        raise ConfigError.of("inputs", got="none", expected="feature stores, or a folder of them", do="Name one.")
    found: dict[Path, tuple[str, Path]] = {}
    for text in paths:
        path = Path(text.removeprefix("file://")).absolute()
        if not path.exists():
            raise SourceError.of(f"`{text}`", got="nothing there", expected="features of `embed`", do="Check the path.")
        if path.name.endswith(SUFFIX):
            stores = {path.name.removesuffix(SUFFIX): path}
        else:
            stores = {key: path / f"{key}{SUFFIX}" for key in (find_stores(path) if path.is_dir() else ())}
        if not stores:
            raise ConfigError.of(
                f"`{text}`",
                got="no feature store",
                expected=f"one named `<image>{SUFFIX}`, or a folder with some",
                do="Make them first: `tilestream embed IMAGES --out FOLDER`, then export that folder.",
            )
        for key, store in stores.items():
            found.setdefault(store.resolve(), (key, store))
    return list(found.values())


@dataclass(frozen=True, kw_only=True)
class _Planned:
    """One store with what is to be made of it."""

    key: str
    """Its key."""
    folder: Path
    """Where it lies."""
    tiles: int = 0
    """Tiles in it."""
    made: Products | None = None
    """None where nothing can be made."""
    reason: str = ""
    """Why not."""


def _clashes(stores: Sequence[tuple[str, Path]], options: ExchangeOptions) -> dict[str, str]:
    """Return what is wrong with each store whose outputs another one would write over, by key."""
    if options.to not in STEMS:
        names = Counter(key for key, _ in stores)
        return {
            key: str(
                ConfigError.of(
                    f"`{key}`",
                    got=f"{count} stores of that name, in several of the folders given",
                    expected="one",
                    do="Export the folders one at a time, each with its own --out.",
                )
            )
            for key, count in names.items()
            if count > 1
        }
    by_stem: dict[str, list[str]] = {}
    for key, _ in stores:
        by_stem.setdefault(stem_of(key).casefold(), []).append(key)
    return {
        key: str(
            ConfigError.of(
                f"`{key}`",
                got=f"the name `{stem_of(key)}`, which {others} has too",
                expected=f"names that differ, since {options.to} knows slides by file name alone",
                do="Export their folders (or single stores) one at a time, each with its own --out.",
            )
        )
        for keys in by_stem.values()
        for number, key in enumerate(keys)
        if (others := ", ".join(f"`{other}`" for at, other in enumerate(keys) if at != number))
    }


def _planned(store: tuple[str, Path], config: ExchangeConfig, clashes: dict[str, str]) -> _Planned:
    key, folder = store
    if key in clashes:
        return _Planned(key=key, folder=folder, reason=clashes[key])
    try:
        tiles = StoredFeatures.open(folder, key)
        return _Planned(key=key, folder=folder, tiles=len(tiles), made=MAKERS[config.options.to](tiles, config.options))
    except TilestreamError as error:
        return _Planned(key=key, folder=folder, reason=str(error))
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one store, the others go on
        return _Planned(key=key, folder=folder, reason=f"{type(error).__name__}: {error}")


def _require_room(out: Path, total: Total, made: Sequence[Products]) -> None:
    missing = [one for one in made if not all((out / file.name).exists() for file in one.files)]
    free, wanted = shutil.disk_usage(out).free, sum(one.size_bytes for one in missing)
    if free < wanted:
        raise OutputError.of(
            f"`{out}`",
            got=f"{free:,} bytes free",
            expected=f"about {wanted:,} for {total.tiles:,} tiles of {total.slides:,} slides",
            do="Free some space, choose another `--out`, or export fewer slides or encoders (--encoder).",
        )


def _row(one: _Planned, config: ExchangeConfig, on_progress: Listener) -> ExportRow:
    started = time.monotonic()
    row = ExportRow(path=one.key, url=str(one.folder), status="failed", reason=one.reason)
    if one.made is not None:
        try:
            row = _written(row, one.made, config, on_progress)
        except TilestreamError as error:
            row = replace(row, reason=str(error))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one store, the others go on
            row = replace(row, reason=f"{type(error).__name__}: {error}")
    return replace(row, seconds=time.monotonic() - started)


def _written(row: ExportRow, made: Products, config: ExchangeConfig, on_progress: Listener) -> ExportRow:
    kept, size = 0, 0
    for number, product in enumerate(made.files):
        on_progress(row.path, number / len(made.files))
        path = config.out / product.name
        with _writing_alone(path):
            if _is_kept(path, product, resume=config.resume):
                kept += 1
            elif product.is_store:
                product.write(path, replace=not config.resume)
            else:
                with durable_path(path) as temporary:
                    product.write(temporary)
        size += _size(path)
    status: Status = "kept" if made.files and kept == len(made.files) else "done"
    main = made.files[-1].name if made.files else None
    output = None if main is None else str(config.out / main)
    return replace(row, status=status, output=output, size_bytes=size, notes=made.notes)


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return sum(one.stat().st_size for one in files)


@contextmanager
def _writing_alone(path: Path) -> Iterator[None]:
    """Hold the lease of a file; its folder is made."""
    ensure_directory(path.parent)
    lease = claim(LocalLease(path=path.parent / f".{path.name}.lease"))
    if lease is None:
        raise OutputError.of(
            f"`{path}`", got="another process that is writing it", expected="one at a time", do="Wait for it to end."
        )
    with lease:
        yield


def _is_kept(path: Path, product: Product, *, resume: bool) -> bool:
    """Return whether a file that is there is the one wanted; raise `OutputError` when it must not be replaced."""
    if not path.exists() and not path.is_symlink():
        return False
    found = product.recipe_of(path)
    if found is None:
        raise OutputError.of(
            f"`{path}`",
            got="a file that `tilestream export` has not written",
            expected="nothing there, or a file of ours",
            do="Move it away, or choose another `--out`.",
        )
    if found != product.recipe and resume:
        raise OutputError.of(
            f"`{path}`",
            got="the file of other features, other options or another version of this program",
            expected="nothing there, or a file of the same",
            do="Choose another `--out`, or give `--no-resume` to replace it.",
        )
    return resume
