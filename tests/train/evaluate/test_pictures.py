"""The held-out loss of pictures beside trivial predictors."""

import pytest
import torch

from maskstream.pipelines.masks import Random
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.train.evaluate.pictures import held_out, held_out_pictures, losses, nearest_visible
from maskstream.train.models.image_autoencoder import ImageAutoencoderConfig

from ...pipelines.every_modality import write_split

DATA = ImageData(size=32, patch=8, mask=Random(ratio=0.75))
SIZES = ImageAutoencoderConfig(width=32, depth=1, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_split("image", tmp_path_factory.mktemp("image"))


def test_the_nearest_visible_token_is_found_on_the_grid():
    visible = torch.tensor([[0, 7], [5, 10]])
    target = torch.tensor([[1, 4, 11, 6], [0, 15, 6, 9]])
    # on 4 x 4: 0 at (0, 0), 7 at (1, 3); 5 at (1, 1), 10 at (2, 2), as near to 6 and 9 as 5 is
    assert nearest_visible((4, 4), visible, target).tolist() == [[0, 0, 7, 7], [5, 10, 5, 5]]


def test_losses_are_those_of_one_patch_after_the_other(split):
    model = SIZES.build(DATA.grids).eval()
    pictures = held_out_pictures(DATA, split)
    found = losses(model, pictures)
    mean, nearest, own, n = 0.0, 0.0, 0.0, 0
    for batch in pictures:
        image, mask = model.tokens.of(batch)
        targets = model.tokens.targets(model.tokens.split(image))
        with torch.inference_mode():
            made = model.predict(image, mask.visible, mask.target)
        for i in range(len(batch)):
            for j, token in enumerate(mask.target[i].tolist()):
                seen = mask.visible[i].tolist()
                apart = [(o // 4 - token // 4) ** 2 + (o % 4 - token % 4) ** 2 for o in seen]
                near = seen[apart.index(min(apart))]
                true = targets[i, token]
                mean += float(true.square().mean())
                nearest += float((targets[i, near] - true).square().mean())
                own += float((made[i, j] - true).square().mean())
                n += 1
    assert found.mean == pytest.approx(mean / n, rel=1e-4)
    assert found.nearest == pytest.approx(nearest / n, rel=1e-4)
    assert found.model == pytest.approx(own / n, rel=1e-4)
    assert 0.9 < found.mean < 1


def test_what_is_said_is_the_same_each_time(split):
    model = SIZES.build(DATA.grids).eval()
    facts = held_out(DATA, model, split).facts
    assert facts == held_out(DATA, model, split).facts
    assert facts["mask"] == repr(DATA.mask)
    assert facts["loss on these pictures"].endswith("the better of the next two")
