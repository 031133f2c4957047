"""The commands on good input: what they print where, and their exit codes."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.told import told
from tilestream import __version__

HEAVY = ("numba", "distributed", "xarray", "zarr", "dask", "numpy", "tifffile", "openslide")


def test_version_and_help(call: Call) -> None:
    assert call("--version").stdout == f"tilestream {__version__}\n"
    text = call("--help").stdout
    assert all(command in text for command in ("check", "info", "embed", "demo", "130"))
    assert call().exit_code == 2


def test_help_names_every_flag_of_the_design(call: Call) -> None:
    text = call("embed", "--help").stdout
    flags = "--out --manifest --where --tile --mpp --halo --region --super-tile --encoder --cluster --memory --batch"
    for flag in [*flags.split(), "--resume", "--no-resume", "--strict", "--json", "--value-range"]:
        assert flag in text, flag
    assert "default: what the" in " ".join(text.replace("│", " ").split())  # brackets are no markup


def processor_s() -> float:
    """Processor time of all child processes so far, which other work on the machine does not change."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_starts_quickly() -> None:
    code = f"import sys; import tilestream.cli; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout == "[]\n"
    seconds = []
    for _ in range(3):
        start = processor_s()
        subprocess.run([sys.executable, "-m", "tilestream.cli", "--help"], capture_output=True, check=True)
        seconds.append(processor_s() - start)
    assert min(seconds) < 0.6


def test_info(call: Call, slide: Path) -> None:
    result = call("info", slide)
    assert result.exit_code == 0
    assert all(word in result.stdout for word in (str(slide), "1,500 × 1,200", "0.5 µm/px", "R, G, B", "240 × 240"))


def test_info_as_json_keeps_what_identifies_to_itself(call: Call, tmp_path: Path) -> None:
    from tilestream.testing.slide import write_slide
    from tilestream.types import Shape

    path = write_slide(tmp_path / "named.svs", Shape(y=600, x=600), identifying=True)
    facts = json.loads(call("info", path, "--json").stdout)
    assert facts["shape_yx"] == [600, 600]
    assert facts["levels"][0]["mpp_yx"] == pytest.approx([0.5, 0.5])
    assert not {"label", "macro"} & set(facts["associated"])
    assert len(facts["fingerprint"]) >= 32


def test_check(call: Call, slide: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = call("check", slide, "--out", out)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("ok")
    assert "1 input, 0 would fail" in result.stdout
    assert not out.exists()
    document = json.loads(call("check", slide, "--out", out, "--json").stdout)
    (row,) = document["inputs"]
    assert row["forecast"]["tiles"] == 5 * 6
    assert 0 < row["forecast"]["read_bytes"] <= slide.stat().st_size
    assert document["total"]["seconds"] > 0
    assert document["machine"]["rates"]["decode_px_s"] > 1e6


def test_embed_then_again(call: Call, slide: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = call("embed", slide, "--out", out, "--where", "all")
    assert first.exit_code == 0, first.stderr
    last = first.stdout.splitlines()[-1]
    assert last.startswith("1 done, 0 failed, 0 ignored; 30 tiles, 0 damaged; ")
    assert last.endswith(f"report: {out / 'report.html'}")
    assert " tiles/s; " in last
    assert told(first.stderr) == ["done made.svs (30 tiles)"]
    assert (out / "made.svs.features.zarr" / "zarr.json").is_file()
    again = call("embed", slide, "--out", out, "--where", "all")
    assert "30 tiles (30 from an earlier run)" in again.stdout
    assert told(again.stderr) == ["already done made.svs"]
    anew = call("embed", slide, "--out", out, "--where", "all", "--no-resume")
    assert "earlier" not in anew.stdout
    assert anew.exit_code == 0


def test_embed_as_json_prints_one_document_and_nothing_else(call: Call, slide: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.svs").write_text("no slide")
    result = call("embed", slide, tmp_path / "bad.svs", "--out", tmp_path / "out", "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == document["exit_code"] == 3
    assert {row["path"]: row["status"] for row in document["inputs"]} == {"made.svs": "done", "bad.svs": "failed"}
    assert document["totals"]["failed"] == 1
    assert Path(document["report_html"]).is_file()


def test_options_reach_the_store(call: Call, slide: Path, tmp_path: Path) -> None:
    import xarray as xr

    options = ["--where", "all", "--tile", 128, "--mpp", 1.0, "--halo", 8, "--region", 256, "--super-tile", 512]
    options += ["--batch", 7, "--memory", "1GiB", "--cluster", "threads:1", "--value-range", "0,200"]
    assert call("embed", slide, "--out", tmp_path, *options).exit_code == 0
    with xr.open_datatree(tmp_path / "made.svs.features.zarr", engine="zarr") as tree:
        plan, recipe = tree.attrs["plan"], tree.attrs["recipe"]
    assert (plan["tile_px"], plan["halo_px"], plan["region_px"], plan["super_tile_px"]) == (128, 8, 256, 512)
    assert plan["mpp_yx"] == pytest.approx([1.0, 1.0])
    assert plan["tiles"] == 5 * 6
    assert "200" in json.dumps(recipe["stages"])
    assert "batch" not in json.dumps(recipe)


def test_manifest_selects_overrides_and_names_what_it_misses(call: Call, slide: Path, tmp_path: Path) -> None:
    table = tmp_path / "cohort.csv"
    table.write_text(f"path,mpp,site\n{slide},0.25,Basel\nnowhere.svs,,\n")
    result = call("embed", slide.parent, "--out", tmp_path / "out", "--manifest", table, "--where", "all")
    assert result.exit_code == 3
    assert "cohort.csv line 3: `nowhere.svs` matches nothing" in result.stdout
    assert "site" in result.stdout
    # at 0.25 um/px instead of 0.5 the plan at 0.5 has half as many pixels each way
    assert "1 done, 1 failed, 0 ignored; 9 tiles" in result.stdout
    checked = call("check", slide.parent, "--manifest", table)
    assert checked.exit_code == 3
    assert "nowhere.svs" in checked.stdout


def test_demo_ends_with_python_that_works(call: Call, slide: Path, tmp_path: Path) -> None:
    result = call("demo", slide, "--out", tmp_path)
    assert result.exit_code == 0, result.stderr
    assert str(tmp_path / "report.html") in result.stdout
    assert "tissue on" in result.stdout
    lines = result.stdout.splitlines()
    code = "\n".join(line.strip() for line in lines[lines.index("in Python") + 1 :])
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert "handcrafted" in printed
    again = call("demo", slide, "--out", tmp_path)
    assert "already done" in again.stderr


@pytest.mark.parametrize("name", ["slurm", "kubernetes"])
def test_shipped_cluster_profiles_are_printed(call: Call, name: str) -> None:
    text = call("cluster", name).stdout
    assert f"\nkind: {name}\n" in text
    assert "got `moon`" in call("cluster", "moon").stderr
