"""A model in the form of transformers or timm: its config, its weights by their names, and how to compute its
features.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from .encoder_decoder import VisibleEncoder
from .layouts import AUTHORS_IMAGE, HF_IMAGE_FILE, Layout
from .media_tokens import ImageTokens, SpectrogramTokens
from .transformer import BlockSizes


@dataclass(frozen=True, kw_only=True, slots=True)
class Counterpart:
    """A model in the format of transformers, in two files: config.json and model.safetensors.

    Attributes:
        name: Class that reads all weights.
        kind: The config's `model_type`.
        config: Further entries of the config.
        state: Weights by their names in the file.
        encoder: Class whose last hidden states are the model's features.
        options: Arguments of the encoder's `from_pretrained`.
        call: Arguments of the encoder's call besides the pixels.
        pixels: Name of the argument of the pixels.
        class_tokens: Number of hidden states before those of the tokens.
    """

    name: str
    kind: str
    config: Mapping[str, Any]
    state: Mapping[str, Tensor]
    encoder: str
    options: Mapping[str, object] = field(default_factory=dict)
    call: Mapping[str, object] = field(default_factory=dict)
    pixels: str = "pixel_values"
    class_tokens: int = 0

    def write(self, folder: str | Path) -> None:
        """Write both files, which `from_pretrained(folder)` of the class reads."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        whole = {"architectures": [self.name], "model_type": self.kind, **self.config}
        (folder / "config.json").write_text(json.dumps(whole, indent=2) + "\n")
        save_file(dict(self.state), folder / "model.safetensors", metadata={"format": "pt"})


def convert_encoder_state(encoder: VisibleEncoder, patch: tuple[int, ...], *, hf: bool) -> dict[str, Tensor]:
    """Return the weights of a patch encoder under the names of another library, without position embeddings.

    Args:
        encoder: The encoder.
        patch: Sides of a token.
        hf: Whether to use names of transformers' vision transformers instead of timm's.
    """
    layout: Layout = HF_IMAGE_FILE if hf else AUTHORS_IMAGE
    state = layout.from_ours({f"encoder.{name}": own for name, own in encoder.state_dict().items()}, patch)
    return {name.removeprefix("vit."): own for name, own in state.items()}


def convert_to_ijepa(encoder: VisibleEncoder, tokens: ImageTokens, sizes: BlockSizes) -> Counterpart:
    """Convert an image encoder without a class token to IJepaModel.

    Args:
        encoder: The encoder.
        tokens: Tokens of images.
        sizes: Sizes of the blocks.

    Raises:
        ValueError: Images are not square.
    """
    if len(set(tokens.extent)) > 1:
        raise ValueError(
            f"transformers.IJepaModel takes square images, got {' x '.join(map(str, tokens.extent))} pixels; train "
            "with one size"
        )
    positions = encoder.positions().detach()
    state = convert_encoder_state(encoder, tokens.patch, hf=True)
    state["embeddings.position_embeddings"] = positions[None].clone()
    width = positions.shape[1]
    config = {
        "hidden_size": width,
        "num_hidden_layers": sizes.depth,
        "num_attention_heads": sizes.heads,
        "intermediate_size": width * sizes.mlp_ratio,
        "image_size": tokens.extent[0],
        "patch_size": tokens.patch[0],
        "num_channels": 3,
        "layer_norm_eps": sizes.eps,
        "hidden_act": "gelu",
        "qkv_bias": True,
    }
    return Counterpart(name="IJepaModel", kind="ijepa", config=config, state=state, encoder="IJepaModel")


TIMM_EPS = 1e-6
"""The epsilon of the norms of timm's vision transformers, which no argument changes."""
TIMM_NAMES = {
    192: "vit_tiny_patch16_224",
    384: "vit_small_patch16_224",
    1024: "vit_large_patch16_224",
    1280: "vit_huge_patch14_224",
}
"""timm's names by width; others are called base. The arguments specify all sizes anyway."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TimmCounterpart:
    """An encoder of patches as timm's VisionTransformer: `create_model(architecture, **arguments)`.

    Attributes:
        architecture: Name of the architecture.
        arguments: Arguments of the architecture.
        state: Weights by timm's names.
    """

    architecture: str
    arguments: Mapping[str, Any]
    state: Mapping[str, Tensor]

    def write(self, folder: str | Path, pretrained: Mapping[str, object], classes: Sequence[str] = ()) -> None:
        """Write model.safetensors, for `create_model(..., checkpoint_path=)`, and config.json, with which
        `create_model("local-dir:FOLDER", pretrained=True)` needs no arguments.

        Args:
            folder: Folder to write to.
            pretrained: Entries of timm's `pretrained_cfg`, such as mean and std.
            classes: Names of the head's classes.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        count = self.arguments["num_classes"]
        told = {
            "architecture": self.architecture,
            "num_classes": count,
            "num_features": self.arguments["embed_dim"],
            "global_pool": "avg",
            "model_args": dict(self.arguments),
            "pretrained_cfg": {
                "num_classes": count,
                "first_conv": "patch_embed.proj",
                "classifier": "head",
                **pretrained,
            },
            **({"label_names": list(classes)} if count else {}),
        }
        (folder / "config.json").write_text(json.dumps(told, indent=2) + "\n")
        save_file(dict(self.state), folder / "model.safetensors", metadata={"format": "pt"})


def convert_to_timm(
    encoder: VisibleEncoder,
    tokens: ImageTokens | SpectrogramTokens,
    sizes: BlockSizes,
    head: nn.Linear | None = None,
) -> TimmCounterpart:
    """Convert an encoder of images, or of spectrograms as images with one channel, to timm.

    Args:
        encoder: The encoder.
        tokens: Tokens of images or spectrograms.
        sizes: Sizes of the blocks.
        head: Layer that scores classes from the mean of the tokens.

    Raises:
        ValueError: The epsilon of the norms differs from timm's.
    """
    if sizes.eps != TIMM_EPS:
        raise ValueError(f"timm's vision transformers use norms with eps={TIMM_EPS:g}, got {sizes.eps:g}")
    positions = encoder.positions().detach()
    state = convert_encoder_state(encoder, tokens.patch, hf=False)
    if encoder.class_token is not None:
        positions = torch.cat((torch.zeros_like(positions[:1]), positions))
    state["pos_embed"] = positions[None].clone()
    if head is not None:
        state |= {f"head.{kind}": own.detach().clone() for kind, own in head.named_parameters()}
    width = positions.shape[1]
    arguments = {
        "img_size": list(tokens.extent),
        "patch_size": list(tokens.patch),
        "in_chans": 3 if isinstance(tokens, ImageTokens) else 1,
        "embed_dim": width,
        "depth": sizes.depth,
        "num_heads": sizes.heads,
        "mlp_ratio": sizes.mlp_ratio,
        "class_token": encoder.class_token is not None,
        "global_pool": "avg",
        "fc_norm": False,
        "num_classes": 0 if head is None else head.out_features,
    }
    named = TIMM_NAMES.get(width, "vit_base_patch16_224")
    return TimmCounterpart(architecture=named, arguments=arguments, state=state)
