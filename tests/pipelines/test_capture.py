"""CUDA graphs of flow, cuts and masks, with a stand-in that records each operation and runs it again on its tensors.

So what a graph would do is done on a CPU: a number that came from the host, or a tensor that was made anew, is stale in
a replay. No CUDA graph is captured here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from maskstream.pipelines import capture
from maskstream.pipelines.capture import Captured
from maskstream.pipelines.flow import Lk
from maskstream.pipelines.flow.cuts import differ
from maskstream.pipelines.masks import Draw, MotionGuided, TokenGrid
from maskstream.pipelines.masks.patterns.motion_guided import capture_ranking
from maskstream.pipelines.masks.patterns.torch_maps import send_draws

WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal", "aten::lift_fresh"}
"""What waits for a device, or copies a number of the host to it."""
FREE = {
    *("view", "_unsafe_view", "expand", "slice", "select", "unsqueeze", "squeeze", "permute", "transpose", "t"),
    *("detach", "alias", "as_strided", "unbind", "split", "diagonal", "_reshape_alias", "empty", "new_empty"),
    "empty_like",
}
"""Operations that launch nothing."""


class Recorded(TorchDispatchMode):
    """Stands in for `torch.cuda.CUDAGraph`: the operations of a block, which `replay` runs again."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, out))
        return out

    def replay(self) -> None:
        for function, args, kwargs, out in self.calls:
            for old, new in zip(tree_leaves(out), tree_leaves(function(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():
                    old.copy_(new)

    @property
    def names(self) -> list[str]:
        return [function._schema.name for function, *_ in self.calls]

    @property
    def launches(self) -> int:
        return sum(name.removeprefix("aten::") not in FREE for name in self.names)


class Stream:
    def wait_stream(self, other: Stream) -> None:
        """Nothing runs elsewhere."""

    def wait_event(self, event: Any) -> None:
        """The same."""


class Event:
    def record(self, stream: Stream) -> None:
        """The same."""


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Recorded]:
    """The graphs that are captured."""
    made: list[Recorded] = []

    @contextmanager
    def graph(recorded: Recorded, *, stream: Stream, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        made.append(recorded)
        monkeypatch.setattr(torch, "from_numpy", None)  # constants are there since the warm-up
        with recorded:
            yield
        monkeypatch.undo()
        patched()

    def patched() -> None:
        monkeypatch.setattr(capture, "is_on_card", lambda x: True)
        for name, stand_in in {
            "device": lambda device: nullcontext(),
            "stream": lambda stream: nullcontext(),
            "current_stream": Stream,
            "Stream": Stream,
            "Event": Event,
            "CUDAGraph": Recorded,
            "graph": graph,
        }.items():
            monkeypatch.setattr(torch.cuda, name, stand_in)

    patched()
    return made


def clips(seed: int, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, 8, 12, 12, generator=generator)
    return (torch.nn.functional.interpolate(coarse, (8, 64, 64), mode="trilinear") * 255).byte().movedim(1, 4)


def motion(seed: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 7, 8, 8, 2, generator=torch.Generator().manual_seed(seed)) * 6


def masked(mask: MotionGuided) -> tuple[Captured, Callable[[int], tuple[Tensor, ...]]]:
    grid = TokenGrid.video(8, 64, 64)

    def inputs(seed: int) -> tuple[Tensor, ...]:
        draws = [mask.draw_motion(grid, Draw(rng=np.random.default_rng((seed, n)))) for n in range(2)]
        return motion(seed), *send_draws(draws, 4, torch.device("cpu")).tensors

    return capture_ranking(mask, grid), inputs


CASES: dict[str, Callable[[], tuple[Captured, Callable[[int], tuple[Tensor, ...]]]]] = {
    "flow": lambda: (Captured(Lk().together), lambda seed: (clips(seed),)),
    "cuts": lambda: (Captured(differ), lambda seed: (clips(seed), motion(seed))),
    "mask": lambda: masked(MotionGuided(cells=2)),
    "mask of a clip": lambda: masked(MotionGuided(base="random", exposure=2.0, per="clip", fill="none", ratio=0.7)),
    "published mask": lambda: masked(MotionGuided(base="first", compat=True, start="pixel", ratio=0.75)),
}
MOST_LAUNCHES = {"flow": 1010, "cuts": 65}
"""With 16 frames flow and mask were 1,427 and 1,235 before the loops over frames were joined, and are 1,001 and 280."""


@pytest.mark.parametrize("case", CASES)
def test_a_graph_computes_from_new_inputs_what_the_function_does(case: str, graphs: list[Recorded]) -> None:
    captured, inputs = CASES[case]()
    captured._graphs.clear()
    plain = captured._function
    for seed in range(2):
        given = inputs(seed)
        assert torch.equal(captured(*given), plain(*given)), seed
    assert len(graphs) == 1
    assert not WAITS & set(graphs[0].names)
    assert graphs[0].launches <= MOST_LAUNCHES.get(case, 190), graphs[0].launches


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_values_decide_nothing_of_a_graph(case: str) -> None:
    """It is traced with tensors that have no values, and inputs of the same shapes give the same graph."""
    captured, inputs = CASES[case]()
    codes = set()
    for seed in range(2):
        given = inputs(seed)
        expected = captured._function(*given)  # which makes constants
        traced = make_fx(lambda *x: captured._function(*x), tracing_mode="fake", _allow_non_fake_inputs=True)(*given)
        assert torch.equal(traced(*given), expected)
        codes.add(traced.code)
    assert [name for name in WAITS for code in codes if name.removeprefix("aten::") in code] == []
    assert len(codes) == 1


def test_the_stand_in_sees_a_number_of_the_host(graphs: list[Recorded]) -> None:
    captured = Captured(lambda x: x * float(x.sum()))
    assert captured(torch.ones(2)).tolist() == [2, 2]
    assert captured(torch.full((2,), 3.0)).tolist() == [6, 6], "not [18, 18]: the sum was 2 when it was captured"
    assert WAITS & set(graphs[0].names)


def test_each_shape_has_a_graph_up_to_a_number(graphs: list[Recorded]) -> None:
    captured = Captured(lambda x: x + 1)
    for size in (*range(1, capture.MOST + 3), 1):
        assert captured(torch.zeros(size)).tolist() == [1.0] * size
    assert len(graphs) == capture.MOST


def test_what_is_returned_stays_when_the_graph_runs_again(graphs: list[Recorded]) -> None:
    captured = Captured(lambda x: x + 1)
    first = captured(torch.zeros(2))
    captured(torch.ones(2))
    assert first.tolist() == [1, 1]


def test_what_cannot_be_captured_runs_with_one_warning(
    graphs: list[Recorded], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors ...")

    monkeypatch.setattr(torch.cuda, "graph", refused)
    captured = Captured(lambda x: x * 2)
    with caplog.at_level(logging.WARNING):
        assert [captured(torch.full((1,), n)).item() for n in (1.0, 2.0, 3.0)] == [2.0, 4.0, 6.0]
    assert [record.getMessage() for record in caplog.records] == [
        "no CUDA graph, so each kernel is launched by itself: operation not permitted when stream is capturing"
    ]


def test_on_a_cpu_nothing_is_captured() -> None:
    captured = Captured(lambda x: x + 1)
    assert captured(torch.zeros(1)).item() == 1
    assert not captured._graphs
