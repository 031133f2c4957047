"""Keeps the index of a folder's feature stores when runs end, also several at once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tilestream.codecs.durable import explained
from tilestream.errors import OutputError
from tilestream.pipelines.cohort import Entry
from tilestream.sinks.catalogue import (
    INDEX,
    Catalogue,
    Given,
    Refreshed,
    read_catalogue,
    refresh,
    with_given,
    write_catalogue,
)
from tilestream.stream.leases import LEASE_S, claim

LEASE = f".{INDEX}.lease"
WAIT_S = 2 * LEASE_S
"""How long another run may take to write the index; one that died loses its lease before."""
LOOK_S = 0.05


def given_by(entries: Sequence[Entry]) -> dict[str, Given]:
    """Return what a manifest has said of inputs, by key.

    Parameters
    ----------
    entries : sequence of Entry
        Inputs of a run.

    Returns
    -------
    dict
        Inputs of which it said nothing are left out.
    """
    return {
        entry.key: Given(label=entry.label, id=None if entry.id == entry.key else entry.id, extra=dict(entry.extra))
        for entry in entries
        if entry.label is not None or entry.id != entry.key or entry.extra
    }


def save_index(
    root: Path,
    given: Mapping[str, Given] | None = None,
    *,
    seen: Catalogue | None = None,
    wait_s: float = WAIT_S,
) -> Refreshed:
    """Bring the index of a folder up to date and return what it says.

    Parameters
    ----------
    root : Path
        Folder of a run's outputs.
    given : Mapping, optional
        What a manifest says of inputs, by key; kept beside what other runs have said of others.
    seen : Catalogue, optional
        What was read from the stores a moment ago and need not be read again.
    wait_s : float
        How long to wait for another run that is just writing it.

    Returns
    -------
    Refreshed
        With the stores as they are now.

    Raises
    ------
    OutputError
        When it cannot be written, or another run holds it on and on.

    Notes
    -----
    Read, merged and written while no other run can, so that of several that end at once none loses what another wrote.
    """
    stop = time.monotonic() + wait_s
    while (lease := claim(root / LEASE)) is None:
        if time.monotonic() >= stop:
            raise OutputError.of(
                f"`{root / INDEX}`",
                got="another run that is writing it",
                expected="that it ends",
                do="Nothing is lost: `ts.open_cohort` looks at the stores, and the next run writes the index.",
            )
        time.sleep(LOOK_S)
    with lease:
        known = read_catalogue(root)
        with explained(root):
            fresh = refresh(root, known if seen is None else replace(seen, given=known.given))
        told = with_given(fresh.catalogue, given or {})
        if told.records != known.records or told.given != known.given:
            write_catalogue(root, told)
    return replace(fresh, catalogue=told)
