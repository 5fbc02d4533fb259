import pytest
import torch

from maskstream.pipelines.masks import DecoderRows, Padded, Replace, Tokens, WholeWords
from maskstream.train.nn.foreign import to_bert
from maskstream.train.nn.token_model import SEGMENTS
from maskstream.train.papers.retromae.model import RetroModelConfig

from ..text_batches import MASK_ID, VOCABULARY, made_up

ONE_EACH = ((12,), (20,), (7,))
ROWS = Padded(
    mask=DecoderRows(encoder=Replace(mask=WholeWords(ratio=0.3), mask_id=MASK_ID, vocabulary=VOCABULARY), ratio=0.5)
)


def built(batch, **settings):
    sizes = {"vocabulary": VOCABULARY, "width": 32, "depth": 2, "heads": 4, **settings}
    return RetroModelConfig(**sizes).build({"text": batch.mask.grid}, seed=3).double()


@pytest.fixture
def batch():
    return made_up(ONE_EACH, mask=ROWS)


def test_the_decoder_predicts_all_tokens_but_the_first_and_the_last(batch):
    losses = built(batch)(batch)
    assert list(losses.parts) == ["masked tokens", "decoded tokens"]
    assert losses.parts["decoded tokens"].weight.item() == sum(n - 2 for (n,) in ONE_EACH)
    assert losses.parts["masked tokens"].weight.item() == batch.mask.masked.sum().item()


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_every_parameter_learns_and_the_decoder_teaches_the_sentence_vector(batch, positions):
    model = built(batch, positions=positions)
    model(batch).loss().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
    sentence = torch.randn(len(ONE_EACH), 32, dtype=torch.float64, requires_grad=True)
    model.compute_decoded_loss(batch, sentence).total.backward()
    assert (sentence.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_a_position_does_not_see_its_own_token(batch, positions):
    model = built(batch, positions=positions).eval()
    ids, attend = batch.tokens[:, :20].clone(), batch.mask.attend[:, :20, :20]
    sentence = torch.randn(3, 32, dtype=torch.float64)
    before = model.decode(ids, sentence, attend)
    ids[0, 5] = 9 if ids[0, 5] != 9 else 10
    after = model.decode(ids, sentence, attend)
    assert torch.equal(before[0, 5], after[0, 5])
    changed = ((before - after).abs().sum(2)[0] > 1e-9).nonzero()[:, 0].tolist()
    assert changed == attend[0, :, 5].nonzero()[:, 0].tolist()


def test_the_vector_of_the_segment_of_a_bert_stays_apart_and_goes_back(batch):
    model, plain = (built(batch, segment=segment) for segment in (True, False))
    state = to_bert(model)
    assert torch.equal(state[SEGMENTS][0], model.embed.segment)
    assert not to_bert(plain)[SEGMENTS].any()
    own = model.rename_weights(state)
    assert all(torch.equal(own[name], value) for name, value in model.state_dict().items() if "decoder" not in name)
    added = plain.rename_weights(state)
    assert "embed.segment" not in added
    assert torch.equal(added["embed.places.weight"], model.embed.places.weight + model.embed.segment)
    with pytest.raises(ValueError, match="positions='learned', got positions='rotary'"):
        built(batch, segment=True, positions="rotary")


def test_what_it_cannot_read_is_refused(batch):
    packed = made_up(((5, 9), (12,)), mask=ROWS)
    with pytest.raises(ValueError, match="packing='row'"):
        built(packed)(packed)
    mask = Padded(mask=Replace(mask=Tokens(), mask_id=MASK_ID, vocabulary=VOCABULARY))
    with pytest.raises(ValueError, match=r"masks\.DecoderRows"):
        built(batch)(made_up(ONE_EACH, mask=mask))
