"""How transformers and the authors of MAE and VideoMAE name and lay out the weights of masked autoencoders.

A layout maps names of this package to theirs. Four things differ besides names: query, key and value are one matrix or
three; the embedding is a convolution; a bias for key, which changes no softmax, is left out here; and transformers'
and the authors' VideoMAE predict the values of a cube in (t h w c) order instead of (c t h w).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

State = Mapping[str, Tensor]
Order = Callable[[Tensor], Tensor]

KINDS = ("weight", "bias")

ENCODER, DECODER = "encoder.stacks.0.blocks", "decoder.stack.blocks"
EMBED, HEAD = "encoder.embed.0", "decoder.head.0"
PREFIXES = ("", "model.", "module.")
"""Prefixes that a checkpoint may add to all names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Names of a foreign model. All mappings go from this package's names to the foreign ones.

    Attributes:
        what: Name of the layout in messages.
        layers: Linear layers and norms outside of blocks.
        vectors: Single vectors.
        stacks: Prefixes of the blocks of encoder and decoder.
        block: Layers of a block.
        parts: Layers of query, key and value, or one layer of all three.
        biases: Biases of query and value, or one bias of all three.
        embed: The convolution.
        cubes: Whether tokens are cubes of video instead of patches of images.
        positions: Fixed positions, which this package recomputes.
    """

    what: str
    layers: Mapping[str, str]
    vectors: Mapping[str, str]
    stacks: Mapping[str, str]
    block: Mapping[str, str]
    parts: tuple[str, ...]
    biases: tuple[str, ...]
    embed: str
    cubes: bool
    positions: tuple[str, ...] = ()

    def fits(self, names: frozenset[str]) -> bool:
        """Return whether names contain at least an encoder of this layout."""
        first = f"{self.stacks[ENCODER]}.0"
        return {f"{self.embed}.weight", f"{first}.{self.parts[0]}.weight", f"{first}.{self.biases[0]}"} <= names

    def depth(self, state: State, stack: str) -> int:
        """Return the number of blocks of a stack in a state.

        Args:
            state: State dict of the other model.
            stack: Name of the stack.
        """
        start = f"{self.stacks[stack]}."
        return len({name[len(start) :].partition(".")[0] for name in state if name.startswith(start)})

    def to_ours(self, state: State) -> dict[str, Tensor]:
        """Return the weights under this package's names; an encoder needs no decoder's weights."""
        ours: dict[str, Tensor] = {}
        for name, theirs in {**self.layers, EMBED: self.embed}.items():
            for kind in KINDS:
                if f"{theirs}.{kind}" in state:
                    ours[f"{name}.{kind}"] = state[f"{theirs}.{kind}"]
        ours |= {name: state[theirs].flatten() for name, theirs in self.vectors.items() if theirs in state}
        for stack, prefix in self.stacks.items():
            for i in range(self.depth(state, stack)):
                ours |= self._block(state, f"{stack}.{i}", f"{prefix}.{i}")
        return self._put_tokens_in_order(ours, self._from_conv, self._to_channels_first)

    def from_ours(self, state: State, patch: tuple[int, ...]) -> dict[str, Tensor]:
        """Return this package's weights under the foreign names; a bias for key is 0.

        Args:
            state: Weights of this package, which may lack a decoder.
            patch: Sides of a token.
        """
        state = self._put_tokens_in_order(dict(state), lambda w: self._to_conv(w, patch), self._to_channels_last)
        theirs: dict[str, Tensor] = {}
        for name, other in {**self.layers, EMBED: self.embed}.items():
            for kind in KINDS:
                if f"{name}.{kind}" in state:
                    theirs[f"{other}.{kind}"] = state[f"{name}.{kind}"]
        theirs |= {other: state[name][None, None] for name, other in self.vectors.items() if name in state}
        for stack, prefix in self.stacks.items():
            depth = len({name[len(stack) + 1 :].partition(".")[0] for name in state if name.startswith(f"{stack}.")})
            for i in range(depth):
                theirs |= self._their_block(state, f"{stack}.{i}", f"{prefix}.{i}")
        return {name: w.detach().clone(memory_format=torch.contiguous_format) for name, w in theirs.items()}

    def _block(self, state: State, ours: str, theirs: str) -> dict[str, Tensor]:
        found = {f"{ours}.{a}.{kind}": state[f"{theirs}.{b}.{kind}"] for a, b in self.block.items() for kind in KINDS}
        found[f"{ours}.attention.qkv.weight"] = torch.cat([state[f"{theirs}.{part}.weight"] for part in self.parts])
        biases = [state[f"{theirs}.{bias}"] for bias in self.biases]
        query, value = biases if len(biases) == 2 else biases[0].chunk(3)[::2]
        return {**found, f"{ours}.attention.q_bias": query, f"{ours}.attention.v_bias": value}

    def _their_block(self, state: State, ours: str, theirs: str) -> dict[str, Tensor]:
        found = {f"{theirs}.{b}.{kind}": state[f"{ours}.{a}.{kind}"] for a, b in self.block.items() for kind in KINDS}
        weights = state[f"{ours}.attention.qkv.weight"].chunk(len(self.parts))
        found |= {f"{theirs}.{part}.weight": weight for part, weight in zip(self.parts, weights, strict=True)}
        query, value = (state[f"{ours}.attention.{one}_bias"] for one in "qv")
        zero = torch.zeros_like(query)
        if len(self.biases) == 1:
            return {**found, f"{theirs}.{self.biases[0]}": torch.cat((query, zero, value))}
        found |= {f"{theirs}.{bias}": one for bias, one in zip(self.biases, (query, value), strict=True)}
        key = f"{theirs}.{self.biases[0].replace('query', 'key').replace('q_proj', 'k_proj')}"
        return found if self.cubes else {**found, key: zero}

    def _put_tokens_in_order(self, state: dict[str, Tensor], embed: Order, head: Order) -> dict[str, Tensor]:
        """Return the state with the values of a token in the other order."""
        if f"{EMBED}.weight" in state:
            state[f"{EMBED}.weight"] = embed(state[f"{EMBED}.weight"])
        for name in (f"{HEAD}.weight", f"{HEAD}.bias"):
            if self.cubes and name in state:
                state[name] = head(state[name])
        return state

    def _from_conv(self, weight: Tensor) -> Tensor:
        return weight.flatten(1) if self.cubes else weight.permute(0, 2, 3, 1).flatten(1)

    def _to_conv(self, weight: Tensor, patch: tuple[int, ...]) -> Tensor:
        return (
            weight.reshape(-1, 3, *patch) if self.cubes else weight.reshape(len(weight), *patch, -1).permute(0, 3, 1, 2)
        )

    @staticmethod
    def _to_channels_first(head: Tensor) -> Tensor:
        return head.reshape(-1, 3, *head.shape[1:]).transpose(0, 1).reshape(head.shape)

    @staticmethod
    def _to_channels_last(head: Tensor) -> Tensor:
        return head.reshape(3, -1, *head.shape[1:]).transpose(0, 1).reshape(head.shape)


def _make_hf_layout(root: str, *, cubes: bool, query: str) -> Layout:
    """Return the layout of transformers' files; `query` is the name of the query's bias."""
    head, norm, bridge, mask = (
        ("decoder.head", "decoder.norm", "encoder_to_decoder", "mask_token")
        if cubes
        else ("decoder.decoder_pred", "decoder.decoder_norm", "decoder.decoder_embed", "decoder.mask_token")
    )
    inner = "attention.attention"
    extra = {} if cubes else {"encoder.class_token": f"{root}.embeddings.cls_token"}
    return Layout(
        what="transformers' VideoMAEForPreTraining" if cubes else "transformers' ViTMAEForPreTraining",
        layers={
            "encoder.stacks.0.norm.of.0": f"{root}.layernorm",
            "decoder.bridge": bridge,
            "decoder.stack.norm.of.0": norm,
            HEAD: head,
        },
        vectors={
            "decoder.mask_token": mask,
            **extra,
        },
        stacks={
            ENCODER: f"{root}.encoder.layer",
            DECODER: "decoder.decoder_layers" if cubes else "decoder.decoder_encoder.layer",
        },
        block={
            "norm1.of.0": "layernorm_before",
            "attention.out": "attention.output.dense",
            "norm2.of.0": "layernorm_after",
            "mlp.up": "intermediate.dense",
            "mlp.down": "output.dense",
        },
        parts=tuple(f"{inner}.{part}" for part in ("query", "key", "value")),
        biases=(f"{inner}.{query}", f"{inner}.{query.replace('query', 'value').replace('q_', 'v_')}"),
        embed=f"{root}.embeddings.patch_embeddings.projection",
        cubes=cubes,
        positions=() if cubes else (f"{root}.embeddings.position_embeddings", "decoder.decoder_pos_embed"),
    )


HF_VIDEO = _make_hf_layout("videomae", cubes=True, query="query.bias")
HF_VIDEO_FILE = _make_hf_layout("videomae", cubes=True, query="q_bias")
HF_IMAGE_FILE = _make_hf_layout("vit", cubes=False, query="query.bias")
_PLAIN = {
    "norm1.of.0": "norm1",
    "attention.out": "attn.proj",
    "norm2.of.0": "norm2",
    "mlp.up": "mlp.fc1",
    "mlp.down": "mlp.fc2",
}
AUTHORS_VIDEO = Layout(
    what="VideoMAE's authors",
    layers={
        "encoder.stacks.0.norm.of.0": "encoder.norm",
        "decoder.bridge": "encoder_to_decoder",
        "decoder.stack.norm.of.0": "decoder.norm",
        HEAD: "decoder.head",
    },
    vectors={"decoder.mask_token": "mask_token"},
    stacks={ENCODER: "encoder.blocks", DECODER: "decoder.blocks"},
    block=_PLAIN,
    parts=("attn.qkv",),
    biases=("attn.q_bias", "attn.v_bias"),
    embed="encoder.patch_embed.proj",
    cubes=True,
)
AUTHORS_IMAGE = Layout(
    what="MAE's authors",
    layers={
        "encoder.stacks.0.norm.of.0": "norm",
        "decoder.bridge": "decoder_embed",
        "decoder.stack.norm.of.0": "decoder_norm",
        HEAD: "decoder_pred",
    },
    vectors={"decoder.mask_token": "mask_token", "encoder.class_token": "cls_token"},
    stacks={ENCODER: "blocks", DECODER: "decoder_blocks"},
    block=_PLAIN,
    parts=("attn.qkv",),
    biases=("attn.qkv.bias",),
    embed="patch_embed.proj",
    cubes=False,
    positions=("pos_embed", "decoder_pos_embed"),
)
HF_IMAGE = Layout(
    what=HF_IMAGE_FILE.what,
    layers=HF_IMAGE_FILE.layers,
    vectors=HF_IMAGE_FILE.vectors,
    stacks={ENCODER: "vit.layers", DECODER: "decoder.decoder_layers"},
    block={
        "norm1.of.0": "layernorm_before",
        "attention.out": "attention.o_proj",
        "norm2.of.0": "layernorm_after",
        "mlp.up": "mlp.fc1",
        "mlp.down": "mlp.fc2",
    },
    parts=("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    biases=("attention.q_proj.bias", "attention.v_proj.bias"),
    embed=HF_IMAGE_FILE.embed,
    cubes=False,
    positions=HF_IMAGE_FILE.positions,
)
LAYOUTS = (HF_VIDEO, HF_VIDEO_FILE, HF_IMAGE_FILE, HF_IMAGE, AUTHORS_VIDEO, AUTHORS_IMAGE)
"""All layouts that can be read."""


def find_layout(state: State) -> tuple[Layout, dict[str, Tensor]] | None:
    """Return the layout of a state and the state with plain names; None for a state of this package or of unknown
    origin.
    """
    for prefix in PREFIXES:
        plain = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
        for layout in LAYOUTS:
            if layout.fits(frozenset(plain)):
                return layout, plain
    return None
