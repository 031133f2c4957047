"""The whitelist of facts: what passes, and that nothing which names a person, a day or a specimen does."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilestream.sources.technical import CHANNEL, KNOWN, kept, sort_out

SECRETS = (
    "Penelope", "GenLast^Penelope", "Dr. Müller", "JD", "12/29/09", "1953-04-01", "19530401", "01.04.53", "1.4.1953",
    "1953.4.1", "09:59:15", "b414003d-95c6-48b0-9369-8010ed517ba7", "S19-12345", "PN-1-692-287", "16340811", "CP1",
    "1.2.826.0.1.3680043.9.7433.3.1285751618484995114304451387728", "Aperio Image Library v11.2.1 by Penelope",
    "C9600-12 S/N 950291", "20 for Penelope", "AUTO JD", "sentinel-2a of Penelope", "JPEG, Müller", "v2 Penelope",
)  # fmt: skip
DATES = ("acquired",)
"""Names whose facts are days: products of satellites, never slides."""


@pytest.mark.parametrize("name", KNOWN)
def test_no_secret_passes(name):
    for secret in SECRETS:
        for value in (secret, [secret], {"illumination": secret}, [{"illumination": secret, "note": secret}]):
            if name in DATES and value == "1953-04-01":
                continue
            assert "1953" not in str(found := KNOWN[name](value))
            assert found is None


@given(
    value=st.text(min_size=3) | st.lists(st.text(min_size=3), min_size=1, max_size=3), name=st.sampled_from([*KNOWN])
)
def test_what_passes_is_json_and_no_longer_than_what_came(value, name):
    found = KNOWN[name](value)
    if found is not None:
        assert len(json.dumps(found)) <= len(json.dumps(value)) + 16


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("objective_power", "20", 20),
        ("objective_power", "0.5", 0.5),
        ("objective_power", "1e9", None),
        ("objective_power", "nan", None),
        ("objective_power", True, None),
        ("objective_na", 0.75, 0.75),
        ("vendor", "HAMAMATSU", "Hamamatsu"),
        ("model", "C9600-12", "C9600-12"),
        ("model", "Aperio GT450 DX", "Aperio GT450 DX"),
        ("model", "Leica SCN400;Leica SCN", "Leica SCN400;Leica SCN"),
        ("software", "NDP.scan 2.5.89", ["NDP.scan 2.5.89"]),
        ("software", ["1.0.51", "2026.7.14"], None),
        ("software", ["1.0.51", "4.2rc1"], ["1.0.51", "4.2rc1"]),
        ("software", "2026", None),
        ("lossy_ratio", ["12.5", 3], [12.5, 3]),
        ("acquired", "2020-02-19T11:07:49Z", "2020-02-19T11:07:49Z"),
        ("grid_square", "29RKH", "29RKH"),
        ("channels", [{"illumination": "Epifluorescence", "name": "x"}, {}], [{"illumination": "Epifluorescence"}, {}]),
    ],
)
def test_values(name, value, found):
    assert KNOWN[name](value) == found


def test_facts_that_do_not_pass_are_told_apart():
    found = [("Mag", "20"), ("Mag2", "40"), ("Who", "Penelope"), ("Gain", "Penelope")]
    technical, others = sort_out(found, {"Mag": "objective_power", "Mag2": "objective_power", "Gain": "gamma"})
    assert technical == {"objective_power": 20}  # of two the first counts
    assert others == {"Who": "Penelope", "Gain": "Penelope"}


def test_kept_facts_pass_again():
    facts = {"objective_power": 20, "patient": "Penelope", "vendor": "Penelope", "channels": [{"gain": 2, "who": "x"}]}
    once = kept(facts, KNOWN)
    assert once == {"objective_power": 20, "channels": [{"gain": 2}]}
    assert kept(once, KNOWN) == once
    assert set(CHANNEL) & set(once["channels"][0]) == {"gain"}
