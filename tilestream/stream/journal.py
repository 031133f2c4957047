"""Receipts and leases: what of an image is done, and who is doing the rest."""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

import psutil

from tilestream.codecs.durable import write_durable
from tilestream.errors import OutputError
from tilestream.types import Receipt

LEASE_S = 60.0
"""A lease without a heartbeat for this long may be taken by anybody."""
HEARTBEAT_S = 10.0
"""How often a process touches the leases that it holds; a sixth of the limit rides out slow shared disks."""

RECIPE = "recipe.json"
LEDGER = "receipts.json"


@dataclass(frozen=True, kw_only=True)
class Journal:
    """The folder of one image's receipts; picklable, used by the starter and by all workers."""

    root: Path
    """Folder owned by tilestream (`OUT/receipts/<relative path>`)."""
    recipe: str
    """Digest of all that the outputs are a function of."""

    def open(self, document: Mapping[str, Any], *, replace: bool = False) -> None:
        """Make the folder, or check that the one there was begun with the same recipe.

        Parameters
        ----------
        document : Mapping
            The recipe as JSON values, kept to show what differs.
        replace : bool
            Forget what another recipe has done instead of refusing.

        Raises
        ------
        OutputError
            When another recipe has begun here, or the folder cannot be written.
        """
        found = self._read(RECIPE)
        if found is not None and found.get("digest") != self.recipe:
            if not replace:
                raise OutputError.of(
                    f"`{self.root}`",
                    got=f"results of another recipe ({_difference(found.get('recipe', {}), document)})",
                    expected="results of this one",
                    do="Choose another --out, or give --no-resume to compute them anew.",
                )
            self.forget()
        elif found is not None and replace:
            self.forget()
        if found is None or replace:
            try:
                self.root.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError.of(
                    f"`{self.root}`", got=str(error), expected="a folder that can be made", do="Choose another --out."
                ) from error
            write_durable(self.root / RECIPE, _json({"digest": self.recipe, "recipe": dict(document)}))

    def receipts(self) -> dict[str, Receipt]:
        """Return the receipts of finished super-tiles by key; those of other recipes do not count."""
        found: dict[str, Receipt] = {}
        ledger = self._read(LEDGER)
        documents = ledger["receipts"] if ledger is not None else []
        documents += [document for path in self.root.glob("L*.json") if (document := _load(path)) is not None]
        for document in documents:
            receipt = _receipt(document)
            if receipt.recipe == self.recipe:
                found[receipt.key] = receipt
        return found

    def receipt(self, key: str) -> Receipt | None:
        """Return the receipt of one super-tile, None when it is not done."""
        document = self._read(f"{key}.json")
        if document is None:
            return None
        receipt = _receipt(document)
        return receipt if receipt.recipe == self.recipe else None

    def commit(self, receipt: Receipt) -> None:
        """Write a receipt; its outputs must be on disk before."""
        write_durable(self.root / f"{receipt.key}.json", _json(asdict(receipt)))

    @property
    def is_finished(self) -> bool:
        """Return whether the image's final outputs were committed under this recipe."""
        ledger = self._read(LEDGER)
        return ledger is not None and ledger.get("digest") == self.recipe

    def summary(self) -> dict[str, Any] | None:
        """Return what `close` kept, None when the image is not finished."""
        ledger = self._read(LEDGER)
        return ledger["summary"] if ledger is not None and ledger.get("digest") == self.recipe else None

    def close(self, receipts: Iterable[Receipt], summary: Mapping[str, Any]) -> None:
        """Replace the receipts by one file that also says that the image is finished.

        Parameters
        ----------
        receipts : iterable of Receipt
            All of them.
        summary : Mapping
            JSON values that a later run shows without opening the image again.
        """
        ordered = sorted(receipts, key=lambda receipt: receipt.key)
        document = {"digest": self.recipe, "receipts": [asdict(r) for r in ordered], "summary": dict(summary)}
        write_durable(self.root / LEDGER, _json(document))
        for receipt in ordered:
            (self.root / f"{receipt.key}.json").unlink(missing_ok=True)

    def forget(self) -> None:
        """Remove the receipts and leases of an earlier run; nothing else is touched."""
        for pattern in ("L*.json", "L*.lease", LEDGER, RECIPE):
            for path in self.root.glob(pattern):
                path.unlink(missing_ok=True)

    def claim(self, key: str) -> Lease | None:
        """Return a lease on a super-tile, None while another process holds one.

        Parameters
        ----------
        key : str
            Key of the super-tile.

        Returns
        -------
        Lease or None
            To be used as a context manager; released at its end.
        """
        path = self.root / f"{key}.lease"
        for _ in range(2):
            try:
                descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            except FileExistsError:
                if not _expired(path):
                    return None
                # Two takers may both come here; the work is deterministic, so that doing it twice is harmless.
                path.unlink(missing_ok=True)
            else:
                with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                    json.dump(_owner(), stream)
                return Lease(path)
        return None

    def _read(self, name: str) -> dict[str, Any] | None:
        return _load(self.root / name)


class Lease:
    """A claim kept alive by heartbeat until the block ends.

    Parameters
    ----------
    path : Path
        The lease file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Lease:
        _heart().add(self._path)
        return self

    def __exit__(self, *_: object) -> None:
        _heart().remove(self._path)
        self._path.unlink(missing_ok=True)


class _Heart:
    """One daemon thread a process that touches the leases held there."""

    def __init__(self) -> None:
        self._held: set[Path] = set()
        self._lock = Lock()
        self._wake = Event()
        Thread(target=self._beat, name="tilestream-leases", daemon=True).start()

    def add(self, path: Path) -> None:
        with self._lock:
            self._held.add(path)

    def remove(self, path: Path) -> None:
        with self._lock:
            self._held.discard(path)

    def _beat(self) -> None:
        while not self._wake.wait(HEARTBEAT_S):
            with self._lock:
                held = list(self._held)
            for path in held:
                try:
                    os.utime(path)
                except OSError:
                    continue  # taken by another after a long pause of this machine: the work is done twice


def _heart() -> _Heart:
    return _heart_of(os.getpid())


@cache
def _heart_of(_: int) -> _Heart:
    return _Heart()  # one a process id: threads do not survive a fork


@cache
def _token(_: int) -> str:
    return uuid.uuid4().hex


def _owner() -> dict[str, Any]:
    process = psutil.Process()
    return {
        "host": socket.gethostname(),
        "pid": process.pid,
        "started": process.create_time(),
        "id": _token(process.pid),
    }


def _expired(path: Path) -> bool:
    try:
        age_s = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return True
    if age_s > LEASE_S:
        return True
    owner = _load(path)
    if owner is None or owner.get("host") != socket.gethostname():
        return False
    # On our own host we can see at once that the holder is gone, and need not wait for its heartbeat to stop.
    try:
        return bool(psutil.Process(owner["pid"]).create_time() != owner["started"])
    except psutil.NoSuchProcess:
        return True


def _load(path: Path) -> dict[str, Any] | None:
    try:
        loaded = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None  # not there, or a lease that its holder is just writing
    return loaded if isinstance(loaded, dict) else None


def _receipt(document: Mapping[str, Any]) -> Receipt:
    fields = dict(document)
    fields["damaged"] = {reason: tuple(rows) for reason, rows in fields.get("damaged", {}).items()}
    fields["scores"] = tuple(fields.get("scores", ()))
    return Receipt(**fields)


def _json(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _difference(old: object, new: object) -> str:
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return "unknown"
    names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    return "different: " + ", ".join(names[:6]) if names else "made by another version"
