import errno
import os
from pathlib import Path

import pytest

from tilestream.codecs.checksums import checksum, checksum_file
from tilestream.codecs.durable import (
    STALE_TRIES,
    DurableFile,
    ensure_directory,
    read_if_there,
    write_durable,
)
from tilestream.errors import OutputError


def test_write_durable_returns_the_checksum_of_what_is_on_disk(tmp_path):
    path = tmp_path / "a b" / "ü" / "file.bin"
    returned = write_durable(path, b"content")
    assert path.read_bytes() == b"content"
    assert returned == checksum(b"content") == checksum_file(path)
    assert len(returned) == 32
    assert checksum(b"content.") != returned


def test_write_durable_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "file.bin"
    write_durable(path, b"old")
    write_durable(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_name_as_long_as_the_file_system_allows(tmp_path):
    path = tmp_path / ("n" * 255)
    write_durable(path, b"x")
    assert path.read_bytes() == b"x"
    with pytest.raises(OutputError, match="too long"):
        write_durable(tmp_path / ("n" * 256), b"x")


def _fail_half_way(file):
    file.write(b"half")
    assert not file.path.exists()
    raise RuntimeError("stop")


def test_content_appears_only_when_whole(tmp_path):
    path = tmp_path / "file.bin"
    file = DurableFile(path)
    with pytest.raises(RuntimeError, match="stop"), file:
        _fail_half_way(file)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "a full disk"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "no permission"),
        (errno.EIO, "Input/output error"),
    ],
)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_refusals_of_the_system_are_explained_and_leave_nothing(tmp_path, monkeypatch, code, words, call):
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(OutputError, match=words) as caught:
        write_durable(tmp_path / "file.bin", b"content")
    assert caught.value.errno == code
    assert "expected" in str(caught.value)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_full_disk_while_writing(tmp_path):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("the system has no /dev/full")
    file = DurableFile(tmp_path / "file.bin")
    file._file.close()
    file._file = full.open("wb", buffering=0)
    with pytest.raises(OutputError, match="a full disk"), file:
        file.write(b"x" * 100)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_a_file(tmp_path):
    (tmp_path / "out").write_bytes(b"mine")
    with pytest.raises(OutputError, match="a file of that name"):
        ensure_directory(tmp_path / "out")
    with pytest.raises(OutputError, match="a file on the way"):
        write_durable(tmp_path / "out" / "deep" / "file.bin", b"x")
    assert (tmp_path / "out").read_bytes() == b"mine"


def test_target_that_is_a_folder(tmp_path):
    (tmp_path / "file.bin").mkdir()
    with pytest.raises(OutputError, match="a folder of that name"):
        write_durable(tmp_path / "file.bin", b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]


def test_a_file_that_another_machine_replaces_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [OSError(errno.ESTALE, "Stale file handle"), b"new"]

    def read(_path: Path) -> bytes:
        answer = said.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    assert read_if_there(tmp_path / "none") is None
    monkeypatch.setattr(Path, "read_bytes", read)
    assert read_if_there(tmp_path / "file") == b"new"
    for number, times in ((errno.EIO, 1), (errno.ESTALE, STALE_TRIES)):  # the second: the share itself is gone
        said += [OSError(number, "it is said")] * times
        with pytest.raises(OSError, match="it is said"):
            read_if_there(tmp_path / "file")
        assert said == []
