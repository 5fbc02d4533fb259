import torch

from maskstream.train.core.optimiser import find_matrices
from maskstream.train.nn.grid import LearntPositions


def test_learnt_positions_are_the_sum_of_time_and_space_in_the_order_of_the_tokens():
    places = LearntPositions((2, 3, 4), 6)
    table = places()
    assert table.shape == (24, 6)
    token = (1 * 3 + 2) * 4 + 3
    assert torch.equal(table[token], places.time[1] + places.space[2 * 4 + 3])
    assert not find_matrices(places), "tables of embeddings do not decay"
