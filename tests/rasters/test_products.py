# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What products say about their numbers: Fmask of HLS, the offset of Sentinel-2, the formulas of Landsat."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from prithvi_hf.models.prithvi.configuration_prithvi import PRITHVI_BANDS
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.rasters.derived import MaskedRaster
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.rasters.granules import StatedFile
from prithvi_hf.rasters.products import PIXEL_KINDS, QUALITY_LAYERS, check_pixel_kinds, find_offset
from prithvi_hf.rasters.radiometry import RadiometryWarning
from prithvi_hf.rasters.raster import ArrayRaster
from prithvi_hf.rasters.write_geotiff import write_geotiff
from prithvi_hf.scenes.scene import open_scene
from tests.granule_factory import (
    HLS_TRANSFORM,
    LANDSAT_5,
    LANDSAT_8,
    PRODUCT,
    REFLECTANCE,
    SENTINEL_2_ORDER,
    ZONE_10,
    product_folder,
    read_bands,
    read_reflectance,
    same_size_bands,
    set_scale,
    stack_bands,
    write_bands,
    write_sentinel2,
)
from tests.scene_factory import scene_pixels, tiny_processor, write_scene


# Bits of Fmask (HLS user guide 2.0) and of QA_PIXEL (USGS, Landsat Collection 2), classes of SCL (ESA).
FMASK = {"cirrus": 0, "cloud": 1, "adjacent": 2, "shadow": 3, "snow": 4, "water": 5}
QA_PIXEL = {"cirrus": 2, "cloud": 3, "adjacent": 1, "shadow": 4, "snow": 5, "water": 7}
SCL = {"cirrus": {10}, "cloud": {8, 9}, "shadow": {3}, "snow": {11}, "water": {6}}


def mask_all_values(product, names, dtype):
    """Whether each value of a type is masked for some kinds of pixels."""
    layer = QUALITY_LAYERS[product]
    values = np.arange(np.iinfo(dtype).max + 1, dtype=dtype).reshape(1, 16, -1)
    frame = ArrayRaster(np.zeros(values.shape, dtype=np.int16))
    masked = MaskedRaster(frame, ArrayRaster(values), layer.find_flags(names), fill=layer.fill)
    return masked.read_nodata_mask().ravel()


@pytest.mark.parametrize(
    ("product", "bits", "dtype", "fill"), [("HLS", FMASK, np.uint8, 255), ("Landsat", QA_PIXEL, np.uint16, 1)]
)
@given(names=st.lists(st.sampled_from(PIXEL_KINDS), unique=True, min_size=1))
def test_flags_of_bits_mask_their_pixels_and_those_that_were_not_observed(product, bits, dtype, fill, names):
    values = np.arange(np.iinfo(dtype).max + 1)
    expected = np.logical_or.reduce([values >> bits[name] & 1 == 1 for name in names]) | (values == fill)
    np.testing.assert_array_equal(mask_all_values(product, names, dtype), expected)


@given(names=st.lists(st.sampled_from(sorted(SCL)), unique=True, min_size=1))
def test_classes_of_a_scene_classification_mask_their_pixels_and_those_without_data(names):
    masked = set.union({0}, *(SCL[name] for name in names))
    np.testing.assert_array_equal(
        mask_all_values("Sentinel-2", names, np.uint8), [value in masked for value in range(256)]
    )


def test_kinds_of_pixels_that_are_not_or_that_a_layer_does_not_tell_apart_are_refused():
    with pytest.raises(ValueError, match=r"fmask: expected some of cirrus, .* found 'clouds'"):
        check_pixel_kinds(["cloud", "clouds"])
    with pytest.raises(ValueError, match=r"which the layer SCL tells apart, found adjacent. Leave that out"):
        QUALITY_LAYERS["Sentinel-2"].find_flags(["cloud", "adjacent"])


