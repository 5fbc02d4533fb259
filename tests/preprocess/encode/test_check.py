"""The check of a written video finds a GOP that does not decode by itself to exactly its frames."""

from dataclasses import replace

import pytest

from maskstream.preprocess.encode.video.check import check_slices
from maskstream.preprocess.encode.video.fragments import parse_output
from maskstream.preprocess.encode.video.profile import PROFILES
from maskstream.preprocess.encode.video.video import encode_video
from maskstream.preprocess.source import RejectError

from ...conftest import write_moving_texture


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The fragments of a video of three GOPs, its width and its height."""
    path = write_moving_texture(tmp_path_factory.mktemp("raw") / "a.mp4", seed=1, frames=80)
    video = encode_video(path, PROFILES["train"])
    return parse_output(video.data), video.index.width, video.index.height


def test_what_was_written_passes_whatever_was_decoded_before(made):
    for _ in range(2):
        check_slices(*made)


@pytest.mark.parametrize("gop", [0, 1, 2])
def test_damage_in_any_gop_is_found(made, gop):
    parsed, *size = made
    begin, end = (int(at) for at in parsed.start[gop : gop + 2])
    data = bytearray(parsed.data)
    data[(begin + end) // 2 : end] = bytes(end - (begin + end) // 2)
    with pytest.raises(RejectError, match=rf"GOP {gop} (does not decode by itself|decodes to)"):
        check_slices(replace(parsed, data=bytes(data)), *size)


def test_a_gop_that_is_not_its_own_is_found(made):
    parsed, *size = made
    moved = parsed.fragment.copy()
    moved[40] = 2
    with pytest.raises(RejectError, match=r"GOP 1 decodes to 32 frames, expected 31"):
        check_slices(replace(parsed, fragment=moved), *size)
    with pytest.raises(RejectError, match=r"damaged or not 16x16"):
        check_slices(parsed, 16, 16)
