"""What a user names in `--cluster`, and what is said of what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tilestream.cluster.client import open_client
from tilestream.cluster.fields import FIELDS, REQUIRED
from tilestream.cluster.profile import SHIPPED, read_profile, shipped_profile
from tilestream.errors import ConfigError

SLURM = "kind: slurm\ncores: 2\nmemory: 4GiB\nscale: 1\n"


@pytest.mark.parametrize(
    ("given", "kind", "fields"),
    [
        ("threads", "threads", {}),
        ("threads:3", "threads", {"threads": 3}),
        ("local:2", "local", {"scale": 2}),
        ("gpus", "gpus", {}),
        ("tcp://10.0.0.1:8786", "address", {"address": "tcp://10.0.0.1:8786"}),
        ("tls://host:1", "address", {"address": "tls://host:1"}),
        ("scheduler.json", "scheduler-file", {"path": "scheduler.json"}),
    ],
)
def test_words_addresses_and_files(given: str, kind: str, fields: dict[str, Any]) -> None:
    profile = read_profile(given)
    assert (profile.kind, profile.fields) == (kind, fields)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("", "threads:N"),
        ("thread", "Did you mean `threads`?"),
        ("slrum", "Did you mean `slurm`?"),
        ("gpu", "Did you mean `gpus`?"),
        ("threads:0", "threads:N"),
        ("local", "local:N"),
        ("local:x", "local:N"),
        ("moon.yaml", "No such file"),
        ("http://host", "tcp://host:port"),
    ],
)
def test_what_is_no_profile(given: str, says: str) -> None:
    with pytest.raises(ConfigError, match="`--cluster`") as caught:
        read_profile(given)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a NoneType of values"),
        ("[1, 2]", "a list of values"),
        ("kind: [", "a profile in YAML"),
        ("cores: 3", "got no `kind`, expected one of threads"),
        ("kind: slrum", "Did you mean `slurm`?"),
        ("kind: [slurm]", "`kind`"),
        (SLURM + "que: gpu\n", "`que` in .* got an unknown field.*Did you mean `queue`"),
        (SLURM + "walltime: 12:00:00\n", r"`walltime` in .* got 43200 \(int\), expected text \(in quotes"),
        (SLURM.replace("cores: 2", "cores: two"), r"got 'two' \(str\), expected a whole number"),
        (SLURM.replace("cores: 2", "cores: true"), r"got True \(bool\)"),
        (SLURM.replace("scale: 1", "scale: {minimum: 0, maximum: 3}"), "`minimum` \\(1 or more\\)"),
        (SLURM.replace("scale: 1", "scale: {minimum: 4, maximum: 3}"), "`scale`"),
        (SLURM.replace("memory: 4GiB\n", ""), "`memory` in .* got nothing.*kind `slurm` has to say it"),
        (SLURM + "environment: {N: 1}\n", "numbers in quotes"),
        (SLURM + "prologue: module load x\n", "a list of text"),
        (SLURM + "encrypt: 'no'\n", "true or false"),
        (SLURM + "wait_s: -1\n", "seconds above 0"),
        (SLURM.replace("4GiB", "much"), "a size such as 32GiB"),
        (SLURM.replace("4GiB", "4096"), r"`memory` in .* got 4096 \(int\)"),
        ("kind: gpus\ndevices: 1\n", "a list of numbers or UUIDs"),
        ("kind: kubernetes\nimage: i\nscale: 1\nvolumes: [{claim: a}]\n", "a list of `claim` and `path`"),
        ("kind: threads\nscale: 2\n", "fields of `threads` among kind, threads, wait_s"),
    ],
)
def test_mistakes_in_a_file(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says) as caught:
        read_profile(str(path))
    assert "mine.yaml" in str(caught.value)


def test_toml_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('kind = "local"\n[scale]\nminimum = 1\nmaximum = 3\n')
    assert read_profile(str(path)).fields == {"scale": {"minimum": 1, "maximum": 3}}
    path.write_text('kind = "slurm"\ncores = 1\nmemory = "1GB"\nscale = 1\nwalltime = 04:00:00\n')
    with pytest.raises(ConfigError, match=r"`walltime` in .*\(time\), expected text"):
        read_profile(str(path))


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_profiles_hold_all_that_their_kind_knows(name: str) -> None:
    text = shipped_profile(name).read_text()
    profile = read_profile(name)
    assert profile.kind == name
    assert set(REQUIRED[name]) <= set(profile.fields)
    missing = [key for key in FIELDS[name] if f"\n{key}: " not in text and f"\n# {key}: " not in text]
    assert not missing, "fields that nobody would find"
    # what stands in comments is as right as the rest
    lines = [line.removeprefix("# ") for line in text.splitlines()]
    spelled = "\n".join(line for line in lines if line.partition(":")[0] in FIELDS[name])
    assert set(yaml.safe_load(spelled)) == set(FIELDS[name])
    copy = Path(name).with_suffix(".yaml")
    assert copy.name == shipped_profile(name).name


def test_a_cluster_that_grows_with_its_work(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("kind: local\nscale: {minimum: 1, maximum: 2}\nenvironment: {TILESTREAM_TRIED: hello}\n")
    with open_client(str(path)) as client:
        assert len(client.nthreads()) == 1
        tasks = [client.submit(pause, number, pure=False) for number in range(12)]
        client.wait_for_workers(2, timeout=60)
        assert set(client.gather(tasks)) == {"hello"}


def pause(_number: int) -> str:
    """Return a variable of the worker, after a while."""
    import os
    import time

    time.sleep(0.5)
    return os.environ["TILESTREAM_TRIED"]