def test_clouds_of_sentinel_2_and_landsat_are_nodata_by_the_files_beside_their_bands(tmp_path):
    bands = same_size_bands()
    folder = tmp_path / PRODUCT.format(baseline="0400")
    write_sentinel2(folder, bands, suffix="")
    for side, classes in ((36, 9), (12, 4)):  # the finer one counts
        write_sentinel2(folder, {"SCL": np.full((side, side), classes, dtype=np.uint8)})
    with pytest.warns(RadiometryWarning):
        scene = open_scene(folder, image_processor=tiny_processor(), fmask=["cloud"])
    assert scene.frames[0].read_nodata_mask().all()

    names = {band: f"LC08_L2SP_044034_20210508_20210518_02_T1_{code}.TIF" for band, code in LANDSAT_8.items()}
    write_bands(tmp_path / "landsat", names, nodata=0)
    flags = np.full((24, 24), 0b0101_0101_1100_0000, dtype=np.uint16)  # clear water, of low confidences
    flags[3, 4], flags[5, 6], flags[7, 8] = 1 << 3, 1 << 4, 1
    write_geotiff(
        tmp_path / "landsat" / "LC08_L2SP_044034_20210508_20210518_02_T1_QA_PIXEL.TIF",
        flags,
        crs=ZONE_10,
        transform=HLS_TRANSFORM,
        nodata=1,
    )
    scene = open_scene(tmp_path / "landsat", image_processor=tiny_processor(), fmask=["cloud"])
    expected = np.zeros((24, 24), dtype=bool)
    expected[[3, 7], [4, 8]] = True
    np.testing.assert_array_equal(scene.frames[0].read_nodata_mask(), expected)
    np.testing.assert_array_equal(scene.frames[0].read_excluded(), expected & (flags != 1))
    assert scene.files[-1].endswith("QA_PIXEL.TIF")


def test_a_file_says_its_own_offset_by_a_metadata_item_whatever_the_product_is_called(tmp_path):
    """As where a catalog states that it has applied the offset already."""
    for item, expected in (("0", 0.2), ("-1000", 0.1)):
        folder = tmp_path / item / PRODUCT.format(baseline="0400")
        numbers = {band: np.full((36, 36), 2000, dtype=np.uint16) for band in SENTINEL_2_ORDER}
        for path in write_sentinel2(folder, numbers, suffix=""):
            with rasterio.open(path, "r+") as dataset:
                dataset.update_tags(BOA_ADD_OFFSET=item)
        scene = open_scene(folder, image_processor=PrithviImageProcessor(), scale="apply")
        np.testing.assert_allclose(read_bands(scene), expected, rtol=1e-6)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(BOA_ADD_OFFSET="-0.1")
    with pytest.raises(ValueError, match=r"expected a whole number in the metadata item BOA_ADD_OFFSET, found '-0.1'"):
        open_scene(folder, image_processor=PrithviImageProcessor())


@pytest.mark.parametrize(("baseline", "offset"), [("0301", 0), ("0400", -1000), ("0510", -1000)])
def test_the_offset_of_the_baseline_is_applied_once(tmp_path, baseline, offset):
    bands = same_size_bands()
    bands["B02"][0, 0] = 0  # no data, which stays so
    write_sentinel2(product_folder(tmp_path, baseline), bands)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scene = open_scene(tmp_path, image_processor=tiny_processor())
    assert [one.category for one in caught] == ([RadiometryWarning] if offset else [])
    values, expected = read_bands(scene).astype(float), stack_bands(bands) + offset
    assert np.isnan(values[0, 0, 0]) if offset else values[0, 0, 0] == 0
    values[0, 0, 0] = expected[0, 0, 0] = 0
    np.testing.assert_array_equal(values, expected)


def test_where_nothing_tells_the_baseline_it_has_to_be_given(tmp_path):
    bands = same_size_bands()
    write_sentinel2(tmp_path, bands)
    with pytest.raises(ValueError, match=r"found none in the names .* Give boa_add_offset: -1000"):
        open_scene(tmp_path, image_processor=tiny_processor())
    np.testing.assert_array_equal(
        read_bands(open_scene(tmp_path, image_processor=tiny_processor(), boa_add_offset=0)), stack_bands(bands)
    )
    with pytest.warns(RadiometryWarning):
        scene = open_scene(tmp_path, image_processor=tiny_processor(), boa_add_offset=-1000)
    np.testing.assert_array_equal(read_bands(scene), stack_bands(bands) - 1000)
    scene = open_scene(tmp_path, image_processor=tiny_processor(), scale="ignore")
    np.testing.assert_array_equal(read_bands(scene), stack_bands(bands))


