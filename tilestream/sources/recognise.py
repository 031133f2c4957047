"""Which family reads an image: by its content first, then by its suffix; and what to say when none does."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tilestream.codecs.objects import file_system
from tilestream.errors import SourceError
from tilestream.sources.files import File

FAMILIES = {
    "tiff": "tilestream.sources.tiff:open_tiff",
    "openslide": "tilestream.sources.openslide:open_openslide",
    "dicom": "tilestream.sources.dicom:open_dicom",
    "zarr": "tilestream.sources.fieldopening:open_stored",
    "raster": "tilestream.sources.raster:open_raster",
    "bands": "tilestream.sources.bandsopen:open_bands",
}
"""Family → function that opens a `File` as a `Source`; the user's word for `source=`."""

SUFFIXES = {
    **dict.fromkeys(("tif", "tiff", "svs", "btf", "tf2", "tf8", "gtiff", "afi", "qptiff"), "tiff"),
    **dict.fromkeys(("ndpi", "mrxs", "vms", "vmu", "scn", "bif", "svslide"), "openslide"),
    **dict.fromkeys(("dcm", "dicom"), "dicom"),
    "zarr": "zarr",
    **dict.fromkeys(("png", "jpg", "jpeg", "jp2", "j2k", "j2c", "jpx", "webp"), "raster"),
}
"""Suffix → family that is expected to read it."""

OWN_OUTPUTS = (
    ".features.zarr", ".entropy.zarr", ".attention.zarr", ".attention.png", ".relevance.zarr", ".relevance.png",
    ".plan.png",
)  # fmt: skip
"""Endings of what this program writes; none of these is ever read as an image when it is come across."""
OWN_NAMES = frozenset({"report.json", "report.html", "metrics.prom", "receipts", "cohort.npz", "cohort.parquet"})
LFS_MAGIC = b"version https://git-lfs.github.com/spec/v1"
ZARR_MARKERS = ("zarr.json", ".zattrs", ".zgroup", ".zarray", ".zmetadata")
HEAD_BYTES = 1024

_MAGIC = (
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"\x89PNG\r\n\x1a\n", "raster"),
    (b"\xff\xd8\xff", "raster"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "raster"),
    (b"\xff\x4f\xff\x51", "raster"),
    (b"[Virtual Microscope Specimen]", "openslide"),
    (b"[Uncompressed Virtual Microscope Specimen]", "openslide"),
)


@dataclass(frozen=True, kw_only=True)
class Folder:
    """The names in one folder, local or remote."""

    file: File
    """The folder as an address."""
    names: frozenset[str]
    """Entries, files and folders."""


def suffix_of(name: str) -> str:
    """Return the last suffix of a name in lower case, without the dot.

    Parameters
    ----------
    name : str
        File or folder name.

    Returns
    -------
    str
        Suffix; empty when there is none.
    """
    return name.rpartition(".")[2].lower() if "." in name.lstrip(".") else ""


def passed_over(name: str) -> str | None:
    """Return why a name is passed over whatever it holds, None where it is not.

    Parameters
    ----------
    name : str
        Name of a file or folder.

    Returns
    -------
    str or None
        Words for the report.
    """
    if name.startswith("."):
        return "hidden"
    if name.endswith(OWN_OUTPUTS) or name in OWN_NAMES:
        return "an output of this program"
    return None


def list_folder(file: File) -> Folder | None:
    """Return the entries of a folder, None when the address is not a folder.

    Parameters
    ----------
    file : File
        Address of what may be a folder.

    Returns
    -------
    Folder or None
        Names without their paths.

    Raises
    ------
    SourceError
        When it is a folder that cannot be listed.
    """
    try:
        if file.is_local:
            path = Path(file.path)
            return Folder(file=file, names=frozenset(entry.name for entry in path.iterdir())) if path.is_dir() else None
        entries = list_entries(file)
        if entries is not None:
            return Folder(file=file, names=frozenset(entries))
        # a web server cannot list, but it can be asked for a Zarr root: one marker is enough
        asked = ZARR_MARKERS if suffix_of(file.name) == "zarr" else ()
        markers = frozenset(islice((name for name in asked if _has(file, name)), 1))
    except OSError as error:
        raise SourceError.of(
            f"`{file.url}`", got=str(error).lower(), expected="a folder that can be listed", do="Check the permissions."
        ) from error
    return Folder(file=file, names=markers) if markers else None


