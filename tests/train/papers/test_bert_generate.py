import pytest
import torch

from maskstream.pipelines.masks import TokenGrid
from maskstream.train.nn.token_model import TokenModelConfig
from maskstream.train.papers.bert.evaluate import generate

BLANK, SPECIAL = 3, (0, 1, 2)
GRID = TokenGrid(axes=("token",), shape=(8,), patch=(1,))


@pytest.fixture
def model():
    return TokenModelConfig(vocabulary=20, width=16, depth=1, heads=2).build({"text": GRID}, seed=0)


@pytest.fixture
def ids():
    return torch.tensor([[1, 3, 3, 7, 3, 2], [1, 9, 3, 3, 3, 2]])


@pytest.mark.parametrize("order", ["random", "left_to_right", "confident"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_blanks_are_filled_in_and_nothing_else_changes(model, ids, order, temperature):
    made = generate(model, ids, BLANK, order=order, temperature=temperature, never=SPECIAL, seed=4)
    given = ids != BLANK
    assert torch.equal(made[given], ids[given])
    assert (made[~given] > BLANK).all()
    again = generate(model, ids, BLANK, order=order, temperature=temperature, never=SPECIAL, seed=4)
    assert torch.equal(made, again)


def test_each_blank_is_drawn_given_what_is_there(model, ids):
    seen = []
    true = model.encode_ids

    def watched(ids, *rest):
        seen.append(ids.view(2, 6).clone())
        return true(ids, *rest)

    model.encode_ids = watched
    made = generate(model, ids, BLANK, order="left_to_right", seed=1)
    assert [(one == BLANK).sum(1).tolist() for one in seen] == [[3, 3], [2, 2], [1, 1]]
    assert (seen[1][0] != BLANK).tolist() == [True, True, False, True, False, True]
    assert seen[2][0, 1:3].tolist() == made[0, 1:3].tolist()


def test_other_seeds_draw_other_tokens(model, ids):
    wide = ids.repeat(20, 1)
    assert not torch.equal(generate(model, wide, BLANK, seed=0), generate(model, wide, BLANK, seed=1))


@pytest.mark.parametrize("wrong", [{"order": "backwards"}, {"temperature": -1}])
def test_wrong_settings_are_refused(model, ids, wrong):
    with pytest.raises(ValueError, match="got"):
        generate(model, ids, BLANK, **wrong)
