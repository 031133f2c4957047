"""What sources say besides pixels: technical facts, identifying ones apart, and pictures only for those who ask."""

from __future__ import annotations

import base64
import pickle
import struct

import numpy as np
import pytest
import tifffile
import zarr

from tests.sources.madedicom import pixels_of, save_dicom
from tests.sources.madetiff import Page, image_tags, photo, write_tiff
from tests.sources.test_icc import PROFILE
from tests.sources.test_ometiff import stack, write_stack
from tests.sources.test_zarr import save_ome
from tilestream.errors import ConfigError, DamagedError
from tilestream.pyramid.chosen import choose
from tilestream.sources.extras import Extras, associated_images, associated_names, read_associated, read_extras
from tilestream.sources.opening import open_source
from tilestream.testing.slide import write_slide
from tilestream.types import Shape


def opened(path, **index):
    return open_source(str(path)).isel(**index)


def test_aperio(shared_data):
    source = opened(shared_data / "slides" / "CMU-1-Small-Region.svs")
    extras = read_extras(source)
    assert extras.technical == {
        "compression": "JPEG",
        "vendor": "Aperio",
        "software": ["Aperio Image Library v11.2.1"],
        "compression_quality": 30,
        "objective_power": 20,
        "stripe_width_px": 2040,
        "scan_left_mm": 25.691574,
        "scan_top_mm": 23.449873,
        "line_camera_skew": -0.000424,
        "focus_offset": 0,
        "line_area_offset_yx": [-0.000313, 0.019265],
        "original_shape_yx_px": [32914, 46000],
    }
    assert "ScanScope ID = CPAPERIOCS" in extras.identifying["ImageDescription"]
    assert extras.identifying_images == ("label", "macro")
    assert len(pickle.dumps(source)) < 1000


def test_label_and_macro_only_for_those_who_ask(shared_data):
    path = shared_data / "slides" / "CMU-1-Small-Region.svs"
    source = opened(path)
    assert associated_names(source) == ("thumbnail",)
    assert set(associated_images(source, False)) == {"thumbnail"}
    for name in ("label", "macro", "nothing"):
        with pytest.raises(ConfigError, match="keep_identifying"):
            read_associated(source, name)
        with pytest.raises(ConfigError):
            source.read_associated(name)
    found = associated_images(source, True)
    with tifffile.TiffFile(path) as file:
        pages = {page.description.split("\n")[1].split()[0]: page for page in file.pages[2:]}
        assert set(pages) == {"label", "macro"}
        for name, page in pages.items():
            np.testing.assert_array_equal(found[name], page.asarray())


def test_pictures_without_a_text_are_told_by_their_kind(tmp_path):
    path = write_slide(tmp_path / "a.svs", Shape(y=300, x=400))
    text = "Aperio Image Library v1.0\r\n"
    with tifffile.TiffWriter(path, append=True) as file:
        for kind, value in ((1, 40), (9, 90), (1, 60)):
            picture = np.full((30, 20, 3), value, np.uint8)
            file.write(picture, photometric="rgb", subfiletype=kind, description=text, metadata=None)
    found = associated_images(opened(path), True)
    assert {name: int(pixels.mean()) for name, pixels in found.items() if name != "thumbnail"} == {
        "label": 40,
        "macro": 90,
        "label-2": 60,
    }


def test_a_damaged_picture_says_so(tmp_path):
    path = write_slide(tmp_path / "a.svs", Shape(y=300, x=400), identifying=True)
    with tifffile.TiffFile(path) as file:
        (page,) = (page for page in file.pages if "label" in page.description)
        offset = page.dataoffsets[0]
    data = bytearray(path.read_bytes())
    data[offset : offset + 40] = bytes(40)
    path.write_bytes(data)
    source = opened(path)
    with pytest.raises(DamagedError):
        read_associated(source, "label", keep_identifying=True)
    assert read_associated(source, "macro", keep_identifying=True).shape == (100, 120, 3)


