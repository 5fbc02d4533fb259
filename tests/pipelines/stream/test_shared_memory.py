"""Objects cross a socket whole, with their strides and what they share, and leave nothing behind."""

import gc
import os
import socket
from collections import deque

import numpy as np
import pytest
import torch

from maskstream.pipelines.stream import shared_memory
from maskstream.pipelines.stream.shared_memory import receive, send


@pytest.fixture
def pipe():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def sent(pipe, message):
    send(pipe[0], message)
    return receive(pipe[1])


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
def test_tensors_arrive_with_their_values_and_strides(pipe, tensor):
    got = sent(pipe, tensor)
    assert (got.dtype, got.stride()) == (tensor.dtype, tensor.stride())
    assert torch.equal(got, tensor)


@pytest.mark.parametrize("size", [10, 100_000])
def test_tensors_that_share_memory_share_it_afterwards_and_can_be_written(pipe, size):
    whole = torch.arange(size)
    one, other, apart = sent(pipe, [whole, whole[5:], whole.clone()])
    one[5] = -1
    assert other[0] == -1
    assert whole[5] == apart[5] == 5


def test_arrays_words_and_many_large_parts_arrive(pipe):
    message = {"a": np.arange(50_000.0), "b": ["x"] * 9, "c": [torch.full((9_000,), i) for i in range(300)]}
    gc.collect()  # what other tests left open is not closed in between
    before = set(os.listdir("/proc/self/fd"))
    got = sent(pipe, message)
    assert np.array_equal(got["a"], message["a"])
    assert got["b"] == message["b"]
    assert all(torch.equal(a, b) for a, b in zip(got["c"], message["c"], strict=True))
    del got
    assert set(os.listdir("/proc/self/fd")) <= before


def test_many_small_messages_wait_in_the_socket_and_outlive_their_sender(pipe):
    pipe[0].settimeout(5)
    for number in range(30):
        send(pipe[0], (number, torch.full((30_000,), number)))
    pipe[0].close()
    for number in range(30):
        got, tensor = receive(pipe[1])
        assert got == number
        assert (tensor == number).all()
    with pytest.raises(EOFError):
        receive(pipe[1])


@pytest.mark.parametrize("size", [0, 3, 8, 20])
def test_a_message_that_ends_early_is_an_end(pipe, size):
    pipe[0].sendall(shared_memory._HEADER.pack(40, 0)[:size] + b"x" * max(size - 8, 0))
    pipe[0].close()
    with pytest.raises(EOFError):
        receive(pipe[1])


def test_what_cannot_be_pickled_is_not_sent_in_part(pipe):
    with pytest.raises((AttributeError, TypeError)):
        send(pipe[0], [torch.zeros(100_000), lambda: 0])
    assert sent(pipe, "next") == "next"


def test_a_receiver_that_reads_nothing_is_a_timeout(pipe):
    pipe[0].settimeout(0.1)
    with pytest.raises(TimeoutError):
        deque((send(pipe[0], b"x" * 1000) for _ in range(10_000)), maxlen=0)


def test_a_sender_waits_while_too_many_files_are_on_their_way(pipe, monkeypatch):
    calls = []

    def refused_twice(*arguments):
        calls.append(arguments)
        if len(calls) < 3:
            raise OSError(shared_memory.errno.ETOOMANYREFS, "too many references")
        return sends(*arguments)

    sends = socket.send_fds
    monkeypatch.setattr(socket, "send_fds", refused_twice)
    assert torch.equal(sent(pipe, torch.ones(20_000)), torch.ones(20_000))
    assert len(calls) == 3


def test_files_that_this_process_cannot_open_are_an_error_that_says_so(pipe, monkeypatch):
    receives = socket.recv_fds

    def short(*arguments):
        data, files, flags, address = receives(*arguments)
        os.close(files.pop())
        return data, files, flags, address

    monkeypatch.setattr(socket, "recv_fds", short)
    with pytest.raises(OSError, match=r"handed over 2 files and 1 arrived.*ulimit -n"):
        sent(pipe, torch.arange(20_000).reshape(2, -1).unbind() + tuple(map(str, range(2000))))
