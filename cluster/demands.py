"""What every process of a run must have in common with its starter, and where one falls short of it."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tilestream import __version__
from tilestream.codecs.place import Place
from tilestream.errors import ConfigError, TilestreamError
from tilestream.registry import STAGES, resolve, source_digest

PARTS: Mapping[str, int] = {"numpy": 1, "zarr": 1, "imagecodecs": 3, "distributed": 3}
"""How many parts of a version must agree. Decoders decide what pixels are; dask promises nothing between releases."""
PACKAGES = ("tilestream", "tilestream.kernels", "tilestream.pipelines", "tilestream.cluster")
"""Folders of code; in a checkout they do not lie in one another."""
MOST_INPUTS = 16
"""Files that are looked for, each in another folder: it is mounts that are missing, not files."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One thing in which a process differs from the starter."""

    got: str
    """What it has."""
    expected: str
    """What the starter has."""
    do: str
    """The remedy."""


@dataclass(frozen=True, kw_only=True)
class Demands:
    """What every worker of a run must have; small and picklable."""

    versions: Mapping[str, str]
    """Package → as much of its version as must agree."""
    code: str
    """Digest of the source of tilestream: between releases, versions say little."""
    stages: Mapping[str, str | None] = field(default_factory=dict)
    """`module:callable` or registered name → digest of its module's source."""
    inputs: Mapping[str, int | None] = field(default_factory=dict)
    """Path of a local input → its bytes, None for a folder."""
    out: Place | None = None
    """A folder of the run."""
    token: str = ""
    """Name of a file below `out` that this run has put there; it holds its own name."""

    @classmethod
    def here(
        cls, *, stages: Iterable[str] = (), inputs: Iterable[str] = (), out: Place | None = None, token: str = ""
    ) -> Demands:
        """Return what this process has.

        Parameters
        ----------
        stages : iterable of str
            Registered names, and `module:callable` of what the user brings.
        inputs : iterable of str
            Absolute paths and URLs; one a folder is looked for.
        out : Place, optional
            A folder of the run.
        token : str
            Name of a file that lies in it.

        Returns
        -------
        Demands
            To be compared on other processes.
        """
        return cls(
            versions=_versions(),
            code=code_digest(),
            stages={name: source_digest(name) if ":" in name else None for name in stages},
            inputs=_one_a_folder(inputs),
            out=out,
            token=token,
        )

    def differences(self) -> tuple[Difference, ...]:
        """Return where this process falls short, most telling first; empty when it can do the run's work."""
        found = self.differing_versions()
        if not found:  # code of another version may well lack what follows
            found = [*self._differing_stages(), *self._missing_inputs(), *self._other_folder()]
        return tuple(found)

    def differing_versions(self) -> list[Difference]:
        """Return the packages whose versions differ, and the code of tilestream."""
        here = _versions()
        do = "Use one environment, or one image, for all processes of a run."
        found = [
            Difference(got=f"{name} {here.get(name)}", expected=f"{name} {wanted}", do=do)
            for name, wanted in self.versions.items()
            if here.get(name) != wanted
        ]
        if not found and code_digest() != self.code:
            got = f"another state of tilestream {__version__} in {Path(__file__).parent}"
            found.append(Difference(got=got, expected="the code of the starter", do=f"{do} Restart workers after it."))
        return found

    def _differing_stages(self) -> list[Difference]:
        found = []
        for name, wanted in self.stages.items():
            do = "Put its module into the environment of the workers, or its folder into their PYTHONPATH."
            try:
                resolve(name, table=STAGES, group="tilestream.stages")
            except ConfigError as error:
                found.append(Difference(got=str(error), expected=f"`{name}`", do=do))
                continue
            if wanted != (source_digest(name) if ":" in name else None):
                module = importlib.util.find_spec(name.partition(":")[0])
                got = f"other code of `{name}` in {module.origin if module else 'no file'}"
                do = "Give all workers the same file, and restart those that have the old one."
                found.append(Difference(got=got, expected="the code of the starter", do=do))
        return found

    def _missing_inputs(self) -> list[Difference]:
        do = "Mount the inputs at the same path on every machine, or name them by URL."
        found = []
        for url, nbytes in self.inputs.items():
            path, size = Path(url), "a folder" if nbytes is None else f"{nbytes:,} bytes"
            if not path.exists():
                found.append(Difference(got=f"no `{url}`", expected=f"that input, {size}", do=do))
            elif _bytes(path) != nbytes:
                found.append(Difference(got=f"another `{url}`", expected=f"that input, {size}", do=do))
        return found

    def _other_folder(self) -> list[Difference]:
        if self.out is None or not self.token:
            return []
        try:
            held = self.out.get(self.token)
            got = f"another folder `{self.out.url}` than the starter's"
        except (TilestreamError, OSError) as error:
            held, got = None, f"`{self.out.url}`, which cannot be read: {error}"
        if held == self.token.encode():
            return []
        do = "Put --out on a file system that all machines mount at that path, or on object storage."
        return [Difference(got=got, expected="one folder for all", do=do)]


@cache
def code_digest() -> str:
    """Return the digest of tilestream's source files, the same however it is installed."""
    files: dict[str, Path] = {}
    for package in PACKAGES:
        found = importlib.util.find_spec(package)
        for folder in (found.submodule_search_locations or ()) if found is not None else ():
            prefix = package.replace(".", "/")
            files |= {f"{prefix}/{path.relative_to(folder).as_posix()}": path for path in Path(folder).rglob("*.py")}
    digest = hashlib.blake2b(digest_size=16)
    for name, path in sorted(files.items()):
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    found = {"python": f"{sys.version_info.major}.{sys.version_info.minor}", "tilestream": __version__}
    for name, parts in PARTS.items():
        try:
            found[name] = ".".join(version(name).split(".")[:parts])
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _one_a_folder(urls: Iterable[str]) -> dict[str, int | None]:
    found: dict[Path, str] = {}
    for url in urls:
        if "://" in url or Path(url).parent in found:
            continue
        for path in (url, url.rpartition("#")[0]):  # behind `#` stands a choice
            if path and Path(path).exists():
                found[Path(path).parent] = path
                break
        if len(found) == MOST_INPUTS:
            break
    return {path: _bytes(Path(path)) for path in found.values()}


def _bytes(path: Path) -> int | None:
    return None if path.is_dir() else path.stat().st_size
