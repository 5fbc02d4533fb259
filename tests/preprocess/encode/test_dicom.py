"""DICOM files that pydicom ships, and the same with other headers: shown as a viewer does, or refused by name."""

import warnings
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_windowing, pixel_array
from pydicom.sequence import Sequence

from maskstream.preprocess import DATASETS, Limits, make_shards
from maskstream.preprocess.encode.image.dicom import apply_window
from maskstream.preprocess.encode.image.encoder import ImageEncoder
from maskstream.preprocess.encode.limits import limited
from maskstream.preprocess.source import RejectError, Source
from maskstream.shards.format.manifest import Manifest

FILES = Path(pydicom.__file__).parent / "data/test_files"


def encoded(data, **settings):
    """Ending and pixels, RGB or grey, of DICOM bytes or of one of pydicom's files."""
    path = FILES / data if isinstance(data, str) else data
    made = ImageEncoder(**settings).encode(Source(id="a", path=path))
    ((ending, member),) = made.members.items()
    pixels = cv2.imdecode(np.frombuffer(member.data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert set(made.meta) == {"width", "height", "kept"}
    return ending, pixels if pixels.ndim == 2 else pixels[..., ::-1]


def changed(tmp_path, name, **fields):
    """One of pydicom's files with other fields."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = pydicom.dcmread(FILES / name)
        for field, value in fields.items():
            setattr(file, field, value)
        path = tmp_path / "changed.dcm"
        file.save_as(path)
    return path


def by_pydicom(name):
    """Values after rescaling, and levels 0 to 1 by pydicom's own windowing."""
    file = pydicom.dcmread(name)
    values = apply_modality_lut(pixel_array(file), file)
    shown = apply_windowing(values, file).astype(np.float64)
    bits, offset = file.BitsStored, 2 ** (file.BitsStored - 1) * file.PixelRepresentation
    low, high = (apply_modality_lut(np.array([end]), file)[0] for end in (-offset, 2**bits - 1 - offset))
    return values, (shown - low) / (high - low)


@pytest.mark.parametrize("name", ["MR_small.dcm", "693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm", "examples_overlay.dcm"])
@pytest.mark.filterwarnings("ignore")
def test_the_files_window_gives_the_levels(name):
    ending, pixels = encoded(name)
    assert ending == ("jpg" if name == "693_J2KI.dcm" else "png")
    _, levels = by_pydicom(FILES / name)
    assert 0 <= levels.min() < levels.max() <= 1
    assert np.abs(pixels - 255 * levels).max() < (20 if ending == "jpg" else 0.51)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_each_function_of_voi_is_pydicoms(tmp_path, function):
    path = changed(tmp_path, "CT_small.dcm", WindowCenter=40, WindowWidth=400, VOILUTFunction=function)
    assert np.abs(encoded(path)[1] - 255 * by_pydicom(path)[1]).max() < 0.51


def test_a_window_of_ones_own_is_in_hounsfield_units(tmp_path):
    values = apply_modality_lut(pixel_array(file := pydicom.dcmread(FILES / "CT_small.dcm")), file)
    pixels = encoded("CT_small.dcm", window=(40.0, 400.0))[1]
    assert (pixels[values <= 40 - 200] == 0).all()
    assert (pixels[values >= 40 + 200] == 255).all()
    assert len(np.unique(pixels)) > 100
    other = encoded(changed(tmp_path, "CT_small.dcm", WindowCenter=9000, WindowWidth=1), window=(40.0, 400.0))[1]
    assert np.array_equal(other, pixels)


def test_without_a_window_all_values_are_shown_but_padding(tmp_path):
    values = pixel_array(pydicom.dcmread(FILES / "CT_small.dcm")).astype(float)
    share = (values - values.min()) / (values.max() - values.min())
    assert np.abs(encoded("CT_small.dcm")[1] - 255 * share).max() < 0.51
    stored = pixel_array(pydicom.dcmread(FILES / "CT_small.dcm")).copy()
    stored[:40] = -2000
    path = changed(tmp_path, "CT_small.dcm", PixelData=stored.tobytes(), PixelPaddingValue=-2000)
    rest = stored[40:].astype(float)
    share = (rest - rest.min()) / (rest.max() - rest.min())
    pixels = encoded(path)[1]
    assert (pixels[:40] == 0).all()
    assert np.abs(pixels[40:] - 255 * share).max() < 0.51


def test_a_table_of_voi_comes_before_a_window(tmp_path):
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [4096, 0, 12], list(range(4095, -1, -1))
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    path = changed(tmp_path, "MR_small.dcm", VOILUTSequence=Sequence([table]))
    stored = pixel_array(pydicom.dcmread(FILES / "MR_small.dcm"))
    assert np.abs(encoded(path)[1] - 255 * (4095 - stored.astype(float)) / 4095).max() < 0.51


def test_monochrome1_is_inverted(tmp_path):
    path = changed(tmp_path, "MR_small.dcm", PhotometricInterpretation="MONOCHROME1")
    assert np.abs(encoded(path)[1].astype(int) - (255 - encoded("MR_small.dcm")[1].astype(int))).max() <= 1


def test_eight_bits_without_a_window_stay_as_they_are():
    stored = pixel_array(pydicom.dcmread(FILES / "image_dfl.dcm"))  # a deflated file
    assert np.array_equal(encoded("image_dfl.dcm")[1], stored)
    assert np.array_equal(
        encoded("liver_1frame.dcm")[1], 255 * pixel_array(pydicom.dcmread(FILES / "liver_1frame.dcm"))
    )


@pytest.mark.parametrize("name", ["examples_rgb_color.dcm", "SC_rgb_rle.dcm", "examples_jpeg2k.dcm"])
def test_colours_come_as_rgb(name):
    ending, pixels = encoded(name)
    assert ending == "png"
    assert np.array_equal(pixels, pixel_array(pydicom.dcmread(FILES / name)))


def test_colours_of_16_bits_and_of_palettes_become_8_bits():
    wide = pixel_array(pydicom.dcmread(FILES / "SC_rgb_rle_16bit.dcm"))
    assert np.abs(encoded("SC_rgb_rle_16bit.dcm")[1] - wide / 257).max() <= 0.51
    file = pydicom.dcmread(FILES / "examples_palette.dcm")
    colours = apply_color_lut(pixel_array(file), file)
    assert np.array_equal(encoded("examples_palette.dcm")[1], colours if colours.dtype == np.uint8 else colours >> 8)


def test_what_was_compressed_with_loss_becomes_a_jpeg():
    ending, pixels = encoded("SC_rgb_jpeg_dcmtk.dcm")
    assert ending == "jpg"
    assert np.abs(pixels.astype(int) - pixel_array(pydicom.dcmread(FILES / "SC_rgb_jpeg_dcmtk.dcm"))).mean() < 6


REFUSED = {
    "examples_ybr_color.dcm": "check: has 30 frames, not one image. Save each frame as a separate file",
    "rtplan.dcm": "check: is a DICOM file without an image (RT Plan Storage)",
    "MR_small_jpeg_ls_lossless.dcm": "decode: is compressed as JPEG-LS Lossless Image Compression (1.2.840.10008.1.2.4."
    "80), which pillow cannot read. `pip install pylibjpeg",
    "JPGExtended.dcm": "decode: cannot be decoded: its JPEG Extended (Process 2 and 4) is damaged or not",
    "MR_truncated.dcm": "decode: is a damaged DICOM file: reading it raised ValueError",
    "badVR.dcm": "decode: is a damaged DICOM file: reading it raised ValueError",
    "no_meta.dcm": "open: is not a JPEG, PNG, WebP, BMP, TIFF, PNM or DICOM file",
    "meta_missing_tsyntax.dcm": "decode: is a damaged DICOM file: reading it raised AttributeError",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_picture_is_refused_by_name(name):
    with pytest.raises(RejectError) as caught:
        encoded(name)
    assert str(caught.value).startswith(REFUSED[name])


@pytest.mark.parametrize("name", ["MR_small.dcm", "image_dfl.dcm", "JPEG2000.dcm", "SC_rgb_rle.dcm"])
def test_damaged_files_are_refused_or_read_and_never_else(tmp_path, name):
    """Cut off at any place, or with bytes that differ."""
    data, rng = (FILES / name).read_bytes(), np.random.default_rng(0)
    refused = 0
    for n in range(24):
        wrong = bytearray(data)
        for at in rng.integers(132, len(data), 8):
            wrong[at] ^= int(rng.integers(1, 256))
        path = tmp_path / "a.dcm"
        path.write_bytes(bytes(wrong) if n % 2 else data[: int(rng.integers(132, len(data)))])
        try:
            encoded(path)
        except RejectError:
            refused += 1
    assert refused >= 8


def test_pictures_and_deflated_data_that_are_too_large_are_not_decoded(tmp_path):
    for name, why in (("MR_small.dcm", "64x64"), ("image_dfl.dcm", "inflates to more than")):
        with limited("a", Limits(image_pixels=4000)), pytest.raises(RejectError, match=why):
            encoded(name)


def test_deflated_data_are_found_wherever_the_header_says_so(tmp_path):
    """A long private value before it hid the transfer syntax from a search of the first bytes."""
    data = (FILES / "image_dfl.dcm").read_bytes()
    version = data.index(b"\2\0\1\0OB")
    hidden = data[:version] + b"\2\0\1\0OB\0\0" + (6000).to_bytes(4, "little") + bytes(6000) + data[version + 14 :]
    (tmp_path / "a.dcm").write_bytes(hidden)
    with limited("a", Limits(image_pixels=4000)), pytest.raises(RejectError, match="inflates to more than 32000 bytes"):
        encoded(tmp_path / "a.dcm")
    np.testing.assert_array_equal(encoded(tmp_path / "a.dcm")[1], encoded("image_dfl.dcm")[1])


def test_windows_that_are_none_are_refused(tmp_path):
    for fields in ({"WindowWidth": 0}, {"WindowWidth": -3}, {"VOILUTFunction": "CUBIC"}):
        with pytest.raises(RejectError, match=r"window|VOI function"):
            encoded(changed(tmp_path, "MR_small.dcm", **fields))
    assert apply_window(np.array([0.0, 0.4, 0.6]), 1.0, 1.0, "LINEAR").tolist() == [0, 0, 1]
    with pytest.raises(ValueError, match="window must be"):
        ImageEncoder(window=(40.0, 0.0))


def test_a_folder_of_dicom_files_becomes_shards_without_the_patients(tmp_path):
    """In a folder of classes, beside a PNG. What the header says of a patient is nowhere in the split."""
    root = tmp_path / "raw"
    for label in ("ct", "mr"):
        (root / "train" / label).mkdir(parents=True)
    (root / "train/ct/1.dcm").write_bytes((FILES / "CT_small.dcm").read_bytes())
    cv2.imwrite(str(root / "train/ct/2.png"), np.zeros((9, 9, 3), np.uint8))
    named = changed(tmp_path, "MR_small.dcm", PatientName="Roentgen^Wilhelm", PatientID="ID-4711")
    assert b"Roentgen^Wilhelm" in named.read_bytes()
    (root / "train/mr/3.dcm").write_bytes(named.read_bytes())
    make_shards("image-folder", root, tmp_path / "out", workers=0)
    manifest = Manifest.load(tmp_path / "out/train")
    keys = sorted(manifest.key(n) for n in range(len(manifest)))
    assert [key.split("-")[0] for key in keys] == ["train_ct_1_dcm", "train_ct_2_png", "train_mr_3_dcm"]
    for file in (tmp_path / "out").rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            assert b"Roentgen" not in data
            assert b"4711" not in data


def test_roco_and_pictures_with_texts_take_dicom_files(tmp_path):
    images = tmp_path / "roco/train/radiology/images"
    images.mkdir(parents=True)
    (images.parent / "captions.txt").write_text("a\tA brain on MR\n")
    (images / "a.dcm").write_bytes((FILES / "MR_small.dcm").read_bytes())
    assert DATASETS["m3ae-style"](tmp_path).splits["train"][0].path == images / "a.dcm"
    (images / "a.txt").write_text("A brain on MR")
    (source,) = DATASETS["image-text-folder"](images).splits["train"]
    assert source.path == images / "a.dcm"