def test_the_baseline_is_read_from_metadata_and_tags(tmp_path):
    folder = tmp_path / "product" / "IMG_DATA"
    paths = write_sentinel2(folder, same_size_bands())
    assert find_offset(paths[0]) is None
    assert find_offset(paths[0], "05.09") == -1000
    assert find_offset(paths[0], "02.14") == 0
    text = "<x><PROCESSING_BASELINE>04.00</PROCESSING_BASELINE></x>"
    (tmp_path / "product" / "MTD_MSIL2A.xml").write_text(text)
    assert find_offset(paths[0]) == -1000
    with pytest.raises(ValueError, match="found several: 0301 in the item PROCESSING_BASELINE, 0400 in"):
        find_offset(paths[0], "03.01")
    for path in paths:
        with rasterio.open(path, "r+") as dataset:
            dataset.update_tags(PROCESSING_BASELINE="04.00")
    (tmp_path / "product" / "MTD_MSIL2A.xml").unlink()
    with pytest.warns(RadiometryWarning):
        open_scene(folder, image_processor=tiny_processor())


def test_products_that_the_user_processed_tell_nothing(tmp_path):
    assert find_offset(f"{PRODUCT.format(baseline='9999')}_B02_10m.tif") is None


def open_quietly(frames, processor=None, **options):
    """Opens a scene and reads its reflectance; what is certain is no matter of warnings."""
    processor = processor or tiny_processor()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_reflectance(open_scene(frames, image_processor=processor, **options), processor)


LANDSAT_NAMES = [
    ("LC08_L2SP_044034_20210508_20210518_02_T1_{}.TIF", LANDSAT_8),
    ("LC09_L2SR_044034_20220508_20220518_02_T2_{}.tif", LANDSAT_8),
    ("subset_LC08_L2SP_044034_20210508_20210518_02_T1_{}_clip.tif", LANDSAT_8),
    ("LT05_L2SP_044034_19950508_20200912_02_T1_{}.TIF", LANDSAT_5),
    ("LE07_L2SP_044034_20010508_20200912_02_T1_{}.TIF", LANDSAT_5),
    ("LT04_L2SP_044034_19900508_20200912_02_T1_{}.TIF", LANDSAT_5),
    ("LC08_CU_003010_20210508_20210515_02_{}.TIF", LANDSAT_8),  # analysis ready data
    ("LC08_044034_20210508.{}.tif", LANDSAT_8),  # Earth Engine
    ("LC08_L2SP_044034_20210508_20210518_02_T1/{}.TIF", LANDSAT_8),
    ("deep/LT05_L2SP_044034_19950508_20200912_02_T1/bands/{}.tif", LANDSAT_5),
]


@pytest.mark.parametrize(("name", "bands"), LANDSAT_NAMES)
def test_landsat_level_2_is_brought_to_the_models_units_once_in_lists_and_folders(tmp_path, name, bands):
    names = {band: name.format(code) for band, code in bands.items()}
    for file in names.values():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    files = write_bands(tmp_path, names)
    # What else lies there; a thermal B6 or B10 is no short-wave infrared, and no file here is read.
    for other in ("QA_PIXEL", "ST_B10" if bands is LANDSAT_8 else "ST_B6", "SR_QA_AEROSOL"):
        (tmp_path / name.format(other)).write_bytes(b"never opened")
    expected = {band: pytest.approx(value, abs=2e-5) for band, value in REFLECTANCE.items()}
    for frames in ([files], [files[::-1]], tmp_path):
        assert open_quietly(frames) == expected
    scene = open_scene(files, image_processor=tiny_processor())
    assert scene.dates[0].strftime("%m%d") == "0508"
    assert np.isnan(scene.frames[0].read()[:, :, 0]).all(), "0 is nodata, with or without a tag"
    reflectance = tiny_processor(image_mean=[0.1] * 6, image_std=[0.05] * 6)
    assert read_reflectance(open_scene([files], image_processor=reflectance), reflectance, 1) == expected


