"""What DALI gets and does: the packets of a clip decoded with PyAV, and its resize graph on decoded frames."""

import io

import av
import cv2
import numpy as np
import pytest

from maskstream.pipelines.augment.crop import Crop
from maskstream.pipelines.decode.cpu import decode_frames
from maskstream.pipelines.modalities.video.dali import build_colour_matrix, clip_graph, look_region, region
from maskstream.pipelines.modalities.video.packing import LOOK, Refusal, pack_clip
from maskstream.preprocess.encode.video.video import PROFILES, encode_video
from maskstream.shards.media.mp4 import read_fragments, read_header

from .packed_videos import CPU, HEVC, OPEN, VP9, clip_bytes, pattern, write_video


@pytest.mark.parametrize(
    ("codec", "options", "profile"),
    [("libx264", {}, "train"), ("libx264", OPEN, "copy"), ("libx265", HEVC, "copy"), ("libvpx-vp9", VP9, "copy")],
    ids=["train", "open", "hevc", "vp9"],
)
def test_a_packed_clip_decodes_to_the_same_frames(tmp_path, codec, options, profile):
    shape = (160, 152) if codec == "libx265" else (158, 150)  # of HEVC what is coded is shown
    video = encode_video(write_video(tmp_path / "v.mkv", codec, 48, options, *shape), PROFILES[profile])
    index, dropped, led, refused = video.index, 0, 0, 0
    size = (index.width, index.height)
    for stride in (1, 3, 4):
        for start in range(0, 44, 4):
            numbers = np.minimum(start + stride * np.arange(6), start + (47 - start) // stride * stride)
            data = clip_bytes(video, numbers)
            led += (first_led := int(index.lead[index.gops_of(numbers)[0]]) > 0)
            clip = pack_clip(data, numbers, size, "cpu" if codec == "libvpx-vp9" else "cuda")
            if isinstance(clip, Refusal):
                assert first_led
                assert "starts in an open GOP" in clip.reason
                refused += 1
                continue
            with av.open(io.BytesIO(clip.mp4.tobytes())) as container:
                decoded = list(container.decode(video=0))
            assert {(frame.width, frame.height) for frame in decoded} == {clip.size}
            frames = [frame.to_ndarray(format="gray") for frame in decoded]
            assert (np.diff([frame.pts for frame in decoded]) == 1).all(), "NVDEC's frames are put in order by time"
            assert decoded[0].pts >= 0, "-1 is an empty slot of DALI"
            expected = decode_frames(data.header, memoryview(data.fragments), data.first_frame, numbers, size=size)
            assert np.array_equal(clip.pts_s, expected.pts_s)
            assert (np.diff(clip.frames) > 0).all()
            for place, frame in zip(clip.frames[clip.order], expected.frames, strict=True):
                shown = frames[place][: size[1], : size[0]]
                assert np.array_equal(shown, frame.to_ndarray(format="gray")), "luma is identical"
            packets = read_fragments(memoryview(data.fragments), read_header(data.header))
            dropped += len(packets.pts) - len(frames)
    assert dropped > 0
    assert (led > 0) == (options in (OPEN, HEVC)), "clips that start in an open GOP were packed"
    assert (refused > 0) == (options is OPEN)


# The resize graph, given decoded frames.


def graph(frames, order, crops, size):
    pipeline = clip_graph(1, len(crops), size, 1, CPU, encoded=False)
    pipeline.build()
    regions = np.stack([*(region(crop, size) for crop in crops), look_region(frames.shape[2:0:-1])])
    output, looks = pipeline.run(
        video=[frames],
        order=[np.array([0, *order], dtype=np.int32)],
        regions=[regions],
        colours=[build_colour_matrix("bt601", False)],
    )
    height, width = frames.shape[1:3]
    rows, columns = (((np.arange(LOOK) + 0.5) * side / LOOK).astype(int) for side in (height, width))
    assert np.array_equal(np.array(looks.as_tensor())[0], frames[[0, *order]][:, rows[:, None], columns])
    return np.array(output.as_tensor())[0]


def resized(frame, crop, size, interpolation=cv2.INTER_LINEAR):
    part = cv2.resize(frame[crop.y :, crop.x :][: crop.height, : crop.width], (size, size), interpolation=interpolation)
    return cv2.flip(part, 1) if crop.flip else part


@pytest.mark.parametrize("flip", [False, True])
def test_resize_is_within_two_levels_of_opencv(flip):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 145, 177, 3), dtype=np.uint8)
    crops = [
        Crop(x=0, y=0, width=177, height=145, flip=flip),
        Crop(x=13, y=7, width=121, height=99, flip=flip),
        Crop(x=30, y=20, width=96, height=96, flip=flip),
        Crop(x=30, y=20, width=47, height=61, flip=flip),
        Crop(x=9, y=1, width=60, height=144, flip=flip),
    ]
    order = [0, 1, 2, 2]
    clips = graph(frames, order, crops, 96)
    assert clips.shape == (5, 4, 96, 96, 3)
    for clip, crop in zip(clips, crops, strict=True):
        expected = np.stack([resized(frames[i], crop, 96) for i in order])
        assert np.abs(clip.astype(int) - expected).max() <= 2
    assert np.array_equal(clips[2][0], resized(frames[0], crops[2], 96)), "what needs no resizing is exact"


def test_strong_shrinking_averages_like_the_cpu_path():
    """The CPU path averages areas when it shrinks by 2 or more: DALI is exact at 2, close beyond, without aliasing."""
    crop = Crop(x=4, y=2, width=128, height=128)
    noise = np.random.default_rng(1).integers(0, 256, (1, 136, 140, 3), dtype=np.uint8)
    halved = graph(noise, [0], [crop], 64)[0, 0]
    assert np.abs(halved.astype(int) - resized(noise[0], crop, 64, cv2.INTER_AREA)).max() <= 2
    large = Crop(x=10, y=20, width=300, height=260)
    smooth = pattern(5, 340, 300)
    small = graph(smooth[None], [0], [large], 64)[0, 0]
    assert np.abs(small.astype(int) - resized(smooth, large, 64, cv2.INTER_AREA)).mean() < 2
    noise = np.random.default_rng(1).integers(0, 256, (1, 512, 512, 3), dtype=np.uint8)
    spread = graph(noise, [0], [Crop(x=0, y=0, width=512, height=512)], 64)[0, 0].std()
    assert spread < 14, "8 x 8 pixels of noise with deviation 74 average to about 9; without the filter 18 is left"