OME = """<OME Creator="OME Bio-Formats 6.7.0" UUID="urn:uuid:1"><Experimenter ID="E" LastName="Penelope"/>
<Instrument ID="I:0"><Microscope Manufacturer="Zeiss" Model="the one of Penelope" SerialNumber="950291"/>
<Objective ID="O:0" NominalMagnification="10" LensNA="0.3"/>
<Objective ID="O:1" NominalMagnification="40" LensNA="0.95" Immersion="Oil" Correction="PlanApo"/></Instrument>
<Image ID="Image:9" Name="label"><Pixels {sizes} SizeC="1"><Channel/><TiffData IFD="2"/></Pixels></Image>
<Image ID="Image:0" Name="Penelope"><AcquisitionDate>2019-01-02T03:04:05</AcquisitionDate>
<InstrumentRef ID="I:0"/><ObjectiveSettings ID="O:1"/><Pixels {sizes} SizeC="2">
<Channel Name="DAPI" Color="65535" EmissionWavelength="461" ExcitationWavelength="0.365" ExcitationWavelengthUnit="µm"
 IlluminationType="Epifluorescence" Fluor="Penelope's dye"><DetectorSettings Gain="2.5"/></Channel>
<Channel Name="CD3" ContrastMethod="Penelope" EmissionWavelength="x"/><TiffData IFD="0" PlaneCount="2"/>
<Plane TheC="0" ExposureTime="12" ExposureTimeUnit="ms"/>
<Plane TheC="1" ExposureTime="0.5"/></Pixels></Image></OME>"""
SIZES = 'DimensionOrder="XYCZT" Type="uint8" SizeX="40" SizeY="30" SizeZ="1" SizeT="1"'


def test_ome_xml(tmp_path):
    planes = photo(30, 40, channels=3)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        for number in range(3):
            text = OME.format(sizes=SIZES).encode() if number == 0 else None
            file.write(planes[..., number], description=text, metadata=None, photometric="minisblack")
    source = opened(tmp_path / "a.ome.tif")
    extras = read_extras(source)
    assert extras.technical == {
        "compression": "none",
        "software": ["OME Bio-Formats 6.7.0"],
        "vendor": "Zeiss",
        "objective_power": 40,
        "objective_na": 0.95,
        "objective_immersion": "Oil",
        "objective_correction": "PlanApo",
        "channels": [
            {
                "illumination": "Epifluorescence",
                "excitation_nm": 365.0,
                "emission_nm": 461.0,
                "exposure_s": 0.012,
                "gain": 2.5,
            },
            {"exposure_s": 0.5},
        ],
    }
    assert "950291" in extras.identifying["ImageDescription"]
    assert [channel.color for channel in source.info.channels] == ["0000FF", None]
    assert extras.identifying_images == ("label",)
    label = read_associated(source, "label", keep_identifying=True)
    np.testing.assert_array_equal(label[..., 0], planes[..., 2])


def test_channels_that_are_chosen_take_their_facts_along(tmp_path):
    write_stack(
        tmp_path / "a.ome.tif",
        stack((3, 40, 40)),
        axes="CYX",
        Channel={"Name": ["a", "b", "c"], "EmissionWavelength": [450, 520, 600]},
    )
    source = choose(opened(tmp_path / "a.ome.tif"), bands=["c", "a"])
    assert read_extras(source).technical["channels"] == [{"emission_nm": 600.0}, {"emission_nm": 450.0}]


def test_views_pass_everything_on(shared_data):
    path = str(shared_data / "slides" / "CMU-1-Small-Region.svs")
    plain = open_source(path)
    for view in (open_source(f"{path}#kind=labels"), choose(plain, mpp=0.7)):
        assert read_extras(view) == read_extras(plain)
        assert set(associated_images(view, True)) == {"thumbnail", "label", "macro"}


