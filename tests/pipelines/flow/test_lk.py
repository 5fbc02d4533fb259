"""Lucas-Kanade in torch: known motions, and the same flow in any batch."""

from functools import partial

import cv2
import numpy as np
import pytest
import torch

from maskstream.pipelines import VideoClip, augment, masks, video_loader
from maskstream.pipelines.flow import Lk, dis_flow
from maskstream.pipelines.flow.lk import median

from ..contract import check_order


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3) + 0.5 * cv2.GaussianBlur(noise, (0, 0), 9)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def moved(matrix: np.ndarray, frames: int = 3, side: int = 112) -> np.ndarray:
    """A texture that goes through the affine map (2, 3) about the frame's centre from frame to frame."""
    picture, whole = texture(2 * side, 2 * side), np.vstack([matrix, [0, 0, 1]])
    corner = np.array([[1, 0, -side / 2], [0, 1, -side / 2], [0, 0, 1]])
    centre = np.array([[1, 0, side - 0.5], [0, 1, side - 0.5], [0, 0, 1]])
    made = []
    for t in range(frames):
        pose = corner @ centre @ np.linalg.matrix_power(whole, t) @ np.linalg.inv(centre)
        made.append(cv2.warpAffine(picture, pose[:2], (side, side), flags=cv2.INTER_CUBIC))
    return np.stack(made)


def wanted(matrix: np.ndarray, cells: int, side: int = 112) -> np.ndarray:
    """The true backward flow on a grid."""
    at = (np.arange(cells) + 0.5) * side / cells - side / 2
    places = np.stack(np.meshgrid(at, at), axis=-1)
    back = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    return places @ back[:2, :2].T + back[:2, 2] - places


def flow_of(clip: np.ndarray, **settings: float) -> np.ndarray:
    with torch.no_grad():
        return Lk(**settings).of_clips(torch.from_numpy(clip)[None])[0].movedim(1, 3).numpy()


MOTIONS = {
    "right": [[1, 0, 6.0], [0, 1, 0]],
    "up left": [[1, 0, -3.5], [0, 1, -5.0]],
    "zoom": [[1.06, 0, 0], [0, 1.06, 0]],
    "turn": [[np.cos(0.07), -np.sin(0.07), 1.0], [np.sin(0.07), np.cos(0.07), 0]],
}


@pytest.mark.parametrize("name", MOTIONS)
@pytest.mark.parametrize("scale", [None, 1.0])
def test_known_motions(name: str, scale: float | None) -> None:
    matrix = np.array(MOTIONS[name])
    found, true = flow_of(moved(matrix), scale=scale), wanted(matrix, 14)
    assert found.shape == (2, 14, 14, 2)
    assert found.dtype == np.float32
    error = np.linalg.norm(found - true, axis=-1)
    assert error.mean() < 0.12 * np.linalg.norm(true, axis=-1).mean()
    assert error[:, 2:-2, 2:-2].mean() < 0.3


def test_frames_that_are_not_square_and_odd_cells() -> None:
    clip = np.stack([texture(200, 260)[20 : 20 + 90, 30 - 4 * t :][:, :150] for t in range(3)])
    found = flow_of(clip, cell=10)
    assert found.shape == (2, 9, 15, 2)
    np.testing.assert_allclose(np.median(found, axis=(0, 1, 2)), [-4, 0], atol=0.2)


def test_it_agrees_with_dis_at_a_moving_object() -> None:
    ground, thing = texture(112, 112, 1), texture(48, 48, 2)
    clip = np.stack([ground.copy() for _ in range(3)])
    for t, frame in enumerate(clip):
        frame[30:78, 20 + 5 * t : 68 + 5 * t] = thing
    found, dis = flow_of(clip), dis_flow(clip, preset="medium", scale=1.0).vectors
    on, off = (slice(None), slice(5, 9), slice(4, 8)), (slice(None), slice(11, 14), slice(0, 14))
    np.testing.assert_allclose(found[on].mean((0, 1, 2)), [-5, 0], atol=0.5)
    np.testing.assert_allclose(found[on].mean((0, 1, 2)), dis[on].mean((0, 1, 2)), atol=0.5)
    assert np.abs(found[off]).mean() < 0.3


def test_a_still_or_flat_clip_does_not_move() -> None:
    assert np.abs(flow_of(np.stack([texture(112, 112)] * 2))).max() < 1e-3
    assert np.abs(flow_of(np.full((2, 64, 64, 3), 90, dtype=np.uint8))).max() == 0


def test_a_flip_commutes() -> None:
    clip = moved(np.array(MOTIONS["zoom"]))
    mirrored = flow_of(np.ascontiguousarray(clip[:, :, ::-1]))[:, :, ::-1] * np.array([-1, 1])
    np.testing.assert_allclose(flow_of(clip), mirrored, atol=0.02)


@pytest.mark.slow
def test_a_clip_has_the_same_flow_in_any_batch() -> None:
    clips = torch.from_numpy(np.stack([moved(np.array(matrix)) for matrix in MOTIONS.values()]))
    with torch.no_grad():
        together = Lk().of_clips(clips)
        alone = torch.cat([Lk().of_clips(clip[None]) for clip in clips])
        as_on_a_device = Lk().together(clips)
    assert torch.equal(together, alone)
    torch.testing.assert_close(as_on_a_device, alone, atol=1e-3, rtol=0)


def test_the_network_finds_the_median() -> None:
    planes = torch.randn(2, 3, 7, 5, generator=torch.Generator().manual_seed(0))
    framed = torch.nn.functional.pad(planes, (1, 1, 1, 1), mode="replicate")
    windows = framed.unfold(2, 3, 1).unfold(3, 3, 1).flatten(4)
    assert torch.equal(median(planes), windows.median(-1).values)


@pytest.mark.slow
@pytest.mark.parametrize("mask", [None, masks.MotionGuided(ratio=0.75)])
def test_a_loader_gives_it_with_and_without_a_mask_at_every_topology(split, mask) -> None:
    settings = {"clip": VideoClip(frames=4, size=32), "patch": 8, "device": "cpu", "threads": 1, "seed": 3}
    settings |= {"augment": augment.RandomResizedCrop(flip=0.5), "flow": "lk", "mask": mask}
    check_order(partial(video_loader, split, **settings), batch_size=4, workers=1)


def test_mistakes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"or None, got 1\.5"):
        Lk(scale=1.5)
    with pytest.raises(ValueError, match="cell"):
        Lk(cell=0)
    with pytest.raises(ValueError, match=r"32 x 32 pixels at scale 0\.2 are less than 8"):
        flow_of(np.zeros((2, 32, 32, 3), dtype=np.uint8), scale=0.2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_finds_the_flow_of_the_cpu() -> None:
    clips = torch.from_numpy(np.stack([moved(np.array(matrix)) for matrix in MOTIONS.values()]))
    with torch.no_grad():
        torch.testing.assert_close(Lk().of_clips(clips.cuda()).cpu(), Lk().of_clips(clips), atol=0.02, rtol=0)
