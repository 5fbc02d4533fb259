"""The codec's motion vectors as flow: on encoded clips of known motion, and against a plain reading of the blocks."""

import io
from collections.abc import Callable

import av
import cv2
import numpy as np
import pytest
from av.sidedata.sidedata import SideDataContainer

from maskstream.pipelines.augment import Crop
from maskstream.pipelines.flow import ask_for_vectors, codec_flow, dis_flow, motion_vectors, steps_between
from maskstream.pipelines.flow.codec import VECTOR

from ...videos import write_frames
from ..clips import block_grids

WIDTH, HEIGHT = 340, 256
FRAMES = np.arange(0, 40, 4)  # ten sampled frames over one boundary between GOPs, at 32
BOUNDARY = 7  # the pair (28, 32)
X264 = "bframes=3:b-adapt=0:b-pyramid=none:keyint=32:min-keyint=32:scenecut=0:open-gop=0:ref=1"


def encode(picture_at: Callable[[int], np.ndarray], frames: int = 40) -> bytes:
    options = {"preset": "medium", "tune": "fastdecode", "crf": "21", "x264-params": X264}
    film = write_frames(io.BytesIO(), map(picture_at, range(frames)), options=options, muxer={"format": "mp4"})
    return film.getvalue()


def decode(data: bytes, *, vectors: bool = True) -> tuple[list[np.ndarray | None], np.ndarray]:
    """The sampled frames' vectors and pixels (T, HEIGHT, WIDTH, 3), with the B-frames left out."""
    found = {}
    with av.open(io.BytesIO(data)) as container:
        context = container.streams.video[0].codec_context
        context.skip_frame = "NONREF"
        if vectors:
            ask_for_vectors(context)
        for frame in container.decode(video=0):
            found[round(float(frame.pts * frame.time_base) * 30)] = frame
    given = [motion_vectors(found[n]) for n in FRAMES]
    arrays = [
        None if v is None else np.frombuffer(v, dtype=np.uint8).reshape(-1, VECTOR.itemsize).copy() for v in given
    ]
    return arrays, np.stack([found[n].to_ndarray(format="rgb24") for n in FRAMES])


def fields(vectors: np.ndarray) -> np.ndarray:
    return vectors.view(VECTOR)[:, 0]


def texture() -> np.ndarray:
    noise = np.random.default_rng(0).random((512, 640, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2) + 0.5 * cv2.GaussianBlur(noise, (0, 0), 9)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


@pytest.fixture(scope="module")
def pan() -> tuple[list[np.ndarray | None], np.ndarray]:
    """Content that moves by (-3, +1) pixels a frame, (-12, +4) between sampled frames."""
    picture = texture()
    return decode(encode(lambda t: picture[100 - t :, 100 + 3 * t :][:HEIGHT, :WIDTH]))


@pytest.fixture(scope="module")
def zoom() -> tuple[list[np.ndarray | None], np.ndarray]:
    """Content that grows by 0.5 % a frame about the frame's centre."""
    picture = texture()

    def picture_at(t: int) -> np.ndarray:
        grow = 1.005**t
        matrix = np.array([[grow, 0, WIDTH / 2 - grow * 320], [0, grow, HEIGHT / 2 - grow * 256]])
        return cv2.warpAffine(picture, matrix, (WIDTH, HEIGHT))

    return decode(encode(picture_at))


def shown(pixels: np.ndarray, crop: Crop, size: int) -> np.ndarray:
    part = pixels[:, crop.y : crop.y + crop.height, crop.x : crop.x + crop.width]
    part = part[:, :, ::-1] if crop.flip else part
    return np.stack([cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA) for frame in part])


