"""Files and pictures of flow: what comes back, what the bytes are, and what is refused."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from maskstream.pipelines.flow import flow_to_image, read_flo, read_kitti, write_flo, write_kitti
from maskstream.pipelines.flow.picture import LIMIT_PX


def field(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 20, (5, 7, 2)).astype(np.float32)


def test_a_flo_is_exact_and_laid_out_as_middlebury_says(tmp_path: Path) -> None:
    path, flow = tmp_path / "a.flo", field()
    write_flo(path, flow)
    np.testing.assert_array_equal(read_flo(path), flow)
    data = path.read_bytes()
    assert np.frombuffer(data, "<f4", 1)[0] == np.float32(202021.25)
    assert np.frombuffer(data, "<i4", 2, 4).tolist() == [7, 5]
    np.testing.assert_array_equal(np.frombuffer(data, "<f4", offset=12).reshape(5, 7, 2), flow)


def test_a_png_of_kitti_is_exact_to_its_steps(tmp_path: Path) -> None:
    path, flow = tmp_path / "a.png", field(1)
    valid = np.random.default_rng(2).random((5, 7)) < 0.7
    write_kitti(path, flow, valid)
    found, good = read_kitti(path)
    np.testing.assert_array_equal(good, valid)
    np.testing.assert_allclose(found[valid], flow[valid], atol=1 / 128 + 1e-6)
    assert not found[~valid].any()
    raw = cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGR2RGB)
    assert raw.dtype == np.uint16
    np.testing.assert_array_equal(raw[..., 2], valid)
    np.testing.assert_allclose((raw[valid][:, :2].astype(float) - 32768) / 64, flow[valid], atol=1 / 128 + 1e-6)


def test_the_longest_vectors_of_kitti(tmp_path: Path) -> None:
    flow = np.array([[[LIMIT_PX, -512.0]]], dtype=np.float32)
    write_kitti(tmp_path / "a.png", flow)
    np.testing.assert_array_equal(read_kitti(tmp_path / "a.png")[0], flow)
    with pytest.raises(ValueError, match=r"up to 512\.0 pixels along an axis, got 600\.0"):
        write_kitti(tmp_path / "b.png", np.full((1, 1, 2), 600, np.float32))
    write_kitti(tmp_path / "b.png", np.full((1, 1, 2), 600, np.float32), np.zeros((1, 1), bool))
    assert not read_kitti(tmp_path / "b.png")[1].any()


def test_mistakes_are_refused(tmp_path: Path) -> None:
    for write, name in ((write_flo, "a.flo"), (write_kitti, "a.png")):
        with pytest.raises(ValueError, match=r"one flow field \(h, w, 2\), x then y, got the shape \(2, 5, 7, 2\)"):
            write(tmp_path / name, np.zeros((2, 5, 7, 2), np.float32))
    with pytest.raises(OSError, match=r"its name must end with \.png"):
        write_kitti(tmp_path / "a.jpg", field())
    (tmp_path / "no.flo").write_bytes(b"nothing")
    (tmp_path / "no.png").write_bytes(b"nothing")
    with pytest.raises(OSError, match=r"is not a readable \.flo file"):
        read_flo(tmp_path / "no.flo")
    with pytest.raises(OSError, match="is not a readable KITTI flow PNG"):
        read_kitti(tmp_path / "no.png")


def test_a_picture_shows_where_things_moved() -> None:
    flow = np.zeros((2, 3, 4, 2), dtype=np.float32)
    flow[0, ..., 0] = -8  # things moved to the right
    flow[1, ..., 0] = 4
    shown = flow_to_image(flow)
    assert shown.shape == (2, 3, 4, 3)
    assert shown.dtype == np.uint8
    assert (shown[0] == (255, 0, 0)).all()
    assert (shown[1] == (128, 255, 255)).all()
    assert (flow_to_image(np.zeros_like(flow)) == 255).all()
    assert (flow_to_image(flow, scale_px=16)[0] == (255, 128, 128)).all()
    valid = np.ones((2, 3, 4), bool)
    valid[0, 0] = False
    assert (flow_to_image(flow, valid)[0, 0] == 128).all()
    with pytest.raises(ValueError, match="in its last axis"):
        flow_to_image(np.zeros((3, 4)))
