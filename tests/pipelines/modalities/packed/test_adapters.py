"""Packed batches as other libraries take them: what their own image processors make of the same pictures."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from maskstream.pipelines import PackedBatch
from maskstream.pipelines.modalities.packed.adapters import naflex, qwen_vl, siglip2
from maskstream.pipelines.modalities.packed.batch import SOUND, VIDEO

PATCH = 4
SHAPES = ((4, 6), (2, 2), (6, 2))


def pictures() -> list[torch.Tensor]:
    """uint8 (3, h, w), of whole patches."""
    rng = np.random.default_rng(0)
    return [torch.from_numpy(rng.integers(0, 256, (3, PATCH * h, PATCH * w), dtype=np.uint8)) for h, w in SHAPES]


def packed(tubelet: int = 1) -> PackedBatch:
    """The pictures as the loader packs them, patch by patch."""
    tokens, place = [], []
    for image, (h, w) in zip(pictures(), SHAPES, strict=True):
        for y, x in np.ndindex(h, w):
            own = image[:, PATCH * y : PATCH * (y + 1), PATCH * x : PATCH * (x + 1)].permute(1, 2, 0)
            tokens.append(own.expand(tubelet, -1, -1, -1).flatten())
            place.append((0, y, x))
    return PackedBatch(
        tokens=torch.stack(tokens),
        cu_seqlens=torch.tensor([0, *np.cumsum([h * w for h, w in SHAPES])], dtype=torch.int32),
        cu_rows=torch.tensor([0, 2, 3], dtype=torch.int32),
        grid_thw=torch.tensor([(1, h, w) for h, w in SHAPES]),
        place=torch.tensor(place, dtype=torch.int32),
        mask=None,
        patch=PATCH,
        tubelet=tubelet,
        row_tokens=28,
        longest=24,
        key=["a", "b", "c"],
        label=torch.zeros(3, dtype=torch.int64),
        kind=torch.zeros(3, dtype=torch.int64),
    )


def test_siglip2_gets_what_its_processor_makes() -> None:
    transformers = pytest.importorskip("transformers")

    processor: Any = transformers.Siglip2ImageProcessor(do_resize=False, patch_size=PATCH, max_num_patches=30)
    wanted = processor(pictures(), return_tensors="pt")
    made = siglip2(packed(), length=30)
    assert list(made) == list(wanted)
    assert torch.equal(made["pixel_attention_mask"], wanted["pixel_attention_mask"])
    assert torch.equal(made["spatial_shapes"], wanted["spatial_shapes"])
    torch.testing.assert_close(made["pixel_values"], wanted["pixel_values"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("tubelet", [1, 2])
def test_qwen_vl_gets_what_its_processor_makes(tubelet: int) -> None:
    transformers = pytest.importorskip("transformers")

    processor: Any = transformers.Qwen2VLImageProcessor(
        do_resize=False, patch_size=PATCH, temporal_patch_size=tubelet, merge_size=2
    )
    wanted = processor(pictures(), return_tensors="pt")
    made = qwen_vl(packed(tubelet))
    assert list(made) == list(wanted)
    assert torch.equal(made["image_grid_thw"], wanted["image_grid_thw"])
    torch.testing.assert_close(made["pixel_values"], wanted["pixel_values"], rtol=0, atol=1e-6)


def test_time_steps_of_clips_stand_one_behind_the_other_for_qwen_vl() -> None:
    """Those of a clip are what pictures would be: here the pictures of a clip are those of one batch, twice."""
    one, n = packed(), sum(h * w for h, w in SHAPES)
    parts = [one.tokens[start:stop].flip(1) for start, stop in pairwise(one.cu_seqlens.tolist())]
    tokens = torch.cat(
        [
            half
            for (a, b), flipped in zip(pairwise(one.cu_seqlens.tolist()), parts, strict=True)
            for half in (one.tokens[a:b], flipped)
        ]
    )
    steps = [torch.cat([one.place[a:b] + torch.tensor([k, 0, 0]) for k in (0, 1)]) for a, b in pairwise(one.cu_seqlens)]
    clips = replace(
        one,
        tokens=tokens,
        place=torch.cat(steps).int(),
        cu_seqlens=one.cu_seqlens * 2,
        grid_thw=one.grid_thw * torch.tensor([2, 1, 1]),
        kind=torch.full((3,), VIDEO),
    )
    made = qwen_vl(clips)["pixel_values"]
    first, second = (qwen_vl(of)["pixel_values"] for of in (one, replace(one, tokens=one.tokens.flip(1))))
    wanted = [half for a, b in pairwise(one.cu_seqlens.tolist()) for half in (first[a:b], second[a:b])]
    assert len(made) == 2 * n
    torch.testing.assert_close(made, torch.cat(wanted))


def test_naflex_models_get_the_dict_of_timm() -> None:
    """timm's own functions where it is installed; what they document otherwise."""
    made = naflex(packed())
    assert made["patches"].shape == (3, 24, PATCH * PATCH * 3)
    for s, (start, stop) in enumerate(pairwise(packed().cu_seqlens.tolist())):
        n = stop - start
        assert made["patch_valid"][s].tolist() == [True] * n + [False] * (24 - n)
        assert made["patch_coord"][s, :n].tolist() == packed().place[start:stop, 1:].tolist()
        assert not made["patches"][s, n:].any()
    values = torch.cat([patches[valid] for patches, valid in zip(made["patches"], made["patch_valid"], strict=True)])
    torch.testing.assert_close(values, packed().tokens / 127.5 - 1)


def test_naflex_equals_timm() -> None:
    transforms = pytest.importorskip("timm.data.naflex_transforms")
    collator = pytest.importorskip("timm.data.naflex_dataset").NaFlexCollator(max_seq_len=30)
    patchify = transforms.Patchify(PATCH)
    wanted, _ = collator([(patchify(image / 127.5 - 1), 0) for image in pictures()])
    made: Any = naflex(packed(), length=30)
    for name in ("patches", "patch_coord", "patch_valid"):
        torch.testing.assert_close(made[name], wanted[name], rtol=0, atol=1e-6)


def test_what_a_model_cannot_take_is_refused() -> None:
    with pytest.raises(ValueError, match="accept pictures, but the batch has a sample of kind 'video'"):
        siglip2(replace(packed(), kind=torch.tensor([0, VIDEO, 0])))
    with pytest.raises(ValueError, match="accept pictures and clips, but the batch has a sample of kind 'sound'"):
        qwen_vl(replace(packed(), kind=torch.tensor([0, SOUND, 0])))
    with pytest.raises(ValueError, match="length=20: an image has 24 tokens; raise length"):
        siglip2(packed(), length=20)
    with pytest.raises(ValueError, match=r"tokens have 2 time steps; use Native\(tubelet=1\)"):
        naflex(packed(tubelet=2))
    with pytest.raises(ValueError, match=r"open the loader with Native\(multiple=4\)"):
        qwen_vl(packed(), merge=4)