@pytest.mark.parametrize(
    ("name", "bands"),
    [
        ("{}.TIF", LANDSAT_8),
        ("LE07.002_{}_CU_doy2001128_aid0001.tif", LANDSAT_5),  # AppEEARS
        ("lt05_l2sp_044034_19950508_20200912_02_t1_{}.tif", LANDSAT_5),
        ("{}_median.tif", LANDSAT_8),
    ],
)
def test_files_called_as_landsats_level_2_are_brought_to_the_models_units(tmp_path, name, bands):
    is_lower = name[0].islower()
    files = write_bands(
        tmp_path, {band: name.format(code.lower() if is_lower else code) for band, code in bands.items()}, nodata=0
    )
    expected = {band: pytest.approx(value, abs=2e-5) for band, value in REFLECTANCE.items()}
    for frames in ([files], tmp_path):
        assert open_quietly(frames) == expected


def test_a_model_of_landsats_numbers_takes_them_as_they_are(tmp_path):
    files = write_bands(tmp_path, {band: LANDSAT_NAMES[0][0].format(code) for band, code in LANDSAT_8.items()})
    numbers = [round((value + 0.2) / 0.0000275) for value in REFLECTANCE.values()]
    raw = tiny_processor(image_mean=[9200, 9900, 9800, 17000, 14000, 11000], image_std=[1500] * 6)
    assert open_scene([files], image_processor=raw).frames[0].read()[:, 5, 5].tolist() == numbers
    # Its recipe scaled them: the processor does so, and nothing before it.
    scaled = tiny_processor(rescale_factor=0.0000275, rescale_offset=-0.2, image_mean=[0.1] * 6, image_std=[0.05] * 6)
    assert open_scene([files], image_processor=scaled).frames[0].read()[:, 5, 5].tolist() == numbers


def test_landsat_bands_of_one_file_are_told_by_its_name_or_by_theirs(tmp_path):
    numbers = np.array([(value + 0.2) / 0.0000275 for value in REFLECTANCE.values()])
    pixels = np.broadcast_to(numbers.round().astype(np.uint16)[:, None, None], (6, 24, 24)).copy()
    expected = {band: pytest.approx(value, abs=2e-5) for band, value in REFLECTANCE.items()}
    named = write_scene(tmp_path / "LC09_L2SP_044034_20210508_20210518_02_T1_stack.tif", pixels, nodata=0)
    described = write_scene(tmp_path / "export.tif", pixels, nodata=0, descriptions=list(LANDSAT_8.values()))
    earth_engine = write_scene(
        tmp_path / "LC08_044034_20210508.tif", pixels, nodata=0, descriptions=list(LANDSAT_8.values())
    )
    for path in (named, described, earth_engine, described.read_bytes(), GeoTiffRaster(described)):
        assert open_quietly(path) == expected
    # Floats of these names may be reflectance: under a product's name they are refused, else taken as they are.
    reflectance = (pixels * 0.0000275 - 0.2).astype(np.float32)
    floats = write_scene(tmp_path / "floats.tif", reflectance, nodata=None, descriptions=list(LANDSAT_8.values()))
    assert open_scene(floats, image_processor=tiny_processor()).frames[0].dtype == "float32"
    path = write_scene(tmp_path / "LC08_L2SP_044034_20210508_20210518_02_T1.tif", reflectance, nodata=None)
    with pytest.raises(ValueError, match="found pixels of float32, which are not digital numbers of a Landsat"):
        open_scene(path, image_processor=tiny_processor())
    assert open_scene(path, image_processor=tiny_processor(), rescale_factor=10_000).frames[0].dtype == "float32"


