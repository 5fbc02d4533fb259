"""Pictures of all kinds to members: what is kept, what is encoded anew, and what is rejected."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from maskstream.pipelines.modalities.image.decode import decode_image
from maskstream.preprocess.encode.image.encoder import ImageEncoder, read_picture
from maskstream.preprocess.source import RejectError, Source


def picture(width=60, height=40):
    """RGB uint8 (height, width, 3), smooth, no two corners alike."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], axis=2).astype(np.uint8)


RGB = Image.fromarray(picture())
OTHER = Image.fromarray(255 - picture())


def write(path, image=RGB, form="PNG", **options):
    image.save(path, form, **options)
    return path


def encode(path, **settings):
    meta = settings.pop("meta", {})
    return ImageEncoder(**settings).encode(Source(id="a", path=path, meta=meta))


def only(made):
    ((name, member),) = made.members.items()
    return name, member


def decoded(data):
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


KEPT = {
    "jpg": ("JPEG", RGB, {}),
    "progressive jpg": ("JPEG", RGB, {"progressive": True}),
    "grey jpg": ("JPEG", RGB.convert("L"), {}),
    "png": ("PNG", RGB, {}),
    "grey png": ("PNG", RGB.convert("L"), {}),
    "palette png": ("PNG", RGB.convert("P"), {}),
    "webp": ("WEBP", RGB, {}),
    "lossless webp": ("WEBP", RGB, {"lossless": True}),
}


