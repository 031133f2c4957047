"""Products of satellites made by code: SAFE folders, Landsat folders in each form of their MTL, control points."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
import tifffile
from rasterio.transform import Affine

from tilestream.types import Array

CORNER = (500000.0, 4000000.0)


def noise(size, seed, dtype="uint16", high=9999):
    return np.random.default_rng(seed).integers(1, high, (size, size), dtype)


def save_band(path, pixels, *, step=10.0, origin=CORNER, nodata="0", tile=32, compression="zlib", code=32629):
    geo = [(33550, "d", 3, (step, step, 0.0), True), (33922, "d", 6, (0, 0, 0, *origin, 0), True)]
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, code)
    tags = [*geo, (34735, "H", len(keys), keys, True)]
    tags += [] if nodata is None else [(42113, "s", 0, nodata, True)]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels, tile=(tile, tile), extratags=tags, compression=compression, metadata=None)


def save_jp2(path, pixels, *, step=10.0, tile=64, **options):
    """Lossless JPEG 2000 in tiles, its place in GML, as ESA writes it."""
    plain = Path(path).with_suffix(".plain.tif")
    plain.parent.mkdir(parents=True, exist_ok=True)
    profile: dict[str, Any] = {"height": pixels.shape[0], "width": pixels.shape[1], "count": 1, "dtype": pixels.dtype}
    place = Affine(step, 0.0, CORNER[0], 0.0, -step, CORNER[1])
    with rasterio.open(plain, "w", crs="EPSG:32629", transform=place, **profile) as file:
        file.write(pixels, 1)
    options = {"GMLJP2": "YES", "GEOJP2": "NO", "REVERSIBLE": "YES", "QUALITY": 100, **options}
    rasterio.shutil.copy(plain, path, driver="JP2OpenJPEG", BLOCKXSIZE=tile, BLOCKYSIZE=tile, **options)
    plain.unlink()


def save_gcps(path, pixels, gcps):
    """GeoTIFF with ground control points `(row, col, x, y, z)` and no affine."""
    profile: dict[str, Any] = {"height": pixels.shape[0], "width": pixels.shape[1], "count": 1, "dtype": pixels.dtype}
    points = [rasterio.control.GroundControlPoint(*point) for point in gcps]
    profile |= {"tiled": True, "blockxsize": 32, "blockysize": 32, "gcps": points, "crs": "EPSG:4326"}
    with rasterio.open(path, "w", driver="GTiff", **profile) as file:
        file.write(pixels, 1)


def save_rotated(path, pixels, affine):
    profile: dict[str, Any] = {"height": pixels.shape[0], "width": pixels.shape[1], "count": 1, "dtype": pixels.dtype}
    with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32629", transform=Affine(*affine), **profile) as file:
        file.write(pixels, 1)


GRANULE = "GRANULE/L2A_T29RKH_A024344_20200219T113105/IMG_DATA"
STEM = "T29RKH_20200219T112111"


def save_safe(
    folder, bands, *, level="L2A", baseline="04.00", offset=-1000, listed=(), quantification=10000, names=None
) -> tuple[str, dict[str, Array]]:
    """Save a SAFE with bands `{"B02": 10, …}` (metres per pixel), SCL among them; return its path and their pixels."""
    pixels, files = {}, []
    for number, (band, metres) in enumerate(bands.items()):
        inside = f"R{metres}m/{STEM}_{band}_{metres}m" if level == "L2A" else f"{STEM}_{band}"
        size = 120 * 10 // metres
        made = noise(size, number, "uint8", 12) if band == "SCL" else noise(size, number)
        save_jp2(Path(folder) / GRANULE / f"{inside}.jp2", made, step=float(metres))
        pixels[band] = made
        files.append(f"{GRANULE}/{inside}")
    files += [f"{GRANULE}/R20m/{STEM}_{band}_20m" for band in listed]
    ids = [*range(13)] if names is None else names
    tag = "BOA_ADD_OFFSET" if level == "L2A" else "RADIO_ADD_OFFSET"
    offsets = "" if offset is None else "".join(f'<{tag} band_id="{n}">{offset}</{tag}>' for n in ids)
    quantity = "BOA_QUANTIFICATION_VALUE" if level == "L2A" else "QUANTIFICATION_VALUE"
    text = f"""<?xml version="1.0" encoding="UTF-8"?>