@pytest.mark.parametrize("form", ["{} = {}\n", '"{}": "{}",\n', "<{0}>{1}</{0}>\n"])
def test_landsat_level_1_needs_its_metadata(tmp_path, form):
    product = "LC08_L1TP_044034_20210508_20210518_02_T1"
    names = {band: f"{product}_{code.removeprefix('SR_')}.TIF" for band, code in LANDSAT_8.items()}
    sine = np.sin(np.radians(60))
    files = write_bands(tmp_path, names, 0.00002 / sine, -0.1 / sine)
    with pytest.raises(ValueError, match=r"found a Landsat image that is not of Level 2, without an MTL file"):
        open_scene([files], image_processor=tiny_processor())
    rows = [("SUN_AZIMUTH", "129.5"), ("SUN_ELEVATION", "60.00000000")]
    for number in range(1, 10):
        rows += [(f"REFLECTANCE_MULT_BAND_{number}", "2.0000E-05"), (f"REFLECTANCE_ADD_BAND_{number}", "-0.100000")]
    (tmp_path / f"{product}_MTL.txt").write_text("".join(form.format(*row) for row in rows))
    assert open_quietly([files]) == {band: pytest.approx(value, abs=2e-5) for band, value in REFLECTANCE.items()}


def test_collection_1_has_its_own_formula(tmp_path):
    names = {
        band: f"LC08_L1TP_044034_20170508_20170518_01_T1_sr_band{code[-1]}.tif" for band, code in LANDSAT_8.items()
    }
    files = write_bands(tmp_path, names, 0.0001, 0.0, "int16")
    assert open_quietly([files]) == pytest.approx(REFLECTANCE)


def test_sources_that_disagree_are_refused_and_those_that_agree_count_once(tmp_path):
    name = LANDSAT_NAMES[0][0]
    files = write_bands(tmp_path, {band: name.format(code) for band, code in LANDSAT_8.items()})
    for path in files:
        set_scale(path, 0.0000275, -0.2)
    expected = {band: pytest.approx(value, abs=2e-5) for band, value in REFLECTANCE.items()}
    assert open_quietly([files]) == expected
    stated = [StatedFile(str(path), (), (0.0000275,), (-0.2,), 0.0, "the item") for path in files]
    assert open_quietly([stated]) == expected
    with pytest.raises(
        ValueError, match=r"found 2.75e-05 and -0.2 by the scale and offset tags, 0.0001 and 0 by the i"
    ):
        open_scene([[StatedFile(str(path), (), (0.0001,), (0.0,), None, "the item") for path in files]])
    for path in files:
        set_scale(path, 0.0001, 0.0)
    with pytest.raises(
        ValueError, match=r"0.0001 and 0 by the scale .* 2.75e-05 and -0.2 by the definition of Landsat .* Give resc"
    ):
        open_scene([files], image_processor=tiny_processor())


SHORT = dict(zip(PRITHVI_BANDS, SENTINEL_2_ORDER, strict=True))


@pytest.mark.parametrize(
    ("folder", "name", "metadata"),
    [
        ("{}.SAFE", "{}.tif", None),
        ("{}", "{}_20m.tif", None),
        ("{}.SAFE/GRANULE/L2A_T10SGJ/IMG_DATA/R20m", "T10SGJ_20220315T184921_{}_20m.tif", None),
        ("{}.SAFE/R20m", "{}.TIF", None),
        ("my scene.SAFE", "{}.tif", "05.09"),
        ("renamed/IMG_DATA", "{}_20m.tif", "04.00"),
    ],
)
def test_short_names_belong_to_the_product_around_them(tmp_path, folder, name, metadata):
    product = "S2B_MSIL2A_20220315T184921_N0509_R113_T10SGJ_20220316T003012"
    place = tmp_path / folder.format(product)
    files = write_bands(place, {band: name.format(code) for band, code in SHORT.items()}, 0.0001, -0.1, nodata=0)
    if metadata:
        text = f"<PROCESSING_BASELINE>{metadata}</PROCESSING_BASELINE>"
        (tmp_path / Path(folder).parts[0] / "MTD_MSIL2A.xml").write_text(text)
    for frames in ([files], tmp_path):
        with pytest.warns(RadiometryWarning, match="the definition of Sentinel-2 products"):
            scene = open_scene(frames, image_processor=tiny_processor())
        assert read_reflectance(scene, tiny_processor()) == pytest.approx(REFLECTANCE)
    assert open_scene([files], image_processor=tiny_processor(), boa_add_offset=0).frames[0].dtype == "uint16"