def endpoint_error(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The mean distance in pixels per pair, away from the frame's border, where x264 has nothing to search in."""
    return np.linalg.norm(found - expected, axis=-1)[:, 3:-3, 3:-3].mean(axis=(1, 2))


CROPS = [
    (Crop(x=0, y=0, width=340, height=256), 224),
    (Crop(x=42, y=0, width=256, height=256, flip=True), 224),
    (Crop(x=101, y=37, width=168, height=192), 112),
    (Crop(x=101, y=37, width=168, height=192, flip=True), 160),
]


@pytest.mark.parametrize(("crop", "size"), CROPS)
def test_a_pan_under_crop_resize_and_flip(pan: tuple[list, np.ndarray], crop: Crop, size: int) -> None:
    vectors, pixels = pan
    assert vectors[BOUNDARY + 1] is None
    assert sum(v is not None for v in vectors[1:]) == 8
    flow = codec_flow(vectors, crop, source=(WIDTH, HEIGHT), size=size, clip=shown(pixels, crop, size))
    assert flow.vectors.shape == (9, size // 8, size // 8, 2)
    assert flow.vectors.dtype == np.float32
    inter = np.arange(9) != BOUNDARY
    assert flow.valid[inter].mean() > 0.8
    assert not flow.valid[BOUNDARY].any()
    expected = np.array([12.0 * size / crop.width * (-1 if crop.flip else 1), -4.0 * size / crop.height])
    error = endpoint_error(flow.vectors, expected)
    assert error[inter].max() < 0.3
    assert error[BOUNDARY] < 2.0  # computed from the pixels
    assert np.sign(np.median(flow.vectors, axis=(0, 1, 2))).tolist() == np.sign(expected).tolist()


@pytest.mark.parametrize(("crop", "size"), CROPS)
def test_a_zoom_under_crop_resize_and_flip(zoom: tuple[list, np.ndarray], crop: Crop, size: int) -> None:
    """The flow differs from place to place, so a crop or a flip of the wrong part shows."""
    vectors, _ = zoom
    flow = codec_flow(vectors, crop, source=(WIDTH, HEIGHT), size=size)
    cells = size // 8
    centres = (np.arange(cells) + 0.5) / cells
    x, y = np.meshgrid(crop.x + centres * crop.width - WIDTH / 2, crop.y + centres * crop.height - HEIGHT / 2)
    x, y = (v * (1.005**-4 - 1) for v in (x, y))
    expected = np.stack([x * size / crop.width, y * size / crop.height], axis=-1)
    if crop.flip:
        expected = expected[:, ::-1] * np.array([-1, 1])
    inter = np.arange(9) != BOUNDARY
    assert flow.valid[inter].mean() > 0.8
    error, against = (endpoint_error(v, expected)[inter].mean() for v in (flow.vectors, -flow.vectors))
    assert error < 0.4
    assert error < 0.25 * against
    near, far = flow.vectors[inter, cells // 2, cells // 2], flow.vectors[inter, 4, 4]
    assert np.abs(near).mean() < np.abs(far).mean()


def test_codec_flow_agrees_with_dis(zoom: tuple[list, np.ndarray]) -> None:
    vectors, pixels = zoom
    crop = Crop(x=60, y=20, width=224, height=224, flip=True)
    codec = codec_flow(vectors, crop, source=(WIDTH, HEIGHT), size=224)
    dis = dis_flow(shown(pixels, crop, 224), scale=1.0)
    inter = np.arange(9) != BOUNDARY
    assert endpoint_error(codec.vectors, dis.vectors)[inter].mean() < 1.0


def test_a_pair_without_vectors_takes_the_flow_of_the_one_before(pan: tuple[list, np.ndarray]) -> None:
    crop = Crop(x=0, y=0, width=256, height=256)
    flow = codec_flow(pan[0], crop, source=(WIDTH, HEIGHT), size=256)
    np.testing.assert_array_equal(flow.vectors[BOUNDARY], flow.vectors[BOUNDARY - 1])
    assert not flow.valid[BOUNDARY].any()
    late = codec_flow([None, None, None, *pan[0][3:]], crop, source=(WIDTH, HEIGHT), size=256)
    np.testing.assert_array_equal(late.vectors[0], late.vectors[2])
    np.testing.assert_array_equal(late.vectors[1], flow.vectors[2])
    assert not late.valid[:2].any()
    none = codec_flow([None] * 4, crop, source=(WIDTH, HEIGHT), size=256)
    assert not none.vectors.any()
    assert not none.valid.any()


def test_a_still_scene() -> None:
    picture = texture()[:HEIGHT, :WIDTH]
    vectors, _ = decode(encode(lambda t: picture))
    crop = Crop(x=0, y=0, width=256, height=256)
    flow = codec_flow(vectors, crop, source=(WIDTH, HEIGHT), size=256)
    assert flow.valid[:BOUNDARY].all()  # skipped blocks have vectors too
    assert np.abs(flow.vectors).max() < 0.3


def test_a_repeated_frame_does_not_move(pan: tuple[list, np.ndarray]) -> None:
    crop = Crop(x=0, y=0, width=256, height=256)
    numbers = np.array([0, 4, 8, 8, 8])
    flow = codec_flow([pan[0][i] for i in (0, 1, 2, 2, 2)], crop, source=(WIDTH, HEIGHT), size=256, frames=numbers)
    assert np.abs(flow.vectors[:2]).mean() > 5
    assert not flow.vectors[2:].any()
    assert flow.valid[2:].all()


def test_blocks_land_where_the_codec_says(zoom: tuple[list, np.ndarray]) -> None:
    """Every 8 x 8 unit has the vector of the block that covers its pixels, read block by block."""
    expected = np.zeros((9, 256, 352, 3), dtype=np.float32)
    kinds = set()
    for pair, vectors in enumerate(zoom[0][1:]):
        for v in fields(vectors) if vectors is not None else []:
            left, top = int(v["dst_x"]) - int(v["w"]) // 2, int(v["dst_y"]) - int(v["h"]) // 2
            values = (v["motion_x"] / v["motion_scale"], v["motion_y"] / v["motion_scale"], 1)
            expected[pair, top : top + int(v["h"]), left : left + int(v["w"])] = values
            kinds.add((int(v["w"]), int(v["h"])))
    assert kinds == {(16, 16), (16, 8), (8, 16), (8, 8)}
    found = block_grids(zoom[0][1:], WIDTH, HEIGHT)
    assert found.shape == (9, 32, 44, 3)
    np.testing.assert_allclose(found.repeat(8, axis=1).repeat(8, axis=2), expected)


def test_vectors_to_a_later_frame_are_left_out(pan: tuple[list, np.ndarray]) -> None:
    forward = pan[0][1].copy()
    fields(forward)["source"][::2] = 1
    both, past = block_grids([forward], WIDTH, HEIGHT), block_grids([forward[1::2].copy()], WIDTH, HEIGHT)
    np.testing.assert_array_equal(both, past)
    assert past[..., 2].any()
    assert not block_grids([forward[::2].copy()], WIDTH, HEIGHT).any()


def test_blocks_of_large_frames(pan: tuple[list, np.ndarray]) -> None:
    one = pan[0][1][:1].copy()
    fields(one)["w"] = fields(one)["h"] = 16
    fields(one)["dst_x"], fields(one)["dst_y"] = 3840 - 8, 2160 - 8
    rows, columns = np.nonzero(block_grids([one], 3840, 2160)[0, ..., 2])
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == {(268, 478), (268, 479), (269, 478), (269, 479)}


def test_holes_are_filled_from_their_neighbours(pan: tuple[list, np.ndarray]) -> None:
    vectors = list(pan[0])
    kept = (fields(vectors[2])["dst_x"] < 96) | (fields(vectors[2])["dst_x"] > 160)
    vectors[2] = vectors[2][kept]
    flow = codec_flow(vectors, Crop(x=0, y=0, width=256, height=256), source=(WIDTH, HEIGHT), size=256)
    assert not flow.valid[1, :, 13:19].any()
    assert flow.valid[1, 4:-4, 4:11].all()
    assert endpoint_error(flow.vectors, np.array([12.0, -4.0]))[1] < 0.5


def test_the_fields_of_a_vector_are_where_pyav_finds_them() -> None:
    data = encode(lambda t: texture()[t : t + HEIGHT, 3 * t : 3 * t + WIDTH], frames=8)
    with av.open(io.BytesIO(data)) as container:
        ask_for_vectors(container.streams.video[0].codec_context)
        frame = list(container.decode(video=0))[4]
    expected = SideDataContainer(frame).get("MOTION_VECTORS").to_ndarray()
    found = np.frombuffer(motion_vectors(frame), dtype=VECTOR)
    assert len(found) == len(expected) > 100
    for name in VECTOR.names or ():
        np.testing.assert_array_equal(found[name], expected[name])


def test_vectors_come_only_where_they_were_asked_for() -> None:
    vectors, _ = decode(encode(lambda t: np.full((HEIGHT, WIDTH, 3), t, dtype=np.uint8)), vectors=False)
    assert vectors == [None] * 10


@pytest.mark.parametrize(
    ("frames", "steps"),
    [
        ([0, 4, 8], 1),
        ([12, 16, 20, 20], 1),
        ([0, 8, 16, 16], 2),
        ([4, 16, 28], 3),
        ([12, 12], 1),
        ([0, 2, 4], 0),
        ([2, 6, 10], 0),
        ([0, 8, 12], 0),
        ([0, 16, 32], 0),
        ([8, 4, 0], 0),
    ],
)
def test_which_clips_the_vectors_fit(frames: list[int], steps: int) -> None:
    assert steps_between(np.array(frames)) == steps


def test_mistakes_are_refused(pan: tuple[list, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="extends beyond a frame of 340 x 256 pixels"):
        codec_flow(pan[0], Crop(x=100, y=0, width=256, height=256), source=(WIDTH, HEIGHT), size=224)
    with pytest.raises(ValueError, match="lie outside a frame of 160 x 120 pixels"):
        codec_flow(pan[0], Crop(x=0, y=0, width=96, height=96), source=(160, 120), size=224)
    clip = np.zeros((10, 112, 112, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"clip must be uint8 \(10, 224, 224, 3\), got shape"):
        codec_flow(pan[0], Crop(x=0, y=0, width=96, height=96), source=(WIDTH, HEIGHT), size=224, clip=clip)
