"""Masks by keys are those of the loaders, and fit the models of transformers."""

from pathlib import Path

import pytest
import torch

from maskstream.pipelines import image_loader, masks

from ..every_modality import write_split


def test_masks_by_keys_are_those_of_a_loader(tmp_path: Path) -> None:
    mask = masks.Random(ratio=masks.Linear(start=0.5, end=0.9))
    loader = image_loader(
        write_split("image", tmp_path),
        size=32,
        patch=8,
        mask=mask,
        seed=4,
        batch_size=3,
        steps=9,
        device="cpu",
        threads=1,
    )
    loader.seek(1, 2)
    batch = next(iter(loader))
    step = len(loader) + 2
    found = mask.of_keys(batch.mask.grid, batch.key, seed=4, epoch=1, progress=step / 8)
    assert torch.equal(found.masked, batch.mask.masked)
    assert not torch.equal(found.masked, mask.of_keys(batch.mask.grid, batch.key, seed=4, epoch=2).masked)


def test_masks_that_read_cues_are_refused() -> None:
    with pytest.raises(ValueError, match=r"MotionGuided reads .*flow.* from each sample; pass cues="):
        masks.MotionGuided().of_keys(masks.TokenGrid.video(16, 224, 224), ["a"])


def test_models_of_transformers_see_what_is_visible() -> None:
    transformers = pytest.importorskip("transformers")
    grid = masks.TokenGrid.video(4, 32, 32, patch=8)
    mask = masks.Tube(ratio=0.75).of_keys(grid, ["a", "b"], seed=1)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.VideoMAEConfig(image_size=32, patch_size=8, num_frames=4, tubelet_size=2, **small)
    embeddings = transformers.models.videomae.modeling_videomae.VideoMAEEmbeddings(config)
    clip = torch.rand(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        every = embeddings(clip, torch.zeros_like(mask.masked))
        seen = embeddings(clip, mask.masked)
    assert torch.equal(seen, torch.stack([one[visible] for one, visible in zip(every, mask.visible, strict=True)]))

    pictures = masks.TokenGrid(axes=("h", "w"), shape=(4, 4), patch=(8, 8))
    mask = masks.Random(ratio=0.75).of_keys(pictures, ["a", "b"])
    config = transformers.ViTMAEConfig(image_size=32, patch_size=8, mask_ratio=0.75, **small)
    embeddings = transformers.models.vit_mae.modeling_vit_mae.ViTMAEEmbeddings(config)
    with torch.no_grad():
        _, hidden, _ = embeddings(torch.rand(2, 3, 32, 32), noise=mask.restore.float())
    assert torch.equal(hidden.bool(), mask.masked)