@pytest.mark.parametrize("name", KEPT)
def test_the_bytes_of_an_upright_picture_stay_untouched(tmp_path, name):
    form, image, options = KEPT[name]
    path = write(tmp_path / "wrongly_named.dat", image, form, **options)
    made = encode(path)
    ending, member = only(made)
    assert ending == name.split()[-1]
    assert member.data == path.read_bytes()
    assert member.facts == {"width": 60, "height": 40}
    assert made.meta["kept"]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_turned_picture_is_turned_and_no_longer_says_so(tmp_path, form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write(tmp_path / "a", form=form, exif=exif)
    name, member = only(encode(path))
    assert name == {"JPEG": "jpg", "PNG": "png", "WEBP": "jpg"}[form]
    upright = decoded(path.read_bytes())  # OpenCV turns it by the same tag
    stored = cv2.imdecode(np.frombuffer(member.data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    stored = cv2.cvtColor(stored, cv2.COLOR_BGR2RGB)
    assert stored.shape == upright.shape == (member.facts["height"], member.facts["width"], 3)
    assert (stored.shape[0] > stored.shape[1]) == (orientation >= 5)
    if name == "png":
        np.testing.assert_array_equal(stored, upright)
    else:
        assert np.abs(stored.astype(int) - upright).mean() < 3


def test_an_upright_tag_changes_nothing(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 1
    path = write(tmp_path / "a", form="JPEG", exif=exif)
    assert only(encode(path))[1].data == path.read_bytes()


@pytest.mark.parametrize(("form", "ending"), [("PNG", "png"), ("WEBP", "jpg")])
def test_what_is_transparent_becomes_white(tmp_path, form, ending):
    image = RGB.convert("RGBA")
    alpha = np.full((40, 60), 255, np.uint8)
    alpha[:, :30] = 0
    image.putalpha(Image.fromarray(alpha))
    name, member = only(encode(write(tmp_path / "a", image, form)))
    assert name == ending
    shown = decoded(member.data)
    assert shown[:, :28].min() >= 250
    assert np.abs(shown[:, 32:].astype(int) - picture()[:, 32:]).mean() < 3


def test_sixteen_bits_become_eight_and_inks_become_light(tmp_path):
    deep = np.linspace(0, 65535, 60 * 40).reshape(40, 60).astype(np.uint16)
    name, member = only(encode(write(tmp_path / "deep", Image.fromarray(deep))))
    assert name == "png"
    np.testing.assert_array_equal(decoded(member.data)[..., 0], np.round(deep / 257))

    name, member = only(encode(write(tmp_path / "inks", RGB.convert("CMYK"), "JPEG", quality=95)))
    assert name == "jpg"
    assert Image.open(io.BytesIO(member.data)).mode == "RGB"
    assert np.abs(decoded(member.data).astype(int) - picture()).mean() < 4


@pytest.mark.parametrize("form", ["BMP", "TIFF", "PPM"])
def test_other_forms_become_png_without_loss(tmp_path, form):
    name, member = only(encode(write(tmp_path / "a", form=form)))
    assert name == "png"
    np.testing.assert_array_equal(decoded(member.data), picture())


def test_the_short_side_shrinks_what_is_larger_and_nothing_else(tmp_path):
    path = write(tmp_path / "a.jpg", form="JPEG", quality=95)
    name, member = only(encode(path, short_side=20))
    assert (name, member.facts) == ("jpg", {"width": 30, "height": 20})
    wanted = cv2.resize(picture(), (30, 20), interpolation=cv2.INTER_AREA)
    assert np.abs(decoded(member.data).astype(int) - wanted).mean() < 3
    assert only(encode(path, short_side=40))[1].data == path.read_bytes()
    thin = write(tmp_path / "thin.png", RGB.resize((400, 3)))
    assert only(encode(thin, short_side=2))[1].facts == {"width": 267, "height": 2}


@pytest.mark.parametrize(
    ("form", "mode", "ending"), [("PNG", "RGB", "ppm"), ("WEBP", "RGBA", "ppm"), ("PNG", "L", "pgm")]
)
def test_pixels_may_be_stored_as_they_are(tmp_path, form, mode, ending):
    path = write(tmp_path / "a", RGB.convert(mode), form, **({"lossless": True} if form == "WEBP" else {}))
    made = encode(path, store="pixels")
    name, member = only(made)
    assert (name, member.facts, made.meta["kept"]) == (ending, {"width": 60, "height": 40}, False)
    assert len(member.data) == 60 * 40 * (1 if mode == "L" else 3) + len(b"P6\n60 40\n255\n")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(member.data)).convert("RGB")), decoded(member.data))
    np.testing.assert_array_equal(decode_image(member.data, 60, 40), decoded(path.read_bytes()))
    assert only(encode(path, store="pixels", short_side=20))[1].facts == {"width": 30, "height": 20}


def test_pictures_are_stored_in_no_other_way():
    with pytest.raises(ValueError, match="store must be 'compressed' or 'pixels', got 'raw'"):
        ImageEncoder(store="raw")


def test_a_part_of_a_picture(tmp_path):
    path = write(tmp_path / "a.png")
    made = encode(path, meta={"crop": [10, 5, 20, 30]})
    name, member = only(made)
    assert (name, made.meta["kept"]) == ("png", False)
    np.testing.assert_array_equal(decoded(member.data), picture()[5:35, 10:30])
    with pytest.raises(RejectError, match=r"has 60x40 pixels, so it contains no 20x30 region at 50, 5"):
        encode(path, meta={"crop": [50, 5, 20, 30]})


def cut(form, end):
    data = io.BytesIO()
    RGB.save(data, form)
    return data.getvalue()[:end]


def animation(form):
    data = io.BytesIO()
    RGB.save(data, form, save_all=True, append_images=[OTHER])
    return data.getvalue()


def tiff(mode="RGB", kinds=(0,)):
    """A TIFF with a page of each of these kinds: 1 is a smaller one of the page before, 4 its mask."""
    data = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(data) as pages:
        for kind in kinds:
            RGB.convert(mode).save(pages, "TIFF", tiffinfo={254: kind})
            pages.newFrame()
    return data.getvalue()


def damaged():
    data = bytearray(cut("PNG", None))
    data[len(data) // 2] ^= 1
    return bytes(data)


REJECTED = {
    "empty": (lambda: b"", "open: is empty"),
    "a JPEG cut in the middle": (lambda: cut("JPEG", -200), "decode: is truncated: the JPEG data has no end"),
    "a JPEG without its last byte": (lambda: cut("JPEG", -1), "decode: is truncated: the JPEG data has no end"),
    "a JPEG cut in its header": (lambda: cut("JPEG", 5), "open: is truncated"),
    "a PNG without its last byte": (lambda: cut("PNG", -1), "decode: is truncated: the PNG data has no end"),
    "a PNG cut in the middle": (lambda: cut("PNG", 100), "decode: is truncated: the PNG data has no end"),
    "a PNG with a flipped bit": (damaged, "decode: is damaged: the checksum of its chunk IDAT"),
    "a WebP cut in the middle": (lambda: cut("WEBP", 100), "decode: is truncated: the WebP data has 100 of"),
    "an animated WebP": (lambda: animation("WEBP"), r"check: is an animation \(webp\)"),
    "an animated PNG": (lambda: animation("PNG"), r"check: is an animation \(png\)"),
    "a TIFF of two pages": (lambda: tiff(kinds=(0, 0)), "check: has several pages, not one image"),
    "a TIFF of a page, its overview and a page": (lambda: tiff(kinds=(0, 1, 0)), "check: has several pages"),
    "a TIFF of LAB colours": (lambda: tiff("LAB"), r"check: has CIE L\*a\*b\* colours"),
    "a TIFF whose next page is beyond its end": (lambda: tiff(kinds=(0, 0))[: len(tiff())], "open: is truncated"),
    "text": (lambda: b"no picture at all", "open: is not a JPEG, PNG, WebP, BMP, TIFF, PNM or DICOM file"),
    "a BMP without its pixels": (lambda: cut("BMP", 60), "decode: cannot be decoded"),
}


@pytest.mark.parametrize("name", REJECTED)
def test_what_cannot_be_used_is_rejected_with_its_reason(tmp_path, name):
    make, reason = REJECTED[name]
    (tmp_path / "a.jpg").write_bytes(make())
    with pytest.raises(RejectError, match=reason):
        encode(tmp_path / "a.jpg")


@pytest.mark.parametrize("kinds", [(0,), (0, 1), (0, 4, 1, 5)])
def test_a_tiff_with_overviews_of_its_page_is_that_page(tmp_path, kinds):
    (tmp_path / "a.tif").write_bytes(tiff(kinds=kinds))
    np.testing.assert_array_equal(decoded(only(encode(tmp_path / "a.tif"))[1].data), picture())


def test_numbers_with_fractions_are_rejected(tmp_path):
    with pytest.raises(RejectError, match="check: has float32 values"):
        encode(write(tmp_path / "a", RGB.convert("F"), "TIFF"))


def test_a_picture_too_large_is_rejected_before_it_is_decoded(tmp_path):
    data = bytearray(cut("JPEG", None))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(RejectError, match="check: has 65535x65535 = 4294836225 pixels; the limit is 268435456"):
        read_picture(tmp_path / "a.jpg")


def test_the_same_source_gives_the_same_bytes(tmp_path):
    path = write(tmp_path / "a.png")
    assert encode(path, short_side=20) == encode(path, short_side=20)


@pytest.mark.parametrize("settings", [{"short_side": 0}, {"quality": 0}, {"quality": 101}])
def test_wrong_settings(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        ImageEncoder(**settings)
