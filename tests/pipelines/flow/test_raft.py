"""RAFT with random weights: shapes, batches, sizes, and a flow that follows the pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from maskstream.pipelines.flow import FLOWS, Raft
from maskstream.pipelines.flow.choice import find_flow, resolve_flow
from maskstream.pipelines.flow.raft import network


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torchvision = pytest.importorskip("torchvision.models.optical_flow")
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("raft") / "small.safetensors"
    save_file(torchvision.raft_small(weights=None, progress=False).state_dict(), path)
    return path


def clips(batch: int, height: int = 128, width: int = 128) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (batch, 3, height, width, 3), dtype=np.uint8))


@torch.no_grad()
def test_it_is_the_networks_flow_on_cells(weights: Path) -> None:
    """Against a plain call: the later frame first, so that the flow leads back."""
    source = Raft(weights=str(weights), updates=2, cell=16)
    given = clips(2)
    found = source.of_clips(given)
    assert found.shape == (2, 2, 2, 8, 8)
    net = network(str(weights), source.checksum, "small", torch.device("cpu"))
    frames = given[1].permute(0, 3, 1, 2).float() / 127.5 - 1
    plain = net(frames[1:], frames[:-1], num_flow_updates=2)[-1]
    torch.testing.assert_close(found[1], plain.unflatten(2, (8, 16)).unflatten(4, (8, 16)).mean((3, 5)))
    assert torch.equal(source.of_clips(given[1:])[0], found[1])  # in any batch
    assert found.std() > 0


@torch.no_grad()
def test_frames_of_any_size(weights: Path) -> None:
    assert Raft(weights=str(weights), updates=1).of_clips(clips(1, 60, 150)).shape == (1, 2, 2, 8, 19)


def test_what_is_missing_is_said(weights: Path, tmp_path: Path) -> None:
    assert find_flow("raft") == Raft() == FLOWS["raft"]()
    with pytest.raises(ValueError, match=r"RAFT has no weights; pass flow=Raft\(weights="):
        resolve_flow("raft", needed=True, profile="copy", stride=4, align=1)
    with pytest.raises(ValueError, match="RAFT has no weights"):
        Raft().of_clips(clips(1))
    with pytest.raises(ValueError, match="cannot be read"):
        Raft(weights=str(tmp_path / "none"))
    with pytest.raises(ValueError, match=r"contains no weights of torchvision's raft_large"):
        Raft(weights=str(weights), model="large").of_clips(clips(1))
    with pytest.raises(ValueError, match="model must be"):
        Raft(model="tiny")
    with pytest.raises(ValueError, match="updates must be an integer of at least 1, got 0"):
        Raft(updates=0)


def test_the_contents_of_the_file_belong_to_the_identity(weights: Path, tmp_path: Path) -> None:
    source, moved = Raft(weights=str(weights)), tmp_path / "moved.safetensors"
    moved.write_bytes(weights.read_bytes())
    assert Raft(weights=str(moved)).to_dict(identity=True) == source.to_dict(identity=True)
    assert Raft.from_dict(source.to_dict()) == source
    with pytest.raises(ValueError, match=r"have the checksum .*, not 0"):
        Raft(weights=str(weights), checksum="0")