def test_openslide(shared_data):
    extras = read_extras(opened(shared_data / "slides" / "test3-DAPI-2-387.ndpi"))
    assert extras.technical == {
        "vendor": "Hamamatsu",
        "model": "C9600-12",
        "software": ["NDP.scan 2.5.89"],
        "objective_power": 40,
        "slide_centre_offset_yx_mm": [-0.096063, 12.53872],
    }
    assert extras.identifying["hamamatsu.NDP.S/N"] == "950291"
    assert extras.identifying["tiff.DateTime"] == "2017:02:07 13:06:43"
    assert not any(name.startswith("openslide.level") for name in extras.identifying)
    assert extras.identifying_images == ("macro",)
    macro = read_associated(opened(shared_data / "slides" / "test3-DAPI-2-387.ndpi"), "macro", keep_identifying=True)
    assert macro.shape == (406, 1188, 3)


def test_dicom(tmp_path):
    elements = {
        "Manufacturer": "Leica Biosystems",
        "ManufacturerModelName": "GT450 DX",
        "SoftwareVersions": ["1.2.10", "3.0.0b2"],
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": ["12.5"],
        "DeviceSerialNumber": "950291",
        "FocusMethod": "AUTO",
        "StudyDate": "20190102",
    }
    save_dicom(tmp_path / "a.dcm", elements=elements)
    label = save_dicom(tmp_path / "b.dcm", flavour="LABEL", matrix=(5, 7), tile=4)
    macro = save_dicom(tmp_path / "c.dcm", flavour="OVERVIEW", pixels=pixels_of((6, 6), seed=3), matrix=(6, 6))
    save_dicom(tmp_path / "d.dcm", flavour="LABEL", series="1.2.99")
    source = opened(tmp_path / "a.dcm")
    extras = read_extras(source)
    assert extras.technical == {
        "vendor": "Leica Biosystems",
        "model": "GT450 DX",
        "software": ["1.2.10", "3.0.0b2"],
        "lossy_compression": "01",
        "lossy_ratio": [12.5],
        "focus_method": "AUTO",
        "image_type": ["DERIVED", "PRIMARY", "VOLUME", "NONE"],
    }
    assert extras.identifying["PatientName"] == "Secret^Patient"
    assert extras.identifying["DeviceSerialNumber"] == "950291"
    assert "Rows" not in extras.identifying
    assert associated_images(source, False) == {}
    found = associated_images(source, True)
    assert set(found) == {"label", "macro"}
    np.testing.assert_array_equal(found["label"], label)
    np.testing.assert_array_equal(found["macro"], macro)


