"""Pixels as normalised floats: the values of torch's arithmetic, bit by bit, in any dtype and from any memory."""

import pytest
import torch

from maskstream.pipelines.modalities.video.batch import IMAGENET_MEAN, IMAGENET_STD, normalised

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("mean", "std"), [(IMAGENET_MEAN, IMAGENET_STD), ((0.5, 0.4, 0.0), (0.5, 1.0, 2.0))])
def test_values_are_torchs_bit_by_bit(dtype, mean, std):
    pixels = torch.randint(0, 256, (2, 3, 5, 19, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels.view(-1)[:256] = torch.arange(256)
    m, s = (torch.tensor(of, dtype=dtype).view(3, 1, 1) for of in (mean, std))
    for given in (pixels, pixels[1:, :, 1:, ::2], pixels[:0]):
        found = normalised(given, mean, std, dtype)
        expected = given.movedim(-1, -3).to(dtype).div(255.0).sub(m).div(s)
        assert found.dtype == dtype
        assert found.is_contiguous()
        assert torch.equal(found, expected)
