import torch

from maskstream.train.nn.grid import gather_tokens, put_tokens

TOKENS = torch.arange(24).view(2, 4, 3)
INDEX = torch.tensor([[3, 1], [0, 2]])


def test_gathered_tokens_are_those_of_each_row():
    assert gather_tokens(TOKENS, INDEX).tolist() == [
        [TOKENS[row, place].tolist() for place in INDEX[row]] for row in (0, 1)
    ]


def test_tokens_that_need_gradients_are_gathered_alike_and_so_are_views_of_others():
    tokens = TOKENS.double().requires_grad_()
    gathered = gather_tokens(tokens, INDEX)
    assert gathered.tolist() == gather_tokens(TOKENS, INDEX).tolist()
    gathered.sum().backward()
    assert tokens.grad.sum(dim=2).tolist() == [[0, 3, 0, 3], [3, 0, 3, 0]]
    twice = TOKENS.repeat_interleave(2, dim=2)
    assert torch.equal(gather_tokens(twice[..., ::2], INDEX), gather_tokens(TOKENS, INDEX))


def test_what_is_put_can_be_gathered_and_the_rest_stays():
    values = -torch.arange(12.0).view(2, 2, 3) - 1
    put = put_tokens(TOKENS, INDEX, values)
    assert put.dtype == TOKENS.dtype
    assert torch.equal(gather_tokens(put, INDEX), values.long())
    others = torch.tensor([[0, 2], [1, 3]])
    assert torch.equal(gather_tokens(put, others), gather_tokens(TOKENS, others))
    assert TOKENS.min() == 0
