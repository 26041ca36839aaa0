"""Memory of records and buffers, and operations that leave other threads asleep."""

from __future__ import annotations

import threading

import pytest
import torch

import bdtorch as bt
from bdtorch.simulate import _memory
from bdtorch.simulate._memory import cleared, copied, joined
from bdtorch.simulate._serial import in_this_thread
from bdtorch.simulate.loops import native
from bdtorch.simulate.loops.native import runner


def test_pieces_that_lie_one_behind_the_other_are_joined_where_they_are():
    memory = torch.arange(20)
    pieces = [memory[2:5], memory[5:5], memory[5:6], memory[6:9]]
    whole = joined(pieces)
    assert torch.equal(whole, torch.cat(pieces))
    assert whole.data_ptr() == pieces[0].data_ptr()
    assert whole.untyped_storage().nbytes() == 7 * 8  # or files would hold the rest of the memory too


@pytest.mark.parametrize(
    "pieces",
    [
        lambda x: [x[2:5], x[6:9]],
        lambda x: [x[6:9], x[2:6]],
        lambda x: [x[2:6], x[2:6]],
        lambda x: [x[2:5], x.clone()[5:9]],
        lambda x: [x[0:8:2], x[8:12]],
        lambda x: [x[3:3], x[4:4]],
        lambda x: [x[1:2], x[2:3]],  # of a memory that would be kept for little
    ],
)
def test_other_pieces_are_copied(pieces):
    memory = torch.arange(20)
    given = pieces(memory)
    expected = torch.cat(given)
    whole = joined(given)
    memory += 100
    assert torch.equal(whole, expected)


@pytest.mark.parametrize("dtype", [torch.bool, torch.bfloat16, torch.float64, torch.complex64])
@pytest.mark.parametrize("shape", [(), (0, 3), (7,), (3, 700_001), (1 << 21,)])
def test_copies_are_equal_and_their_own(dtype, shape):
    tensor = torch.rand(shape).mul(9).to(dtype)
    copy = copied(tensor)
    assert copy.shape == shape and copy.dtype == dtype and copy.is_contiguous() and torch.equal(copy, tensor)
    assert copy.untyped_storage().nbytes() == tensor.untyped_storage().nbytes()
    assert tensor.numel() == 0 or copy.data_ptr() != tensor.data_ptr()
    assert torch.equal(copied(tensor.T), tensor.T) if tensor.dim() == 2 else copy.fill_(1).all()


@pytest.mark.parametrize("dtype", [torch.bool, torch.bfloat16, torch.float32, torch.int64, torch.complex128])
@pytest.mark.parametrize("numel", [0, 1, 7, 100_000])
def test_cleared_memory_begins_with_a_cache_line(dtype, numel):
    memory = cleared(numel, dtype)
    assert memory.shape == (numel,) and memory.dtype == dtype and not memory.any()
    assert memory.data_ptr() % 64 == 0


@pytest.mark.parametrize("threads", [1, 2])
def test_the_spikes_of_all_chunks_are_recorded_into_one_memory(monkeypatch, threads):
    neuron = bt.neurons.LIF(2000, tau=torch.linspace(5.0, 20.0, 2000))
    pieces = []
    advance = runner.NativeRunner.advance

    def noted(self, *arguments):
        result = advance(self, *arguments)
        pieces.append(result.kept[0])
        return result

    monkeypatch.setattr(runner.NativeRunner, "advance", noted)
    monkeypatch.setattr(runner, "_SPARSE_ENTRIES", 1)
    record = {"spikes": bt.spikes()}
    found = bt.simulate(neuron, 21.0, dt=0.1, duration=300.0, record=record, loop=bt.Native(threads=threads))["spikes"]
    expected = bt.simulate(neuron, 21.0, dt=0.1, duration=300.0, record=record, loop="reference")["spikes"]
    assert len(pieces) > 2
    assert all(len(step) for step, _ in pieces[1:])
    used = next((step, index) for step, index in pieces if len(step))
    assert found.step.data_ptr() == used[0].data_ptr() and found.index.data_ptr() == used[1].data_ptr()
    assert torch.equal(found.pairs, expected.pairs)


def test_few_spikes_keep_no_room_for_many():
    neuron = bt.neurons.LIF(2000, tau=torch.linspace(5.0, 2000.0, 2000))
    spikes = bt.simulate(neuron, 21.0, dt=0.1, duration=20.0, record={"s": bt.spikes()}, loop="native")["s"]
    assert len(spikes)
    assert spikes.step.untyped_storage().nbytes() <= _memory._MOST_ROOM * 8 * len(spikes)


def _fail_after_noting(threads: dict[str, int]) -> None:
    """How many threads PyTorch works with, here and in a thread that begins now."""
    threads["here"] = torch.get_num_threads()
    other = threading.Thread(target=lambda: threads.update(there=torch.get_num_threads()))
    other.start()
    other.join()
    raise ZeroDivisionError


def test_operations_in_this_thread_leave_others_as_they_were(monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    inside: dict[str, int] = {}
    try:
        with pytest.raises(ZeroDivisionError), in_this_thread(100):
            _fail_after_noting(inside)
        if "openmp" not in torch.__config__.parallel_info().lower():
            pytest.skip("PyTorch was built without OpenMP")
        assert inside == {"here": 1, "there": 3}
        with in_this_thread(1 << 24):  # too many for one
            assert torch.get_num_threads() == 3
        assert torch.get_num_threads() == 3

        trace = native.trace
        monkeypatch.setattr(
            native, "trace", lambda *given: (inside.update(trace=torch.get_num_threads()), trace(*given))[1]
        )
        bt.simulate(bt.neurons.LIF(2), 20.0, dt=0.1, duration=1.0, loop="native")
        assert inside["trace"] == 1
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("numel", [10, 3 << 19, (3 << 19) + 1])
def test_large_room_begins_with_a_large_page(numel):
    memory = _memory.room(numel, torch.float32)
    assert memory.shape == (numel,) and memory.dtype == torch.float32
    memory.fill_(1.0)
    assert memory.untyped_storage().nbytes() == numel * 4  # files hold no more than what was asked for
    assert numel < 1 << 19 or memory.data_ptr() % (1 << 21) == 0
