"""Sources that refuse, stall and cut connections: the same bits in the end, and no tile that was not read."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
from distributed import Client

from tests.pipelines.faults.runs import UNITS, embed, stores
from tests.servers import RESET, SHORT, STALL, HttpServer, Request
from tilestream.codecs import retries
from tilestream.sources import fetching

TROUBLES = (503, None, RESET, None, SHORT, None, STALL, 429, None, None)
"""What happens to requests for bytes, again and again."""


def test_a_source_that_refuses_stalls_and_cuts_connections(
    http_server: HttpServer, client: Client, slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(fetching, "STALL_S", 0.5)
    numbers, hit = count(), set()

    def trouble(request: Request) -> int | None:
        found = TROUBLES[next(numbers) % len(TROUBLES)] if request.method == "GET" else None
        hit.add(found)
        return found

    for name, fault in (("troubled", trouble), ("calm", None)):
        (http_server.root / name).mkdir()  # another address, of which nothing is kept yet
        (http_server.root / name / "made.svs").write_bytes(slide.read_bytes())
        http_server.log.fault = fault
        (row,) = embed(client, [f"{http_server.url}/{name}/made.svs"], tmp_path / name, cache_bytes=0).rows
        assert (row.status, row.tiles_damaged, row.supertiles_computed) == ("done", 0, UNITS), row.reason
    assert hit == set(TROUBLES)
    assert stores(tmp_path / "calm")
    assert stores(tmp_path / "troubled") == stores(tmp_path / "calm")
