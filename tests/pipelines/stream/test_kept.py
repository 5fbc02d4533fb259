"""Memory is used again when, and only when, nothing refers to it any more."""

import gc
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from maskstream.pipelines.stream import kept
from maskstream.pipelines.stream.kept import OwnMemory

SHAPE = (4, kept.LARGE // 4)


@pytest.fixture
def memory():
    made = OwnMemory()
    made.other = made.empty(SHAPE, np.float64)  # idle memory is freed with the last array, so one lives meanwhile
    return made


def address(array):
    return array.__array_interface__["data"][0]


def place_of(memory):
    """Where the next array lies."""
    return address(memory.empty(SHAPE, np.uint8))


HOLDERS = {
    "tensor": lambda t: t,
    "view": lambda t: t.view(-1)[8:].view(torch.int16)[::2],
    "transposed": lambda t: t.T,
    "detached": lambda t: t.detach(),
    "one of several views": lambda t: t.unbind()[3],
    "storage": lambda t: t.untyped_storage(),
    "parameter": lambda t: torch.nn.Parameter(t, requires_grad=False),
    "saved for a gradient": lambda t: (
        (t.view(torch.float16) * torch.ones((), dtype=torch.float16, requires_grad=True)).grad_fn
    ),
    "numpy": lambda t: t.numpy(),
    "slice of numpy": lambda t: t.numpy()[1:, ::3].T,
    "base of numpy": lambda t: t.numpy()[1:].view(np.int16).base,
    "buffer": lambda t: memoryview(t.numpy())[1:],
    "buffer of bytes": lambda t: memoryview(t.numpy()).cast("B")[3:9],
    "pickle buffer": lambda t: pickle.PickleBuffer(t.numpy()),
    "array of a buffer": lambda t: np.frombuffer(memoryview(t.numpy()).cast("B"), np.uint16),
    "tensor of a buffer": lambda t: torch.frombuffer(memoryview(t.numpy()), dtype=torch.int32),
    "capsule of torch": lambda t: torch.utils.dlpack.to_dlpack(t[1:]),
    "capsule of numpy": lambda t: t.numpy()[1:].__dlpack__(),
    "tensor of a capsule": lambda t: torch.from_dlpack(t.numpy()),
    "array of a capsule": lambda t: np.from_dlpack(t[2:]),
    "array interface": lambda t: np.asarray(SimpleNamespace(__array_interface__=t.numpy().__array_interface__, of=t)),
    "copy of a dict": lambda t: {"pixels": t}.copy(),
    "closure": lambda t: lambda: t,
}


@pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS)
def test_memory_is_not_used_while_anything_refers_to_it_and_is_used_afterwards(memory, holder):
    array = memory.empty(SHAPE, np.uint8)
    place, held = address(array), holder(torch.from_numpy(array))
    del array
    assert place not in [place_of(memory) for _ in range(3)]
    del held
    assert place_of(memory) == place


def test_a_clone_and_a_pickled_copy_have_memory_of_their_own(memory):
    tensor = torch.from_numpy(memory.empty(SHAPE, np.uint8)).fill_(7)
    place, clone, copy = tensor.data_ptr(), tensor.clone(), pickle.loads(pickle.dumps(tensor))
    del tensor
    gc.collect()  # torch 2.9 leaves a cycle when it pickles
    again = memory.empty(SHAPE, np.uint8)
    again[:] = 9
    assert address(again) == place
    assert bool((clone == 7).all() and (copy == 7).all())


def test_a_gradient_is_that_of_the_values_that_were_saved(memory):
    weight = torch.ones((), requires_grad=True)
    loss = (torch.from_numpy(memory.empty(SHAPE, np.float32)).fill_(2) * weight).sum()
    memory.empty(SHAPE, np.float32)[:] = 5
    loss.backward()
    assert weight.grad == 2 * np.prod(SHAPE)


def test_small_arrays_are_the_allocators():
    memory = OwnMemory()
    assert memory.empty((kept.LARGE - 1,), np.uint8).base is None
    assert memory.empty((0, 3), np.float32).shape == (0, 3)


def test_it_is_bounded_by_the_arrays_that_live_together(memory):
    many = [memory.empty(SHAPE, np.uint8) for _ in range(9)]
    assert len({address(array) for array in many}) == 9
    many.clear()
    assert len(memory._idle) == 9
    for n in range(2, 40):  # larger ones and smaller ones do not fit
        memory.empty((n * kept.LARGE,), np.uint8)
    for _ in range(kept._AGE + 1):
        memory.empty((kept.LARGE,), np.float64)
    assert len(memory._idle) <= 2
    del memory.other
    assert len(memory._idle) == len(memory._covers) == 0


def test_a_somewhat_smaller_array_fits(memory):
    place = address(memory.empty((kept.LARGE * 5 // 4,), np.uint8))
    assert place_of(memory) == place


def test_threads_never_share_memory(memory, monkeypatch):
    monkeypatch.setattr(kept, "LARGE", 1)

    def work(number):
        held, right = [], True
        for step in range(300):
            array = memory.empty((50 + step % 3,), np.int64)
            array[:] = number
            held.append(torch.from_numpy(array))
            if len(held) == 4:
                right &= all(bool((tensor == number).all()) for tensor in held)
                del held[step % 3]
        return right

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(8)))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_has_its_own(memory):
    array = memory.empty(SHAPE, np.uint8)
    array[:] = 1
    idle = place_of(memory)
    if (child := os.fork()) == 0:
        mine = memory.empty(SHAPE, np.uint8)
        mine[:] = array[:] = 2
        os._exit(address(mine) != idle)
    mine = memory.empty(SHAPE, np.uint8)
    mine[:] = 3
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert bool((array == 1).all() and (mine == 3).all())
