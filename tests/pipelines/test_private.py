"""Nothing that identifies a patient leaves a source: no text of its headers, no label and no macro image."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import pydicom
import pytest
import tifffile
from pydicom.dataset import Dataset

from tests.pipelines.conftest import Embed, Run
from tilestream.pipelines.ingest import build_pyramid
from tilestream.testing.slide import write_slide
from tilestream.types import Shape

KEYWORDS = (
    "AccessionNumber",
    "BarcodeValue",
    "ContainerIdentifier",
    "InstitutionName",
    "PatientBirthDate",
    "PatientID",
    "SpecimenIdentifier",
    "StudyDate",
    "StudyDescription",
    "StudyID",
)
STANDARD = "1.2.840.10008."
"""Beginning of identifiers that DICOM itself gives out, which name kinds of objects and no patients."""


def aperio_secrets(path: Path) -> set[str]:
    """Return what an Aperio scanner writes about who scanned what and when."""
    with tifffile.TiffFile(path) as file:
        fields = dict(re.findall(r"\|([^=|]+) = ([^|]+)", file.pages[0].description))
    return {fields[name] for name in ("ScanScope ID", "Date", "Time", "User", "ImageID", "Parmset")}


def hamamatsu_secrets(path: Path) -> set[str]:
    with openslide.OpenSlide(path) as slide:
        names = ("hamamatsu.Created", "hamamatsu.Updated", "hamamatsu.NDP.S/N", "tiff.DateTime", "tiff.Software")
        return {slide.properties[name] for name in names}


def dicom_secrets(path: Path) -> set[str]:
    """Return names, identifiers and dates at any depth of a header."""
    found: set[str] = set()

    def collect(_: Dataset, element: pydicom.DataElement) -> None:
        if element.VR == "PN" or element.keyword in KEYWORDS:
            found.update(part for part in str(element.value).split("^") if part)
        elif element.VR == "UI":
            found.update(uid for uid in np.atleast_1d(element.value) if not str(uid).startswith(STANDARD))

    pydicom.dcmread(path, stop_before_pixels=True).walk(collect)
    return {secret for secret in found if len(secret) >= 5}


def occurrences(out: Path, secrets: set[str]) -> list[tuple[str, str]]:
    """Return where a secret stands in the name or the bytes of an output, in three encodings."""
    found = []
    for path in out.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        for secret in secrets:
            spelled = {secret.encode(), secret.encode("utf-16-le"), json.dumps(secret)[1:-1].encode()}
            if secret in path.name or any(word in data for word in spelled):
                found.append((path.relative_to(out).as_posix(), secret))
    return found


def test_no_text_of_the_headers_is_in_any_output(everything: Run, shared_data: Path) -> None:
    slides = shared_data / "slides"
    secrets = aperio_secrets(slides / "CMU-1-Small-Region.svs") | hamamatsu_secrets(slides / "test3-DAPI-2-387.ndpi")
    secrets |= dicom_secrets(slides / "camelyon-jpeg2000.dcm")
    secrets |= dicom_secrets(slides / "dicom-annotated" / "sm_image_control.dcm")
    for path in (slides / "dicom-cmu-1-small-region").glob("*.dcm"):
        secrets |= dicom_secrets(path)
    assert {"CPAPERIOCS", "b414003d-95c6-48b0-9369-8010ed517ba7", "12/29/09", "Penelope", "GenLast"} <= secrets
    assert {"PN-1-692-287-590-758-1", "GO-1692287590758-1-A-0", "16340811", "950291"} <= secrets
    assert len(secrets) > 30
    assert occurrences(everything.out, secrets) == []


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"who": "Jürgen"}))
    (tmp_path / "Penelope.zarr").mkdir()
    assert occurrences(tmp_path, {"Jürgen", "Penelope", "nobody"}) == [
        ("Penelope.zarr", "Penelope"),
        ("a.json", "Jürgen"),
    ]


def test_no_stream_of_a_label_or_macro_image_is_in_any_output(everything: Run, shared_data: Path) -> None:
    path = shared_data / "slides" / "CMU-1-Small-Region.svs"
    data, pieces = path.read_bytes(), []
    with tifffile.TiffFile(path) as file:
        for page in file.pages[2:]:
            assert page.description.split("\n")[1].split()[0] in ("label", "macro")
            pieces += [data[at : at + 48] for at in page.dataoffsets]
    assert len(pieces) > 20
    coded = [base64.b64encode(piece)[4:-4] for piece in pieces]
    for output in everything.out.rglob("*"):
        if output.is_file():
            content = output.read_bytes()
            assert not any(piece in content for piece in (*pieces[1:], *coded[1:]))


@pytest.mark.parametrize("where", ["all", "tissue"])
def test_label_and_macro_of_a_made_slide_show_nowhere(embed: Embed, tmp_path: Path, where: str) -> None:
    """They are plain yellow and cyan, which no tissue is."""
    slide = write_slide(tmp_path / "made.svs", Shape(y=900, x=1100), seed=5, identifying=True)
    with tifffile.TiffFile(slide) as file:
        names = [page.description.split("\n")[1].split()[0] for page in file.pages if page.subfiletype in (1, 9)]
    assert names == ["label", "macro"]
    run = embed(slide, "--where", where)
    assert run.exit_code == 0, run.stderr
    html = (run.out / "report.html").read_text()
    pictures = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", html)
    assert pictures
    for picture in pictures:
        pixels = imagecodecs.jpeg_decode(base64.b64decode(picture)).astype(int)
        for tone in ((255, 220, 40), (40, 220, 255)):
            assert not (np.abs(pixels - tone).max(axis=2) < 40).any()


HARMLESS = {"NDP.scan 2.5.89"}
"""Software by its product and version is a technical fact, which stores keep."""


@pytest.mark.parametrize(
    ("name", "secrets_of"),
    [
        ("CMU-1-Small-Region.svs", aperio_secrets),
        ("test3-DAPI-2-387.ndpi", hamamatsu_secrets),
        ("camelyon-jpeg2000.dcm", dicom_secrets),
        ("dicom-annotated/sm_image_control.dcm", dicom_secrets),
    ],
)
def test_stores_hold_secrets_only_for_those_who_ask(
    shared_data: Path, tmp_path: Path, name: str, secrets_of: Callable[[Path], set[str]]
) -> None:
    path = shared_data / "slides" / name
    secrets = secrets_of(path) - HARMLESS
    assert len(secrets) >= 4
    found = {}
    for number, keep in enumerate((False, True)):
        store = tmp_path / f"{number}.zarr"
        build_pyramid(path, store, keep_identifying=keep)
        found[keep] = {secret for _, secret in occurrences(store, secrets)}
    assert found[False] == set()
    assert len(found[True]) > 0.9 * len(secrets)
