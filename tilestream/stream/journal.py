"""Receipts: what of an image is done, and who is doing the rest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tilestream.codecs.checksums import checksum
from tilestream.codecs.durable import PARTIAL_SUFFIX
from tilestream.codecs.place import Place
from tilestream.errors import OutputError
from tilestream.stream.leasefiles import lease_file
from tilestream.stream.leases import LEASE_S, Lease, alone, claim, clear_dead, is_held
from tilestream.stream.storageclock import storage_time_s
from tilestream.types import Receipt

RECIPE = "recipe.json"
LEDGER = "receipts.json"
SEAL = "checksum"
"""Key under which a file states the checksum of the rest of it: a file cut or edited by hand is not believed."""
UNITS = "[LT]*"
"""What the names of files of units match: keys begin with L, those of tokens with T."""
BEGIN, FINISH = "begin", "finish"
"""Keys of the leases on the two steps of an image that only one run may do at a time."""


@dataclass(frozen=True, kw_only=True)
class Journal:
    """The folder of one image's receipts; picklable, used by the starter and by all workers."""

    root: Place | Path | str
    """Folder owned by tilestream (`OUT/receipts/<relative path>`), on a disk or on object storage."""
    recipe: str
    """Digest of all that the outputs are a function of."""

    @property
    def place(self) -> Place:
        """Return the folder."""
        return Place.of(self.root)

    def open(
        self, document: Mapping[str, Any], *, replace: bool = False, begin: Callable[[], None] | None = None
    ) -> None:
        """Make the folder, or check that the one there was begun with the same recipe.

        Parameters
        ----------
        document : Mapping
            The recipe as JSON values, kept to show what differs.
        replace : bool
            Forget what an earlier run has done.
        begin : callable, optional
            Called when nothing is done yet, while no other run can begin here: clears what lies about.

        Raises
        ------
        OutputError
            When another recipe has begun here, another run is at work here that would be forgotten, or the folder
            cannot be written.
        """
        self.place.prepare()
        with self._sole():
            found = _load(self.place, RECIPE)
            if found is not None and replace:
                self._require_idle()
                self._forget()
                found = None
            if found is None:
                if begin is not None:
                    begin()
                found = self._begin(document)
            self._require_ours(found, document)

    def require_same(self, document: Mapping[str, Any]) -> None:
        """Raise `OutputError` where another recipe has begun here; for what takes long before `open`, which asks again.

        Parameters
        ----------
        document : Mapping
            The recipe as JSON values.
        """
        found = _load(self.place, RECIPE)
        if found is not None:
            self._require_ours(found, document)

    def _require_ours(self, found: Mapping[str, Any], document: Mapping[str, Any]) -> None:
        if found.get("digest") != self.recipe:
            raise OutputError.of(
                f"`{self.place.url}`",
                got=f"results of another recipe ({difference(found.get('recipe'), document)})",
                expected="results of this one",
                do="Choose another --out, or give --no-resume to compute them anew.",
            )

    def _begin(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Write the recipe; return the one that stands there, which is another's when that came first."""
        ours = {"digest": self.recipe, "recipe": dict(document)}
        if self.place.is_local:
            self.place.put(RECIPE, _json(ours))
        elif not self.place.create(RECIPE, _json(ours)):  # where a lease does not rule out that two begin (leasefiles)
            return _load(self.place, RECIPE) or ours
        return ours

    def receipts(self) -> dict[str, Receipt]:
        """Return the receipts of finished super-tiles by key; those of other recipes do not count."""
        # The single files first: another run that finishes meanwhile removes them, but only after the ledger is there.
        place = self.place
        single = [
            _receipt(_parsed(data, is_sealed=True)) for data in place.get_many(place.names(f"{UNITS}.json")).values()
        ]
        found = dict(_listed(place))
        found.update((receipt.key, receipt) for receipt in single if receipt is not None)
        return {key: receipt for key, receipt in found.items() if receipt.recipe == self.recipe}

    def receipt(self, key: str) -> Receipt | None:
        """Return the receipt of one super-tile, None when it is not done."""
        receipt = _receipt(_load(self.place, f"{key}.json")) or _listed(self.place).get(key)
        return receipt if receipt is not None and receipt.recipe == self.recipe else None

    def commit(self, receipt: Receipt) -> None:
        """Write a receipt; its outputs must be durable before."""
        self.place.put(f"{receipt.key}.json", _sealed(asdict(receipt)))

    def summary(self) -> dict[str, Any] | None:
        """Return what `close` kept, None when the image is not finished under this recipe."""
        ledger = _load(self.place, LEDGER)
        found = ledger.get("summary") if ledger is not None and ledger.get("digest") == self.recipe else None
        return found if isinstance(found, dict) else None

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
        self._write_ledger(ordered, summary)
        self.place.remove(*(f"{receipt.key}.json" for receipt in ordered))
        self._sweep()

    def reopen(self, lost: Iterable[str] = ()) -> None:
        """Take back that the image is finished, and the receipts of super-tiles whose outputs are lost.

        Parameters
        ----------
        lost : iterable of str
            Keys of super-tiles that have to be done again.
        """
        gone = frozenset(lost)
        if self.place.exists(LEDGER):
            kept = [receipt for key, receipt in _listed(self.place).items() if key not in gone]
            self._write_ledger(kept, None)
        self.place.remove(*(f"{key}.json" for key in gone))

    def claim(self, key: str) -> Lease | None:
        """Return a lease on a super-tile, or on a step of the image, None while another process holds one.

        Parameters
        ----------
        key : str
            Key of the super-tile, `BEGIN` or `FINISH`.

        Returns
        -------
        Lease or None
            To be used as a context manager; released at its end.
        """
        return claim(lease_file(self.place, f"{key}.lease"))

    def _sole(self) -> AbstractContextManager[None]:
        """Keep two runs from beginning the same image at once with different recipes; takes milliseconds."""
        return alone(lease_file(self.place, f"{BEGIN}.lease"))

    def _require_idle(self) -> None:
        for name in self.place.names("*.lease"):
            if name != f"{BEGIN}.lease" and is_held(lease_file(self.place, name)):
                raise OutputError.of(
                    f"`{self.place.url}`",
                    got="another run at work there",
                    expected="none, since its results are to be replaced",
                    do="Wait for it or stop it, then run the same command again.",
                )

    def _forget(self) -> None:
        """Remove the receipts and leases of an earlier run; nothing else is touched."""
        for pattern in (f"{UNITS}.json", f"{UNITS}.lease", f"{FINISH}.lease", LEDGER, RECIPE):
            self.place.remove(*self.place.names(pattern))

    def _write_ledger(self, receipts: Iterable[Receipt], summary: Mapping[str, Any] | None) -> None:
        document = {
            "digest": self.recipe,
            "receipts": [asdict(receipt) for receipt in receipts],
            "summary": None if summary is None else dict(summary),
        }
        self.place.put(LEDGER, _sealed(document))

    def _sweep(self) -> None:
        """Remove what killed processes have left: leases, and of writes what is old enough to be nobody's."""
        for name in self.place.names(
            f"{UNITS}.lease"
        ):  # of units that were done, so that nobody has asked for them again
            clear_dead(lease_file(self.place, name))
        for name in self.place.names(f".*{PARTIAL_SUFFIX}"):
            with suppress(OSError):
                modified_s = self.place.modified_s(name)
                if modified_s is not None and storage_time_s(self.place) - modified_s > LEASE_S:
                    self.place.remove(name)


def difference(old: object, new: object, *, most: int = 4, where: tuple[str, str] = ("there", "now")) -> str:
    """Return where two recipes differ, in words.

    Parameters
    ----------
    old, new : object
        JSON values: what lies there, what is wanted now.
    most : int
        Most differences named.
    where : tuple of str
        Words for the two.

    Returns
    -------
    str
        `plan.tile_px 256 there, 512 now; …`.
    """
    there, now = dict(_leaves(old)), dict(_leaves(json.loads(_json(new))))
    names = sorted(name for name in {*there, *now} if there.get(name) != now.get(name))
    first, second = where
    words = [f"{name} {_short(there.get(name))} {first}, {_short(now.get(name))} {second}" for name in names[:most]]
    rest = [f"{len(names) - most} more"] if len(names) > most else []
    return "; ".join(words + rest) or "made by another version"


def _leaves(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, item in value.items():
        yield from _leaves(item, f"{name}.{key}" if name else str(key))


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 28 else f"{text[:24]}…"


def _load(place: Place, name: str) -> dict[str, Any] | None:
    """Return a JSON object, None where there is none, or one whose checksum does not fit."""
    data = place.get(name)
    return None if data is None else _parsed(data, is_sealed=name != RECIPE)


def _parsed(data: bytes, *, is_sealed: bool) -> dict[str, Any] | None:
    try:
        loaded = json.loads(data)
    except ValueError:
        return None
    if not isinstance(loaded, dict):
        return None
    seal = loaded.pop(SEAL, None)
    return loaded if not is_sealed or seal == checksum(_json(loaded)) else None


def _listed(place: Place) -> Mapping[str, Receipt]:
    """Return the receipts in the ledger, kept while the file stays the same: workers ask for one at a time."""
    version = place.version(LEDGER)
    return {} if version is None else _ledger(place, version)


@lru_cache(maxsize=4)
def _ledger(place: Place, _version: str) -> Mapping[str, Receipt]:
    documents = (_load(place, LEDGER) or {}).get("receipts", [])
    receipts = [_receipt(document) for document in documents]
    return {receipt.key: receipt for receipt in receipts if receipt is not None}


def _receipt(document: Mapping[str, Any] | None) -> Receipt | None:
    """Return the receipt, None for what another version has written."""
    if document is None:
        return None
    fields = dict(document)
    for name in ("damaged", "failed"):
        fields[name] = {reason: tuple(rows) for reason, rows in fields.get(name, {}).items()}
    fields["scores"] = tuple(fields.get("scores", ()))
    try:
        return Receipt(**fields)
    except TypeError:
        return None


def _sealed(document: Mapping[str, Any]) -> bytes:
    plain = json.loads(_json(document))
    return _json({**plain, SEAL: checksum(_json(plain))})


def _json(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
