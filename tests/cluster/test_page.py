"""The page and the image name what there is: kinds, commands, options, extras and paths."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from tilestream.cli.app import app
from tilestream.cluster.fields import FIELDS, check_fields
from tilestream.cluster.profile import read_profile

REPO = Path(__file__).resolve().parents[2]
PAGE = (REPO / "cluster" / "README.md").read_text(encoding="utf-8")
IMAGE = (REPO / "cluster" / "Dockerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))
COMMANDS = get_command(app).commands  # type: ignore[attr-defined]


def lines(language: str) -> list[str]:
    """Return the lines of the page's blocks in a language, without comments."""
    blocks = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return [re.split(r"\s+#", line)[0] for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def test_commands_and_options_exist() -> None:
    used = [re.search(r"tilestream (\w+)([^\"]*)", line) for line in lines("sh")]
    found = [match for match in used if match]
    assert len(found) >= 10
    for match in found:
        options = {name for parameter in COMMANDS[match[1]].params for name in parameter.opts}
        assert set(re.findall(r"--[\w-]+", match[2])) <= options, match[0]


def test_profiles_of_the_page_are_right(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert check_fields(yaml.safe_load(block), "page") == "gpus"
    for word in re.findall(r"--cluster ([\w:]+)[ `]", PAGE):
        assert read_profile(word).kind in FIELDS
    assert all(f"`{kind}`" in PAGE for kind in FIELDS), "each kind is on the page"


def test_places_within_the_page() -> None:
    anchors = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in re.findall(r"^#+ (.*)$", PAGE, re.M)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= anchors


def test_the_image_copies_all_that_is_installed() -> None:
    copied = {name for line in re.findall(r"^COPY (.*) \S+$", IMAGE, re.MULTILINE) for name in line.split()}
    assert all((REPO / name).exists() for name in copied)
    tools = PROJECT["tool"]["setuptools"]
    assert {folder.partition("/")[0] for folder in tools["package-dir"].values()} <= copied
    project = PROJECT["project"]
    assert {project["readme"], *project["license-files"], "pyproject.toml"} <= copied
    seen = (REPO / "cluster" / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert {line[1:] for line in seen if line.startswith("!")} == copied


def test_the_image_asks_for_extras_and_a_python_that_there_are() -> None:
    extras = {name for line in re.findall(r"EXTRAS=(\S+)", IMAGE) for name in line.split(",")}
    assert len(extras) >= 4
    assert extras <= PROJECT["project"]["optional-dependencies"].keys()
    (version,) = re.findall(r"^FROM python:([\d.]+)-", IMAGE, re.MULTILINE)
    assert f"Programming Language :: Python :: {version}" in PROJECT["project"]["classifiers"]
