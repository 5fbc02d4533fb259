"""Generates point clouds from noise by the reverse diffusion, in all of its steps or in fewer.

With eta = 1 and all steps this is the ancestral sampling of DDPM (Ho et al., 2020). With eta = 0 it is DDIM (Song et
al., 2020), which is deterministic and needs few steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .model import VoxelDiffusion


@torch.inference_mode()
def sample_clouds(
    model: VoxelDiffusion,
    label: Tensor,
    generator: torch.Generator,
    *,
    points: int = 2048,
    steps: int = 50,
    eta: float = 0.0,
) -> Tensor:
    """Generates a cloud of `points` points for each label int64 (B,): float32 (B, points, 3), on the model's device.

    steps: the number of diffusion times used, evenly spaced. eta: the share of DDPM's noise that is added in each step,
    in [0, 1]. generator: on the CPU; it decides the clouds. The model must be in eval mode.
    """
    times = model.noise.times
    if not 1 <= steps <= times or not 0 <= eta <= 1 or points < 1:
        raise ValueError(
            f"1 <= steps <= {times}, 0 <= eta <= 1 and points >= 1 must hold, got {steps=}, {eta=}, {points=}"
        )
    device = model.mask_token.device
    kept = torch.cat((model.noise.kept(), torch.ones(1, dtype=torch.float64)))
    at = torch.linspace(times - 1, 0, steps).round().long()
    label = label.to(device)
    x = _normal(len(label), points, generator, device)
    for now, after in zip(at.tolist(), [*at[1:].tolist(), -1], strict=True):
        noise = model.predict(x, torch.full_like(label, now), label).float()
        a, b = float(kept[now]), float(kept[after])
        clean = (x - (1 - a) ** 0.5 * noise) / a**0.5
        spread = eta * ((1 - b) / (1 - a) * (1 - a / b)) ** 0.5
        x = b**0.5 * clean + max(1 - b - spread**2, 0.0) ** 0.5 * noise
        if spread > 0:
            x = x + spread * _normal(len(label), points, generator, device)
    return x


def _normal(batch: int, points: int, generator: torch.Generator, device: torch.device) -> Tensor:
    return torch.randn(batch, points, 3, generator=generator).to(device)