def store(path, **own):
    """Write a store as `tilestream ingest` does, as far as facts and pictures go."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.create_array("0/image", data=np.zeros((3, 8, 8), np.uint8), dimension_names=["c", "y", "x"])
    datasets = [{"path": "0/image", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]}]
    axes = [{"name": name, "type": "channel" if name == "c" else "space"} for name in "cyx"]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"name": "x", "axes": axes, "datasets": datasets}]}
    group.attrs["tilestream"] = {"store": "pyramid", "format": 1, **own}
    return group


def test_our_own_store(tmp_path):
    label, thumbnail = photo(9, 12), photo(4, 6)
    group = store(
        tmp_path / "a.zarr",
        icc=base64.b64encode(PROFILE).decode(),
        technical={"objective_power": 20, "vendor": "Penelope", "who": "Penelope"},
        identifying={"ImageDescription": "Penelope"},
        associated=["label", "thumbnail", "../0"],
    )
    group.create_array("associated/label/image", data=np.moveaxis(label, 2, 0).copy(), dimension_names=["c", "y", "x"])
    group.create_array("associated/thumbnail/image", data=thumbnail, dimension_names=["y", "x", "c"])
    group.attrs["note"] = "of Penelope"
    source = opened(tmp_path / "a.zarr")
    assert read_extras(source) == Extras(
        icc=PROFILE,
        technical={"objective_power": 20},  # the whitelist again: anybody can write such an attribute
        identifying={"note": "of Penelope", "ImageDescription": "Penelope"},
        identifying_images=("label",),
    )
    assert source.info.associated == ("thumbnail",)
    np.testing.assert_array_equal(source.read_associated("thumbnail"), thumbnail)
    with pytest.raises(ConfigError):
        source.read_associated("label")
    np.testing.assert_array_equal(associated_images(source, True)["label"], label)


@pytest.mark.parametrize("own", [{}, {"icc": 5, "technical": [], "identifying": "x", "associated": 3}])
def test_stores_without_facts(tmp_path, own):
    store(tmp_path / "a.zarr", **own)
    assert read_extras(opened(tmp_path / "a.zarr")) == Extras()


@pytest.mark.parametrize("icc", ["no base64!", base64.b64encode(b"x" * 200).decode()])
def test_stores_with_a_broken_profile(tmp_path, icc):
    store(tmp_path / "a.zarr", icc=icc)
    extras = read_extras(opened(tmp_path / "a.zarr"))
    assert extras.icc is None
    assert "broken" in extras.notes[0]


def test_tags_outside_the_file_cost_no_image(tmp_path):
    pixels = photo(32, 32)
    far = ("s", b"x" * 400)
    tags = image_tags(32, 32, samples=3) | {315: far, 34675: far, 305: ("s", b"GDAL 3.1\0")}
    path = write_tiff(tmp_path / "a.tif", Page(tags=tags, pieces=[pixels.tobytes()], tiled=False))
    data = bytearray(path.read_bytes())
    for code in (315, 34675):
        at = data.index(struct.pack("<HHI", code, 2, 400)) + 8
        data[at : at + 4] = struct.pack("<I", 1 << 30)
    path.write_bytes(data)
    source = opened(path)
    extras = read_extras(source)
    assert (extras.icc, extras.technical) == (None, {"software": ["GDAL 3.1"], "compression": "none"})
    assert len(extras.notes) == 2
    assert "Artist" in extras.notes[1]
    np.testing.assert_array_equal(source.read_block(0, 0, 0).pixels, pixels)


def test_series_of_bioformats2raw(tmp_path):
    """The first series of this one is the label."""
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    images = [photo(30, 40, channels=2, seed=seed) for seed in range(3)]
    for number, image in enumerate(images):
        save_ome(tmp_path / "a.zarr" / str(number), [np.moveaxis(image, 2, 0)])
    plain = opened(tmp_path / "a.zarr")
    assert (plain.info.axes["series"], read_extras(plain).identifying_images) == (3, ())
    (tmp_path / "a.zarr" / "OME").mkdir()
    more = f'<Image Name="more of Penelope"><Pixels {SIZES} SizeC="2"/></Image></OME>'
    text = OME.format(sizes=SIZES).replace("</OME>", more)
    (tmp_path / "a.zarr" / "OME" / "METADATA.ome.xml").write_text(text)
    source = opened(tmp_path / "a.zarr")
    assert source.info.axes["series"] == 2
    np.testing.assert_array_equal(source.read_block(0, 0, 0).pixels, images[1])
    np.testing.assert_array_equal(source.isel(series=1).read_block(0, 0, 0).pixels, images[2])
    extras = read_extras(source)
    assert extras.technical["objective_power"] == 40
    assert extras.technical["channels"][0]["emission_nm"] == 461.0
    assert "channels" not in read_extras(source.isel(series=1)).technical
    assert "Penelope" in extras.identifying["OME/METADATA.ome.xml"]
    assert set(associated_images(source, False)) == set()
    np.testing.assert_array_equal(associated_images(source, True)["label"], images[0])
    (tmp_path / "a.zarr" / "OME" / "METADATA.ome.xml").write_text(text[:-9])
    assert opened(tmp_path / "a.zarr").info.axes["series"] == 3
