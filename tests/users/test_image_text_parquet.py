"""Pictures with captions in Parquet, as the Hub has them, to a CLIP of transformers in Hugging Face's Trainer.

The user has Parquet files of {bytes, path} and captions, and trains everything with the Trainer.
"""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from maskstream.pipelines import image_text_loader

from .conftest import Command

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 50, 230), "white": (240, 240, 240)}


def write_parquet(path: Path, count: int, seed: int) -> None:
    """Pictures of one colour, and captions that say it."""
    rng = np.random.default_rng(seed)
    names = [list(COLOURS)[number % len(COLOURS)] for number in range(count)]
    rows = []
    for number, name in enumerate(names):
        pixels = np.clip(np.array(COLOURS[name]) + rng.integers(-15, 16, (40, 48, 3)), 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "png")
        image = {"bytes": file.getvalue(), "path": f"{number}.png"}
        rows.append({"image": image, "caption": f"a sheet of {name} paper", "paper": name})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning")
def test_the_trainer_of_hugging_face_matches_pictures_and_captions(maskstream: Command, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    write_parquet(tmp_path / "hub/data/train-00000-of-00001.parquet", 40, seed=0)
    write_parquet(tmp_path / "hub/data/validation-00000-of-00001.parquet", 8, seed=1)
    maskstream("datasets parquet-image-text")
    maskstream("shards parquet-image-text --root hub --out shards --workers 1 --set tokenizer=train:wordpiece:300")
    maskstream("preview shards/train --samples 4 --out page.html --set size=32 --set patch=8")
    assert "paper" in (tmp_path / "page.html").read_text()

    def loader(split: str, **options: object):
        fixed = {"size": 32, "text": ("caption",), "length": 16, "fields": ("paper",), "batch_size": 4, "seed": 0}
        return image_text_loader(tmp_path / "shards" / split, **fixed, **options)

    for batch in loader("train"):
        for pixels, name in zip(batch.image, batch.fields["paper"], strict=True):
            assert np.abs(pixels.float().mean((0, 1)).numpy() - COLOURS[name]).max() < 12

    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**size, "vocab_size": 300, "max_position_embeddings": 16, "eos_token_id": 3, "pad_token_id": 0}
    torch.manual_seed(0)
    model = transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config=text, vision_config={**size, "image_size": 32, "patch_size": 8}, projection_dim=32
        )
    )

    def inputs(batch):
        tokens = batch.text.tokens.long()
        return {
            "pixel_values": batch.image.permute(0, 3, 1, 2).float() / 127.5 - 1,
            "input_ids": tokens,
            "attention_mask": (batch.text.roles != -2).long(),
            "return_loss": True,
        }

    class Pairs(transformers.Trainer):
        def get_train_dataloader(self):
            return torch.utils.data.DataLoader(loader("train").as_dataset(inputs), batch_size=None)

    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "hf"),
        max_steps=120,
        learning_rate=2e-3,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        use_cpu=True,
        logging_steps=10,
    )
    trainer = Pairs(model=model, args=arguments)
    trainer.train()
    right = []
    model.eval()
    for batch in loader("val", shuffle=False):
        with torch.no_grad():
            found = model(**inputs(batch)).logits_per_image.argmax(1)
        right += [batch.fields["paper"][int(j)] == name for j, name in zip(found, batch.fields["paper"], strict=True)]
    assert np.mean(right) > 0.9, trainer.state.log_history
