"""Objects cross a socket whole, with their strides and what they share, and leave nothing behind. The memory that they
lie in is written again when, and only when, nothing refers to it at the receiver.
"""

import gc
import os
import pickle
import socket
from collections import deque

import numpy as np
import pytest
import torch

from maskstream.pipelines.stream import kept, shared_memory
from maskstream.pipelines.stream.shared_memory import Channel
from maskstream.pipelines.stream.tensors import HostArray

from .test_kept import HOLDERS


@pytest.fixture
def ends():
    """The two ends of a channel; the second is the receiver."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Channel(ours), Channel(theirs)


def sent(ends, message):
    ends[0].send(message)
    return ends[1].receive()


def told(ends):
    """Lets the receiver say what it has given back."""
    ends[1].send(None)
    ends[0].receive()


def files_of(ends):
    """How many files the sender keeps, how many of them are idle, and how many the receiver has mapped."""
    ring = ends[0].ring
    ring._settle()
    return len(ring._files), len(ring._idle), len(ends[1]._theirs)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(3),
        torch.arange(200_000).view(1000, 200).T,
        torch.rand(100, 300)[::3, 5:],
        torch.ones(5, dtype=torch.bfloat16),
        torch.zeros(70_000, dtype=torch.bool),
        torch.tensor(2.5),
        torch.empty(0, 3),
        torch.tensor([1 + 2j]).conj(),
    ],
    ids=lambda tensor: f"{tensor.dtype} {tuple(tensor.shape)}",
)
def test_tensors_arrive_with_their_values_and_strides(ends, tensor):
    got = sent(ends, tensor)
    assert (got.dtype, got.stride()) == (tensor.dtype, tensor.stride())
    assert torch.equal(got, tensor)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(3),
        np.arange(200_000).reshape(1000, 200).T,
        np.linspace(0, 1, 30_000, dtype=np.float32).reshape(100, 300)[::3, 5:],
        np.asfortranarray(np.arange(12).reshape(3, 4))[1:],
        np.zeros(70_000, np.bool_),
        np.array(2.5),
        np.empty((2, 0, 3), np.uint8),
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)
def test_arrays_of_a_process_without_torch_arrive_as_the_tensors_that_they_stand_for(ends, array):
    got = sent(ends, array.view(HostArray))
    assert (type(got), got.dtype, got.shape) == (torch.Tensor, torch.from_numpy(array).dtype, array.shape)
    assert torch.equal(got, torch.from_numpy(array))


def test_what_is_computed_of_such_an_array_arrives_as_a_tensor_and_shares_memory_with_its_views(ends):
    whole = (np.arange(100_000) * 2).view(HostArray)
    one, other, doubled, twice = sent(ends, [whole, whole[5:], whole * 2, whole[:3].repeat_interleave(2)])
    one[5] = -1
    assert (other[0], doubled[5], twice.tolist()) == (-1, 20, [0, 0, 2, 2, 4, 4])
    assert whole.numpy()[5] == 10


@pytest.mark.parametrize("size", [10, 100_000])
def test_tensors_that_share_memory_share_it_afterwards_and_can_be_written(ends, size):
    whole = torch.arange(size)
    one, other, apart = sent(ends, [whole, whole[5:], whole.clone()])
    one[5] = -1
    assert other[0] == -1
    assert whole[5] == apart[5] == 5


def test_arrays_words_and_many_large_parts_arrive(ends):
    message = {"a": np.arange(50_000.0), "b": ["x"] * 9, "c": [torch.full((9_000,), i) for i in range(300)]}
    gc.collect()  # what other tests left open is not closed in between
    before = set(os.listdir("/proc/self/fd"))
    got = sent(ends, message)
    assert np.array_equal(got["a"], message["a"])
    assert got["b"] == message["b"]
    assert all(torch.equal(a, b) for a, b in zip(got["c"], message["c"], strict=True))
    del got
    assert len(os.listdir("/proc/self/fd")) <= len(before) + 2 * shared_memory._MOST_KEPT


def test_many_small_messages_wait_in_the_socket_and_outlive_their_sender(ends):
    ends[0].pipe.settimeout(5)
    for number in range(30):
        ends[0].send((number, torch.full((30_000,), number)))
    ends[0].close()
    for number in range(30):
        got, tensor = ends[1].receive()
        assert got == number
        assert (tensor == number).all()
    with pytest.raises(EOFError):
        ends[1].receive()


@pytest.mark.parametrize("size", [0, 3, 20, 32])
def test_a_message_that_ends_early_is_an_end(ends, size):
    ends[0].pipe.sendall(shared_memory._HEADER.pack(40, 0, 0, 0, 0)[:size] + b"x" * max(size - 20, 0))
    ends[0].close()
    with pytest.raises(EOFError):
        ends[1].receive()


def test_what_cannot_be_pickled_is_not_sent_in_part(ends):
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        ends[0].send([torch.zeros(100_000), lambda: 0])
    assert sent(ends, "next") == "next"


def test_a_receiver_that_reads_nothing_is_a_timeout(ends):
    ends[0].pipe.settimeout(0.1)
    with pytest.raises(TimeoutError):
        deque((ends[0].send(b"x" * 1000) for _ in range(10_000)), maxlen=0)


def test_a_sender_waits_while_too_many_files_are_on_their_way(ends, monkeypatch):
    calls = []

    def refused_twice(*arguments):
        calls.append(arguments)
        if len(calls) < 3:
            raise OSError(shared_memory.errno.ETOOMANYREFS, "too many references")
        return sends(*arguments)

    sends = socket.send_fds
    monkeypatch.setattr(socket, "send_fds", refused_twice)
    assert torch.equal(sent(ends, torch.ones(20_000)), torch.ones(20_000))
    assert len(calls) == 3


def test_files_that_this_process_cannot_open_are_an_error_that_says_so(ends, monkeypatch):
    receives = socket.recv_fds

    def short(*arguments):
        data, files, flags, address = receives(*arguments)
        os.close(files.pop())
        return data, files, flags, address

    monkeypatch.setattr(socket, "recv_fds", short)
    with pytest.raises(OSError, match=r"sent 2 files but 1 arrived.*ulimit -n"):
        sent(ends, torch.arange(20_000).reshape(2, -1).unbind() + tuple(map(str, range(2000))))


@pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS)
def test_a_file_is_not_written_while_anything_refers_to_what_came_in_it_and_is_afterwards(ends, holder):
    got = sent(ends, torch.full((4, 50_000), 7, dtype=torch.uint8))
    place, held = got.data_ptr(), holder(got)
    del got
    told(ends)
    assert files_of(ends) == (1, 0, 1)
    assert sent(ends, torch.full((4, 50_000), 8, dtype=torch.uint8)).data_ptr() != place
    assert files_of(ends)[0] == 2
    del held
    told(ends)
    assert files_of(ends) == (2, 2, 2)
    assert place in {sent(ends, torch.full((4, 50_000), n, dtype=torch.uint8)).data_ptr() for n in range(2)}
    assert files_of(ends)[0] == 2


def test_an_array_of_the_ring_is_sent_without_a_copy_and_its_file_waits_for_both_ends(ends):
    array = ends[0].ring.empty((100_000,), np.uint8)
    array[:] = 3
    got = sent(ends, {"pixels": torch.from_numpy(array)})["pixels"]
    array[5] = 4
    assert (got[5], got[6], files_of(ends)) == (4, 3, (1, 0, 1))
    del got
    told(ends)
    assert files_of(ends) == (1, 0, 1)
    del array
    assert files_of(ends) == (1, 1, 1)
    second = ends[0].ring.empty((100_000,), np.uint8)
    got = sent(ends, torch.from_numpy(second))
    del second
    assert files_of(ends) == (1, 0, 1)
    del got
    told(ends)
    assert files_of(ends) == (1, 1, 1)


def test_memory_that_is_sent_twice_lies_in_two_files(ends):
    array = ends[0].ring.empty((100_000,), np.uint8)
    array[:] = 3
    one, other = sent(ends, [torch.from_numpy(array), array])
    again = sent(ends, array[:90_000])
    one[0] = 9
    assert (int(other[0]), int(again[0])) == (3, 3)
    del one, array
    told(ends)
    ends[0].ring.empty((100_000,), np.uint8)[:] = 0
    assert bool((other == 3).all() and (again == 3).all())


def test_a_receiver_that_keeps_all_holds_up_nobody_and_loses_nothing(ends, monkeypatch):
    monkeypatch.setattr(shared_memory, "_MOST_KEPT", 6)
    gc.collect()
    before = set(os.listdir("/proc/self/fd"))
    many = []
    for number in range(shared_memory._MOST_KEPT + 20):
        array = ends[0].ring.empty((70_000,), np.uint8)
        array[:] = number
        many.append(sent(ends, torch.from_numpy(array)))
        del array
        told(ends)
    assert files_of(ends) == (shared_memory._MOST_KEPT, 0, shared_memory._MOST_KEPT)
    assert all(bool((tensor == number).all()) for number, tensor in enumerate(many))
    many.clear()
    told(ends)
    assert files_of(ends)[1] == shared_memory._MOST_KEPT
    for size in range(4, 14):  # others do not fit
        sent(ends, torch.zeros(size << 16, dtype=torch.uint8))
        told(ends)
    assert files_of(ends) == (6, 6, 6)
    ends[0].ring, ends[1]._theirs = None, {}
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) <= before


def test_files_of_sizes_that_are_not_needed_any_more_are_closed_at_both_ends(ends, monkeypatch):
    monkeypatch.setattr(kept, "_AGE", 8)
    many = [sent(ends, torch.zeros(70_000)) for _ in range(3)]
    del many
    told(ends)
    for _ in range(10):
        sent(ends, torch.zeros(140_000))
        told(ends)
    told(ends)
    assert files_of(ends) == (1, 1, 1)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_what_a_fork_sees_is_never_written_again(ends):
    got, go = sent(ends, torch.full((100_000,), 7)), os.pipe()
    if (child := os.fork()) == 0:
        os.read(go[0], 1)
        right = bool((got.numpy() == 7).all())  # threads of torch are not there in a fork
        del got
        os._exit(not (right and not ends[1]._back))
    del got
    told(ends)
    assert files_of(ends) == (0, 0, 0)
    for number in range(3):
        sent(ends, torch.full((100_000,), number))
        told(ends)
    assert files_of(ends) == (1, 1, 1)
    os.write(go[1], b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for end in go:
        os.close(end)


def test_a_message_for_which_there_is_no_memory_is_not_sent_in_part(ends, monkeypatch):
    def full(*arguments):
        if arguments[2] > 1 << 20:
            raise OSError(shared_memory.errno.ENOSPC, "no space")
        return takes(*arguments)

    takes = os.posix_fallocate
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="no space"):
        ends[0].send([torch.zeros(20_000), torch.zeros(1_000_000)])
    assert files_of(ends) == (1, 1, 0)
    assert ends[0].ring.empty((2 << 20,), np.uint8).base is None
    assert torch.equal(sent(ends, torch.ones(20_000)), torch.ones(20_000))


def test_an_answer_that_names_a_file_that_never_came_is_an_end(ends, monkeypatch):
    receives = socket.recv_fds

    def short(*arguments):
        data, files, flags, address = receives(*arguments)
        for file in files:
            os.close(file)
        return data, [], flags, address

    with monkeypatch.context() as patch:
        patch.setattr(socket, "recv_fds", short)
        with pytest.raises(OSError, match="ulimit -n"):
            sent(ends, torch.zeros(50_000))
    array = ends[0].ring.empty((100_000,), np.uint8)
    ends[0].ring.take_unsent(list(ends[0].ring._files.values())[:1])  # as if it had come back
    del array
    with pytest.raises(EOFError):
        sent(ends, torch.zeros(50_000))
