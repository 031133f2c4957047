"""The public names of `tilestream.codecs`: few, documented, and loaded when they are first used."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import tilestream as ts


def test_public_names_exist_and_are_documented() -> None:
    assert sorted(ts.codecs.__all__) == sorted(set(ts.codecs.__all__))
    assert set(ts.codecs.__all__) <= set(dir(ts.codecs))
    for name in ts.codecs.__all__:
        found = getattr(ts.codecs, name)
        assert found is getattr(ts.codecs, name)
        assert name.isupper() or (found.__doc__ or "").strip(), name


def test_an_unknown_name_is_told_what_there_is() -> None:
    with pytest.raises(AttributeError, match=r"`tilestream\.codecs` has no attribute `jpg`.*psnr"):
        _ = ts.codecs.jpg


def test_nothing_is_loaded_before_it_is_used() -> None:
    code = (
        "import json, sys, tilestream as ts; ts.codecs; a = sorted(sys.modules); ts.codecs.psnr; "
        "print(json.dumps([a, sorted(sys.modules)]))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    before, after = (set(modules) for modules in json.loads(told))
    heavy = {"numpy", "imagecodecs", "scipy", "torch", "numba", "zarr"}
    assert not heavy & before
    assert "tilestream.codecs.quality" in after - before
    assert not {"imagecodecs", "torch", "zarr"} & after
