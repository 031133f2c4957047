"""Names, dates and barcodes planted into every field of a header: none is a technical fact, all are kept apart."""

from __future__ import annotations

import json

import numpy as np
import pydicom
import pytest
import tifffile
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from tests.sources.madedicom import save_dicom
from tests.sources.madetiff import photo
from tests.sources.test_extras import OME, SIZES
from tilestream.cli import app
from tilestream.sources.extras import read_extras
from tilestream.sources.opening import open_source
from tilestream.sources.tiffextras import APERIO

APERIO_FIELDS = (
    *APERIO, "ScanScope ID", "Filename", "Date", "Time", "Time Zone", "User", "Parmset", "MPP", "DSR ID", "ImageID",
    "ICC Profile", "OriginalWidth", "OriginalHeight", "LineAreaXOffset", "LineAreaYOffset", "Barcode", "Title",
    "SessonMode", "Rack", "Slide", "SerialNumber", "Something New",
)  # fmt: skip
TEXT_TAGS = (269, 271, 272, 285, 305, 306, 315, 316, 33432)
TEXTS = frozenset({"AE", "AS", "CS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"})
PLANTED = {"DA": "19530401", "DT": "19530401095915", "TM": "095915", "UI": "1.2.3.19530401", "AS": "066Y"}
SECRETS = ("PENELOPE", "1953", "0959", "066Y", "S19-12345")


def secrets_in(value):
    return [secret for secret in SECRETS if secret in json.dumps(value).upper()]


def shown(path):
    """What `info` prints of a file, both ways, without the name of the file and its fingerprint."""
    outputs = [CliRunner().invoke(app, ["info", str(path), *more], catch_exceptions=False) for more in ([], ["--json"])]
    assert [output.exit_code for output in outputs] == [0, 0]
    facts = json.loads(outputs[1].stdout)
    return "".join(outputs[0].stdout.replace(str(path), "").replace(facts["fingerprint"], "").split()) + json.dumps(
        {name: value for name, value in facts.items() if name not in ("path", "fingerprint")}
    )


@pytest.mark.parametrize("planted", ["Penelope", "S19-12345", "04/01/1953", "1953-04-01", "09:59:15"])
def test_aperio(tmp_path, planted):
    fields = "|".join(f"{name} = {planted}" for name in APERIO_FIELDS)
    text = f"Aperio Image Library v1 {planted}\r\n90x80 [0,0 90x80] (32x32) JPEG/RGB Q={planted};{planted}|{fields}"
    extra = [(code, "s", 0, planted, True) for code in TEXT_TAGS if code not in (305, 306)]
    more = {"software": planted, "datetime": None, "description": text, "metadata": None, "extratags": extra}
    tifffile.imwrite(tmp_path / "a.svs", photo(80, 90), tile=(32, 32), photometric="rgb", **more)
    extras = read_extras(open_source(str(tmp_path / "a.svs")))
    assert extras.technical == {"vendor": "Aperio", "compression": "none"}
    assert extras.identifying["ImageDescription"].count(planted) == len(APERIO_FIELDS) + 3
    for name in ("Artist", "Make", "Model", "HostComputer", "Copyright", "DocumentName", "PageName", "Software"):
        assert extras.identifying[name] == planted
    assert planted.upper() not in shown(tmp_path / "a.svs").upper()
    assert "1953" not in shown(tmp_path / "a.svs")


def planted_dataset(depth=0):
    """Every element that can hold text, sequences of such elements among them."""
    header = Dataset()
    for tag, (vr, _, _, _, keyword) in sorted(DicomDictionary.items()):
        if not keyword or tag >> 16 in (0x0000, 0x0002, 0x0004, 0xFFFE) or vr not in TEXTS | {"SQ"}:
            continue
        if vr == "SQ":
            if depth == 0 and keyword.endswith("Sequence") and "FunctionalGroups" not in keyword:
                setattr(header, keyword, [SMALL])
        else:
            setattr(header, keyword, PLANTED.get(vr, "PENELOPE S19-1" if vr == "CS" else "Penelope S19-12345"))
    return header


SMALL = Dataset()
for _keyword in ("PatientName", "TextValue", "CodeMeaning", "CodeValue", "OpticalPathDescription", "LensesCodeSequence",
                 "ObjectiveLensPower", "ColorSpace", "SpecimenIdentifier", "BarcodeValue"):  # fmt: skip
    if not _keyword.endswith("Sequence") and _keyword != "ObjectiveLensPower":
        setattr(SMALL, _keyword, "PENELOPE")


def test_dicom(tmp_path):
    save_dicom(tmp_path / "plain.dcm")
    plain = pydicom.dcmread(tmp_path / "plain.dcm")
    needed = {element.keyword for element in plain} - {"PatientName"}
    with pydicom.config.disable_value_validation():
        header = planted_dataset()
        elements = {element.keyword: element.value for element in header if element.keyword not in needed}
        del elements["SpecificCharacterSet"]  # by which the others are read
        del elements["SpecimenLabelInImage"]  # YES and NO decide whether the slide is opened at all
        for concatenation in [name for name in elements if "Concatenation" in name]:
            del elements[concatenation]
        assert len(elements) > 2500
        save_dicom(tmp_path / "a.dcm", elements=elements)
    (tmp_path / "plain.dcm").unlink()
    source = open_source(str(tmp_path / "a.dcm"))
    extras = read_extras(source)
    assert not extras.notes
    assert extras.technical == {"image_type": ["DERIVED", "PRIMARY", "VOLUME", "NONE"]}
    missing = [name for name in elements if name not in extras.identifying]
    assert set(missing) <= {"DigitalSignaturesSequence"}  # which comes after the pixels
    assert secrets_in(extras.identifying) == list(SECRETS)
    assert secrets_in(shown(tmp_path / "a.dcm")) == []


def test_ome_xml(tmp_path):
    """All attributes of the XML planted that are no sizes or indices."""
    import re

    kept = ("Size", "DimensionOrder", "Type", "IFD", "ID", "PlaneCount", "The", "First", "Name")

    def plant(match):
        name = match[1]
        return match[0] if name.startswith(kept) and name != "IlluminationType" else f'{name}="Penelope 1953"'

    text = re.sub(r"(\w+)=\"[^\"]*\"", plant, OME.format(sizes=SIZES))
    assert text.count("Penelope 1953") > 15
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        for number in range(3):
            description = text.encode() if number == 0 else None
            pixels, more = np.zeros((30, 40), np.uint8), {"metadata": None, "photometric": "minisblack"}
            file.write(pixels, description=description, software="Penelope", **more)
    extras = read_extras(open_source(str(tmp_path / "a.ome.tif")))
    assert extras.technical == {"compression": "none"}
    assert secrets_in(extras.identifying) == ["PENELOPE", "1953"]
    assert secrets_in(shown(tmp_path / "a.ome.tif")) == []
