"""Recipes of simulations on meshes: MeshMask's pre-training, and the prediction of the next step that follows it.

maskstream train meshmask-tiny      --data .../train --out runs/masked
maskstream train meshmask-tiny-next --data .../train --out runs/next --initial runs/masked/model.safetensors
maskstream paper meshmask runs/next        --data .../val
"""

from dataclasses import replace

from maskstream.pipelines.masks import MeshNodes
from maskstream.pipelines.modalities.mesh.batch import MeshBatch
from maskstream.pipelines.modalities.mesh.data import MeshData, MeshNoise
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe

from .model import MeshNetworkConfig

TINY_MASKED_STEPS, TINY_NEXT_STEPS = 600, 1000


def meshmask_small() -> Recipe[MeshBatch]:
    """MeshMask (Garnier et al., 2025): 40 % of the nodes hidden, 15 rounds of message passing at width 128.

    The paper does not state how encoder and decoder split the rounds; here they have 10 and 5. The learning rate falls
    exponentially from 1e-4 to 1e-6, as in MeshGraphNets.

    Differences from the authors' code, which contains only the masking (losses, depths and schedule follow the paper
    and MeshGraphNets): kept nodes are sorted; masks are redrawn each epoch (authors: cached with a frame); the fields
    of hidden nodes are predicted (authors: the next step); the ratio is 0.4 for all data; nodes and edges enter through
    a gated MLP with layer norm and leave through a linear layer (authors: MLPs of four layers).
    """
    return Recipe(
        name="meshmask-small",
        batch_size=2,
        data=MeshData(mask=MeshNodes(ratio=0.4)),
        model=MeshNetworkConfig(),
        schedule=ScheduleConfig(base_lr=1.28e-2, min_lr=1.28e-4, warmup=0.0, steps=100_000, shape="exponential"),
        optimiser=OptimiserConfig(weight_decay=1e-4, max_grad_norm=1.0),
    )


def meshmask_small_next() -> Recipe[MeshBatch]:
    """Next-step prediction, with noise of 0.02 m/s on velocities with a standard deviation of about 0.5 m/s
    (MeshGraphNets, A.2.2).
    """
    return next_step(meshmask_small())


def meshmask_tiny() -> Recipe[MeshBatch]:
    """Scaled down to two CPU cores and half a minute; `make demo MODALITY=mesh` trains it first.

    A batch is one mesh, whose arrays fit into a core's cache; two meshes take 2.4 times as long.
    """
    return replace(
        meshmask_small(),
        name="meshmask-tiny",
        batch_size=1,
        model=MeshNetworkConfig(width=64, hidden=64, encoder_rounds=4, decoder_rounds=2),
        schedule=ScheduleConfig(base_lr=0.512, min_lr=5.12e-3, steps=TINY_MASKED_STEPS),
    )


def meshmask_tiny_next() -> Recipe[MeshBatch]:
    """Scaled down to a minute of training: next-step prediction from the weights of `meshmask-tiny` or from scratch."""
    tiny = next_step(meshmask_tiny())
    return replace(tiny, schedule=replace(tiny.schedule, steps=TINY_NEXT_STEPS))


def next_step(masked: Recipe[MeshBatch]) -> Recipe[MeshBatch]:
    """Return the fine-tuning recipe for next-step prediction that follows the pre-training `masked`, with the same
    network.
    """
    if not isinstance(masked.model, MeshNetworkConfig):
        raise ValueError(f"next-step prediction needs a recipe whose model is a MeshNetworkConfig, got {masked.model}")
    component = masked.data.component if isinstance(masked.data, MeshData) else None
    return replace(
        masked,
        name=f"{masked.name}-next",
        data=MeshData(noise=MeshNoise(deviation=0.04), component=component),
        model=replace(masked.model, task="next"),
    )
