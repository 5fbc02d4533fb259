import pytest
import torch
import torch.nn.functional as F

from maskstream.train.core.model import Losses, LossPart, squared, weighted


def data(n=12):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 5, generator=generator), torch.rand(n, generator=generator)


def losses(x, weight, scale):
    errors = {
        "one": squared(x * scale, torch.zeros_like(x), weight, 0.25),
        "two": weighted((x * scale).abs()[:, 0], weight),
    }
    return Losses(parts=errors)


def test_a_part_is_a_weighted_mean_and_the_loss_their_sum_in_shares():
    x, weight = data()
    got = losses(x, weight, 1.0)
    one = (x.square().mean(dim=1) * weight).sum() / weight.sum()
    two = (x[:, 0].abs() * weight).sum() / weight.sum()
    torch.testing.assert_close(got.means(), {"one": one, "two": two})
    torch.testing.assert_close(got.loss(), 0.25 * one + two)


def test_a_squared_error_and_its_gradients_are_those_of_mse_loss_also_where_nothing_differs():
    made, weight = (x.double() for x in data())
    wanted = made.flip(0)
    wanted[0] = made[0]
    gradients = []
    for error in (
        lambda a, b: squared(a, b, weight).mean(),
        lambda a, b: (F.mse_loss(a, b, reduction="none").mean(dim=1) * weight).sum() / weight.sum(),
    ):
        pair = made.clone().requires_grad_(), wanted.clone().requires_grad_()
        loss = error(*pair)
        gradients.append((loss, *torch.autograd.grad(loss, pair)))
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-15)


def test_micro_batches_of_unequal_weight_give_the_whole_batch_s_loss_and_gradient():
    x, weight = data()
    cuts = (slice(0, 2), slice(2, 3), slice(3, 12))
    whole, parts = (torch.tensor(1.5, requires_grad=True) for _ in range(2))
    wanted = losses(x, weight, whole).loss()
    wanted.backward()
    made = [losses(x[cut], weight[cut], parts) for cut in cuts]
    weights = dict(zip(made[0].parts, sum(one.weights() for one in made), strict=True))
    total = sum(one.loss(weights) for one in made)
    total.backward()
    torch.testing.assert_close(total, wanted)
    torch.testing.assert_close(parts.grad, whole.grad)
    assert not torch.isclose(sum(one.loss() for one in made) / 3, wanted), "a mean of means is not it"


def test_nothing_that_counts_costs_nothing_and_no_part_is_refused():
    x, weight = data()
    assert float(losses(x, torch.zeros_like(weight), 1.0).loss()) == 0
    with pytest.raises(ValueError, match="at least one part"):
        Losses(parts={}).loss()
    assert float(LossPart(total=torch.tensor(6.0), weight=torch.tensor(2.0)).mean(torch.tensor(3.0))) == 2
