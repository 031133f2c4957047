"""A lease cut at any byte never locks anybody out for long, and nobody loses a living one."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tilestream.stream.leases import EMPTY_S, claim


def test_a_lease_cut_at_any_byte_is_waited_for_and_then_taken(tmp_path: Path) -> None:
    path = tmp_path / "L0-y0-x0.lease"
    lease = claim(path)
    assert lease is not None
    with lease:
        whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert claim(path) is None  # its holder may be just writing it
        old = time.time() - EMPTY_S - 1
        os.utime(path, (old, old))
        taken = claim(path)
        assert taken is not None, whole[:size]
        with taken:
            assert claim(path) is None
        assert not path.exists()
