import pytest
import torch

from maskstream.pipelines.masks import TokenGrid
from maskstream.train.core.weights import load_matching_weights
from maskstream.train.nn.foreign import export_bert, from_bert, to_bert
from maskstream.train.nn.token_model import TokenModel, TokenModelConfig
from maskstream.train.papers.retromae.model import RetroModelConfig

from ..text_batches import LENGTHS, VOCABULARY, made_up

CONFIG = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 24,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
ONE_EACH = tuple((sum(row),) for row in LENGTHS)


def hf():
    """transformers, which takes 3 s: imported by the process that runs a test, not by all that collect it."""
    return pytest.importorskip("transformers")


@pytest.fixture
def theirs():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = hf().BertForMaskedLM(hf().BertConfig(**CONFIG)).double().eval()
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter), alpha=0.05)
    return model


def arguments(batch):
    """What transformers takes: padded ids, which are real, and labels where a token is hidden."""
    labels = batch.tokens.long().masked_fill(~batch.mask.masked, -100)
    return {"input_ids": batch.inputs, "attention_mask": batch.valid.long(), "labels": labels}


def test_the_loss_and_every_gradient_are_those_of_transformers(theirs):
    batch = made_up(ONE_EACH)
    ours = from_bert(theirs.config.to_dict(), theirs.state_dict()).double()
    their_loss, our_loss = theirs(**arguments(batch)).loss, ours(batch).loss()
    assert abs(our_loss.item() - their_loss.item()) <= 1e-9

    their_loss.backward()
    our_loss.backward()
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for parameter in ours.parameters():
        parameter.data = parameter.grad
    got = to_bert(ours)
    segments = expected.pop("bert.embeddings.token_type_embeddings.weight")
    assert got.keys() >= expected.keys()
    for name, gradient in expected.items():
        assert float((got[name] - gradient).norm()) <= 1e-7 * float(gradient.norm()) + 1e-15, name
    of_places = got["bert.embeddings.position_embeddings.weight"].sum(0)
    assert torch.allclose(of_places, segments[0], atol=1e-12)


def test_loaded_weights_give_the_features_of_transformers(theirs):
    batch = made_up(ONE_EACH)
    ours = from_bert(theirs.config.to_dict(), theirs.state_dict()).double()
    padded = theirs.bert(batch.inputs, attention_mask=batch.valid.long()).last_hidden_state
    assert torch.allclose(ours.encode(batch), batch.unpadded.gathered(padded), atol=1e-12)


def test_an_export_is_what_from_pretrained_reads_and_comes_back_the_same(tmp_path):
    grids = {"text": made_up().mask.grid}
    ours = TokenModelConfig(vocabulary=VOCABULARY, width=16, depth=2, heads=2).build(grids, seed=1)
    assert isinstance(ours, TokenModel)
    export_bert(ours, tmp_path)
    theirs = hf().BertForMaskedLM.from_pretrained(tmp_path).eval()
    batch = made_up(ONE_EACH)
    assert theirs(**arguments(batch)).loss.item() == pytest.approx(ours(batch).loss().item(), abs=1e-5)
    back = from_bert(theirs.config.to_dict(), theirs.state_dict())
    for name, tensor in ours.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name


def test_a_run_may_begin_with_the_weights_of_a_shorter_or_longer_bert(theirs, tmp_path):
    theirs.float().save_pretrained(tmp_path)
    grids = {"text": TokenGrid(axes=("token",), shape=(16,), patch=(1,))}
    sizes = {"vocabulary": VOCABULARY, "width": 32, "depth": 3, "heads": 4, "mlp_ratio": 2}
    ours = RetroModelConfig(**sizes).build(grids)
    missing = load_matching_weights(ours, tmp_path)
    assert missing
    assert all(name.startswith("decoder.") for name in missing)
    batch = made_up(((12,), (16,)), length=16)
    padded = theirs.bert(batch.inputs, attention_mask=batch.valid.long()).last_hidden_state
    assert torch.allclose(ours.encode(batch), batch.unpadded.gathered(padded), atol=1e-4)
    with pytest.raises(ValueError, match="norm='pre'"):
        load_matching_weights(TokenModelConfig(**sizes, norm="pre").build(grids), tmp_path)


@pytest.mark.parametrize("change", [{"hidden_act": "relu"}, {"is_decoder": True}, {"intermediate_size": 40}])
def test_another_architecture_is_refused(theirs, change):
    with pytest.raises(ValueError, match="no counterpart"):
        from_bert({**theirs.config.to_dict(), **change}, theirs.state_dict())


def test_a_model_that_is_no_bert_is_not_exported(tmp_path):
    grids = {"text": made_up().mask.grid}
    model = TokenModelConfig(vocabulary=VOCABULARY, width=16, depth=1, heads=2, gated=True).build(grids)
    with pytest.raises(ValueError, match="gated=True"):
        export_bert(model, tmp_path)
