"""The published loop over the words of a text in a random order, compiled."""

import numpy as np
import numpy.typing as npt

from maskstream.shards.jit import kernel

_U = np.uint64
_STEP, _FIRST, _SECOND = _U(0x9E37_79B9_7F4A_7C15), _U(0xBF58_476D_1CE4_E5B9), _U(0x94D0_49BB_1331_11EB)


@kernel
def take_words(
    lengths: npt.NDArray[np.int64],
    candidates: npt.NDArray[np.int64],
    count: int,
    seed: np.uint64,
    taken: npt.NDArray[np.bool_],
) -> None:
    """Fills each row of `taken` (rows, W), all False: tries the candidates, numbers of words, in a random order.

    A word is taken unless the row would then have more than `count` tokens. The orders are drawn by Fisher and Yates's
    shuffle, no further than needed, from SplitMix64 (Steele et al. 2014) that starts at `seed`.
    """
    rows, _ = taken.shape
    n = len(candidates)
    order = candidates.copy()
    state = seed
    for row in range(rows):
        room = count
        for i in range(n):
            if room == 0:
                break
            state += _STEP
            bits = (state ^ (state >> _U(30))) * _FIRST
            bits = (bits ^ (bits >> _U(27))) * _SECOND
            bits ^= bits >> _U(31)
            j = i + np.int64(((bits >> _U(32)) * _U(n - i)) >> _U(32))
            word = order[j]
            order[j] = order[i]
            order[i] = word
            if lengths[word] <= room:
                taken[row, word] = True
                room -= lengths[word]