def test_short_names_without_a_product_are_refused_in_the_type_of_its_numbers(tmp_path):
    names = {band: f"{code}.tif" for band, code in SHORT.items()}
    files = write_bands(tmp_path / "a", names, 0.0001, -0.1)
    for frames in ([files], tmp_path / "a"):
        with pytest.raises(
            ValueError, match=r"numbers of a Sentinel-2 product .* found none in the names .* Give boa"
        ):
            open_scene(frames, image_processor=tiny_processor())
    with pytest.warns(RadiometryWarning):
        scene = open_scene([files], image_processor=tiny_processor(), boa_add_offset=-1000)
    assert read_reflectance(scene, tiny_processor()) == pytest.approx(REFLECTANCE)
    harmonized = write_bands(tmp_path / "b", names, 0.0001, 0.0, "int16")
    assert open_quietly(tmp_path / "b") == open_quietly([harmonized]) == pytest.approx(REFLECTANCE)


@pytest.mark.parametrize("name", ["2022-06-01-00:00_2022-06-01-23:59", "2022-06-01-00_00_2022-06-01-23_59"])
def test_bands_of_the_copernicus_browser_are_reflectance_or_refused(tmp_path, name):
    names = {band: f"{name}_Sentinel-2_L2A_{code}_(Raw).tiff" for band, code in SHORT.items()}
    write_bands(tmp_path / "16", names, 1 / 65535, 0.0)
    with pytest.raises(ValueError, match="a band of the Copernicus Browser in uint16"):
        open_scene(tmp_path / "16", image_processor=tiny_processor())
    write_bands(tmp_path / "32", names, 1.0, 0.0, "float32")
    scene = open_scene(tmp_path / "32", image_processor=tiny_processor())
    assert read_reflectance(scene, tiny_processor(), 1) == pytest.approx(REFLECTANCE)
    assert scene.dates[0].strftime("%Y-%m-%d") == "2022-06-01"


def test_sentinel_2_of_earth_engine_is_refused_where_the_collection_decides(tmp_path):
    pixels = scene_pixels().astype(np.uint16)
    codes = [code.replace("B0", "B") for code in SENTINEL_2_ORDER]
    name = "{}T105751_{}T105912_T31TFJ.tif"
    old = write_scene(tmp_path / name.format(20210315, 20210315), pixels, nodata=0, descriptions=codes)
    np.testing.assert_array_equal(open_scene(old, image_processor=tiny_processor()).frames[0].read(), pixels)
    new = write_scene(tmp_path / name.format(20220315, 20220315), pixels, nodata=0, descriptions=codes)
    with pytest.raises(ValueError, match="boa_add_offset: -1000"):
        open_scene(new, image_processor=tiny_processor())


def test_a_vrt_of_one_file_per_band_is_read_like_the_files(tmp_path):
    files = write_bands(tmp_path, {band: LANDSAT_NAMES[0][0].format(code) for band, code in LANDSAT_8.items()})
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{number}"><Description>{band}</Description><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">{path.name}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
        "</VRTRasterBand>"
        for number, (band, path) in enumerate(zip(LANDSAT_8, files, strict=True), start=1)
    )
    vrt = tmp_path / "stack.vrt"
    vrt.write_text(
        f'<VRTDataset rasterXSize="24" rasterYSize="24"><GeoTransform>699960, 30, 0, 4400040, 0, -30'
        f"</GeoTransform>{bands}</VRTDataset>"
    )
    expected = {band: pytest.approx(value, abs=2e-5) for band, value in REFLECTANCE.items()}
    assert open_quietly(vrt, allow_vrt=True) == expected


def test_temperatures_have_a_formula_of_their_own_and_are_no_reflectance(tmp_path):
    names = {"BLUE": "LC08_L2SP_044034_20210508_20210518_02_T1_ST_B10.TIF"}
    write_bands(tmp_path, names, 0.000001, 0.0)  # a number of 50,000
    processor = PrithviImageProcessor(bands=["THERMAL_INFRARED_1"], image_mean=[2900], image_std=[100])
    with pytest.raises(ValueError, match="nothing tells the quantity that these scales lead to"):
        open_scene(tmp_path, image_processor=processor)
    kelvins = open_scene(tmp_path, scale="apply").frames[0].read()[0, 5, 5]
    assert kelvins == pytest.approx(50_000 * 0.00341802 + 149)