def list_entries(file: File) -> dict[str, bool] | None:
    """Return the entries of a folder on remote storage, and whether each is a folder itself.

    Parameters
    ----------
    file : File
        Address of what may be a folder.

    Returns
    -------
    dict or None
        None when it is none, holds nothing, or may not be listed by this user, who may read files in it all the same.
    """
    # Of a web server fsspec would read the whole file to look for links in it, also behind a cache (`blockcache::`).
    if file.url.partition("://")[0].rpartition("::")[2] in ("http", "https"):
        return None
    system, path = file_system(file.url, file.options)
    try:
        found = system.ls(path, detail=True)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    entries = {entry["name"].rstrip("/"): entry["type"] == "directory" for entry in found}
    return {name.rpartition("/")[2]: is_folder for name, is_folder in entries.items() if name != path} or None


def _has(folder: File, name: str) -> bool:
    return File(url=f"{folder.url.rstrip('/')}/{name}", options=folder.options).exists


def inside(folder: File, name: str) -> File:
    """Return the entry of a folder.

    Parameters
    ----------
    folder : File
        Address of the folder.
    name : str
        Relative path in it.

    Returns
    -------
    File
        Address of the entry.
    """
    return File(url=f"{folder.url.rstrip('/')}/{name}", options=folder.options)


def is_zarr(folder: Folder) -> bool:
    """Return whether a folder is a Zarr root, by its metadata or its name."""
    return bool(folder.names.intersection(ZARR_MARKERS)) or suffix_of(folder.file.name) == "zarr"


def family_of_plain(folder: Folder) -> str | None:
    """Return the family of a folder that is one image by the files in it alone, None when it is none.

    Parameters
    ----------
    folder : Folder
        Its entries; no Zarr root and no scene.

    Returns
    -------
    str or None
        `dicom`.
    """
    if any(suffix_of(name) in ("dcm", "dicom") for name in folder.names) or _has_bare_dicom(folder):
        return "dicom"
    return None


def _has_bare_dicom(folder: Folder) -> bool:
    """Return whether its first file without a suffix is DICOM: archives name instances by number."""
    bare = sorted(name for name in folder.names if not suffix_of(name) and not name.startswith("."))
    for name in bare[:1]:
        file = inside(folder.file, name)
        if file.exists and file.size > 132:
            return file.read(128, 4) == b"DICM"
    return False


def family_of_head(head: bytes, name: str) -> str | None:
    """Return the family that the first bytes of a file show, None when they show none.

    Parameters
    ----------
    head : bytes
        The first bytes, 132 or more where the file has them.
    name : str
        File name, for the one format whose main file is a plain JPEG (MRXS).

    Returns
    -------
    str or None
        Family name.
    """
    if head[128:132] == b"DICM":
        return "dicom"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "raster"
    family = next((family for magic, family in _MAGIC if head.startswith(magic)), None)
    return "openslide" if family == "raster" and suffix_of(name) == "mrxs" else family


def unknown_content(file: File, head: bytes) -> SourceError:
    """Return the error for a file that no family recognises: what it is, as far as one can see.

    Parameters
    ----------
    file : File
        The file.
    head : bytes
        Its first bytes.

    Returns
    -------
    SourceError
        Ready to raise.
    """
    if head.startswith(LFS_MAGIC):
        return lfs_pointer(file.url)
    suffix = suffix_of(file.name)
    if not head:
        got, do = "an empty file (0 bytes)", "Copy it again from where it came."
    elif _is_text(head):
        got, do = f"{file.size:,} bytes of text", "Check that the download did not save an error page instead."
    elif head.startswith(b"PK\3\4"):
        got, do = "a zip archive", "Unpack it and give the folder."
    else:
        got = f"{file.size:,} bytes that begin with {head[:8].hex(' ')}"
        do = "Check the file; `source=` forces a family."
    expected = f"the content of a .{suffix} file" if suffix in SUFFIXES else "an image of a known format"
    return SourceError.of(f"`{file.url}`", got=got, expected=expected, do=do)


def lfs_pointer(url: str) -> SourceError:
    """Return the error for a file, or a Zarr of files, that Git LFS has not fetched.

    Parameters
    ----------
    url : str
        What was to be opened.

    Returns
    -------
    SourceError
        Ready to raise.
    """
    return SourceError.of(
        f"`{url}`",
        got="a Git LFS pointer, not the data",
        expected="an image",
        do="Run `git lfs pull` in the repository it came from.",
    )


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # the head may end inside a character
            return False
        text = head[: error.start].decode()
    return all(character.isprintable() or character in "\r\n\t\f" for character in text)
