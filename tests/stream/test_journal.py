"""Receipts: what is believed, what is refused, what another run may do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilestream.errors import OutputError
from tilestream.stream.journal import FINISH, LEDGER, RECIPE, Journal, difference
from tilestream.types import Receipt


def receipt(key: str, recipe: str = "r") -> Receipt:
    return Receipt(key=key, recipe=recipe, outputs={f"part-{key}": "c"}, tiles=3, damaged={"why": (4, 5)})


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    made = Journal(root=tmp_path / "a" / "slide.svs", recipe="r")
    made.open({"plan": {"tile_px": 256}})
    for key in ("L0-y0-x0", "L0-y0-x1", "L0-y0-x2"):
        made.commit(receipt(key))
    return made


def test_receipts_come_back_as_they_were(journal: Journal) -> None:
    assert journal.receipts() == {key: receipt(key) for key in ("L0-y0-x0", "L0-y0-x1", "L0-y0-x2")}
    assert journal.receipt("L0-y0-x1") == receipt("L0-y0-x1")
    assert journal.receipt("L0-y9-x9") is None
    assert Journal(root=journal.root, recipe="other").receipts() == {}


def test_a_receipt_cut_at_any_byte_is_none(journal: Journal) -> None:
    path = journal.root / "L0-y0-x1.json"
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert journal.receipt("L0-y0-x1") is None
        assert sorted(journal.receipts()) == ["L0-y0-x0", "L0-y0-x2"]
    path.write_bytes(whole)
    assert len(journal.receipts()) == 3


@given(place=st.integers(0, 10**6), flip=st.integers(1, 255))
def test_a_receipt_with_a_flipped_bit_is_none_or_the_same(journal: Journal, place: int, flip: int) -> None:
    path = journal.root / "L0-y0-x1.json"
    whole = bytearray(path.read_bytes())
    before = bytes(whole)
    whole[place % len(whole)] ^= flip
    path.write_bytes(whole)
    assert journal.receipt("L0-y0-x1") in (None, receipt("L0-y0-x1"))
    path.write_bytes(before)


def test_a_ledger_cut_at_any_byte_means_that_nothing_is_done(journal: Journal) -> None:
    journal.close(journal.receipts().values(), {"tiles": 9})
    path = journal.root / LEDGER
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.unlink()  # a file of another inode, as any that takes its place
        path.write_bytes(whole[:size])
        assert journal.summary() is None
        assert journal.receipts() == {}
    path.write_bytes(whole)
    assert journal.summary() == {"tiles": 9}


def test_a_recipe_cut_at_any_byte_is_written_anew_and_costs_no_receipt(journal: Journal) -> None:
    path = journal.root / RECIPE
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        journal.open({"plan": {"tile_px": 256}})
        assert path.read_bytes() == whole
        assert len(journal.receipts()) == 3


@pytest.mark.parametrize(
    "change",
    [{"tiles": 4}, {"outputs": {}}, {"key": "L0-y0-x7"}, {"surprise": 1}, {"checksum": "0" * 32}, {"damaged": None}],
)
def test_an_edited_receipt_is_none(journal: Journal, change: dict[str, Any]) -> None:
    path = journal.root / "L0-y0-x1.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert journal.receipt("L0-y0-x1") is None
    assert len(journal.receipts()) == 2


def test_closing_leaves_one_file_that_still_answers(journal: Journal) -> None:
    before = journal.receipts()
    journal.close(before.values(), {"tiles": 9})
    assert sorted(path.name for path in journal.root.iterdir()) == [LEDGER, "recipe.json"]
    assert journal.receipts() == before
    # a run that was planned before the other one finished must not compute the unit once more
    assert journal.receipt("L0-y0-x2") == before["L0-y0-x2"]
    assert journal.summary() == {"tiles": 9}
    assert Journal(root=journal.root, recipe="other").summary() is None


def test_a_garbled_ledger_means_not_finished(journal: Journal) -> None:
    journal.close(journal.receipts().values(), {"tiles": 9})
    path = journal.root / LEDGER
    path.write_text(path.read_text().replace('"tiles":9', '"tiles":8'))
    assert journal.summary() is None
    assert journal.receipts() == {}


def test_reopening_keeps_what_is_not_lost(journal: Journal) -> None:
    journal.close(journal.receipts().values(), {"tiles": 9})
    journal.commit(receipt("L0-y0-x3"))
    journal.reopen(["L0-y0-x1", "L0-y0-x3"])
    assert journal.summary() is None
    assert sorted(journal.receipts()) == ["L0-y0-x0", "L0-y0-x2"]


def test_another_recipe_is_refused_by_what_differs(journal: Journal) -> None:
    other = Journal(root=journal.root, recipe="s")
    with pytest.raises(OutputError, match=r"plan\.tile_px 256 there, 512 now") as caught:
        other.open({"plan": {"tile_px": 512}})
    assert "--no-resume" in str(caught.value)
    assert len(journal.receipts()) == 3


@pytest.mark.parametrize("key", [FINISH, "L0-y0-x7"])
def test_what_a_living_run_works_on_is_not_replaced(journal: Journal, key: str) -> None:
    with journal.claim(key), pytest.raises(OutputError, match="another run at work"):
        journal.open({"plan": {"tile_px": 256}}, replace=True)
    assert len(journal.receipts()) == 3
    journal.open({"plan": {"tile_px": 256}}, replace=True)
    assert journal.receipts() == {}


def test_files_of_others_survive_a_new_beginning(journal: Journal) -> None:
    (journal.root / "notes.txt").write_text("precious")
    journal.open({}, replace=True)
    assert (journal.root / "notes.txt").read_text() == "precious"


def test_differences_in_words() -> None:
    old = {"image": {"fingerprint": "a" * 64}, "plan": {"tile_px": 1, "mpp": None}, "version": "1"}
    new = {"image": {"fingerprint": "b" * 64}, "plan": {"tile_px": 1, "mpp": 0.5}, "more": [1, 2]}
    words = difference(old, new)
    assert words.startswith('image.fingerprint "aaa')
    assert "plan.mpp null there, 0.5 now" in words
    assert "tile_px" not in words
    assert difference({str(n): n for n in range(9)}, {}).endswith("5 more")
    assert difference(None, {"a": 1})
    assert difference(old, old) == "made by another version"


def test_a_lease_that_a_killed_process_has_left_on_a_finished_unit_goes_with_the_receipts(journal: Journal) -> None:
    dead, alive = journal.place.path / "L0-y0-x0.lease", journal.place.path / "L0-y0-x1.lease"
    with journal.claim("L0-y0-x1"):
        owner = json.loads(alive.read_text())
        dead.write_text(json.dumps({**owner, "started": owner["started"] - 100}))
        journal.close(journal.receipts().values(), {})
        assert not dead.exists()
        assert alive.exists()