<n1:Level-2A_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-2A.xsd">
<n1:General_Info><Product_Info><PRODUCT_START_TIME>2020-02-19T11:21:11.024Z</PRODUCT_START_TIME>
<PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE><Granule>
{"".join(f"<IMAGE_FILE>{name}</IMAGE_FILE>" for name in files)}
<IMAGE_FILE>{GRANULE}/R10m/{STEM}_TCI_10m</IMAGE_FILE></Granule></Product_Info>
<Product_Image_Characteristics><{quantity} unit="none">{quantification}</{quantity}>{offsets}
</Product_Image_Characteristics></n1:General_Info></n1:Level-2A_User_Product>"""
    (Path(folder) / f"MTD_MSI{level}.xml").write_text(text, encoding="utf-8")
    return str(folder), pixels


def landsat_groups(stem, bands, *, level="L2SP", collection=2) -> dict[str, dict[str, str]]:
    """Return the lines of an MTL for bands such as `{"4": "SR_B4"}`."""
    is_c2 = collection == 2
    contents = {"LANDSAT_PRODUCT_ID": stem, "COLLECTION_NUMBER": f"{collection:02d}"}
    contents["PROCESSING_LEVEL" if is_c2 else "DATA_TYPE"] = level
    contents |= {f"FILE_NAME_BAND_{number}": f"{stem}_{name}.TIF" for number, name in bands.items()}
    key = "FILE_NAME_QUALITY_L1_PIXEL" if is_c2 else "FILE_NAME_BAND_QUALITY"
    contents[key] = f"{stem}_{'QA_PIXEL' if is_c2 else 'BQA'}.TIF"
    image = {
        "SPACECRAFT_ID": "LANDSAT_8",
        "SENSOR_ID": "OLI_TIRS",
        "DATE_ACQUIRED": "2020-12-04",
        "SCENE_CENTER_TIME": "18:55:16.1234567Z",
        "SUN_ELEVATION": "18.80722985",
    }
    optical = [number for number in bands if not number.startswith(("ST_", "10", "11"))]
    toa = {f"REFLECTANCE_MULT_BAND_{n}": "2.0000E-05" for n in optical}
    toa |= {f"REFLECTANCE_ADD_BAND_{n}": "-0.100000" for n in optical}
    toa |= {f"RADIANCE_MULT_BAND_{n}": "3.3420E-04" for n in bands} | {f"RADIANCE_ADD_BAND_{n}": "0.1" for n in bands}
    surface = {f"REFLECTANCE_MULT_BAND_{n}": "2.75e-05" for n in optical}
    surface |= {f"REFLECTANCE_ADD_BAND_{n}": "-0.2" for n in optical}
    heat = {"TEMPERATURE_MULT_BAND_ST_B10": "0.00341802", "TEMPERATURE_ADD_BAND_ST_B10": "149.0"}
    if not is_c2:
        return {
            "METADATA_FILE_INFO": {"COLLECTION_NUMBER": "01"},
            "PRODUCT_METADATA": contents | image,
            "RADIOMETRIC_RESCALING": toa,
        }
    groups = {"PRODUCT_CONTENTS": contents, "IMAGE_ATTRIBUTES": image}
    if level.startswith("L2"):
        groups |= {"LEVEL2_SURFACE_REFLECTANCE_PARAMETERS": surface, "LEVEL2_SURFACE_TEMPERATURE_PARAMETERS": heat}
    return groups | {"LEVEL1_RADIOMETRIC_RESCALING": toa}


def save_mtl(path, groups, *, root="LANDSAT_METADATA_FILE"):
    path = Path(path)
    if path.suffix == ".json":
        path.write_text(json.dumps({root: groups}))
    elif path.suffix == ".xml":
        lines = {n: "".join(f"<{key}>{value}</{key}>" for key, value in group.items()) for n, group in groups.items()}
        path.write_text(f"<{root}>{''.join(f'<{name}>{text}</{name}>' for name, text in lines.items())}</{root}>")
    else:
        text = [f"GROUP = {root}"]
        for name, lines in groups.items():
            text += [f"  GROUP = {name}", *(f'    {key} = "{value}"' for key, value in lines.items())]
            text += [f"  END_GROUP = {name}"]
        path.write_text("\n".join([*text, f"END_GROUP = {root}", "END", ""]))


STEM_L8 = "LC08_L2SP_047027_20201204_20210313_02_T1"


def save_landsat(
    folder, bands, *, form="txt", level="L2SP", collection=2, stem=STEM_L8
) -> tuple[str, dict[str, Array]]:
    """Save a Landsat scene with bands such as `{"4": "SR_B4"}`; the panchromatic 8 is finer and half a pixel off."""
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    pixels = {}
    for seed, (number, name) in enumerate(bands.items()):
        size, step, shift = (119, 15.0, 7.5) if number == "8" else (60, 30.0, 0.0)
        pixels[number] = noise(size, seed)
        origin = (CORNER[0] + shift, CORNER[1] - shift)
        save_band(folder / f"{stem}_{name}.TIF", pixels[number], step=step, origin=origin, nodata=None)
    qa = np.where(noise(60, 99) % 3 == 0, 22280, 21824).astype(np.uint16)  # cloud with high confidence, or clear
    qa[0, 0] = 1  # fill
    pixels["QA"] = qa
    layer = "QA_PIXEL" if collection == 2 else "BQA"
    save_band(folder / f"{stem}_{layer}.TIF", qa, step=30.0, nodata="1" if collection == 2 else None)
    root = "LANDSAT_METADATA_FILE" if collection == 2 else "L1_METADATA_FILE"
    groups = landsat_groups(stem, bands, level=level, collection=collection)
    save_mtl(folder / f"{stem}_MTL.{form}", groups, root=root)
    return str(folder), pixels
