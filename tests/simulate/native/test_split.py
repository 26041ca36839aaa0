"""Work that is cut where it is read by slices, parts that are written into their whole, and sums that readers clear."""

from __future__ import annotations

import pytest
import torch

import bdtorch as bt
from bdtorch.ops.event_csr import event_csr
from bdtorch.simulate._body import Body
from bdtorch.simulate.inputs import resolve
from bdtorch.simulate.loops.native.made import generate
from bdtorch.simulate.loops.native.plan import Plan
from bdtorch.simulate.loops.native.split import split
from bdtorch.simulate.loops.native.trace import trace
from tests.simulate.native.stepping import Step, Stepping, assert_same, both, run

N = 200
X = torch.linspace(-1.0, 2.0, N)
STEPS: dict[str, Step] = {
    "populations read a shared synapse": lambda x, t: (
        [x[0] * 0.9 + 0.1, torch.where((x[0] + 1.0)[:130] > x[1], x[1] * 2.0, x[1] - (x[0] + 1.0)[:130])],
        (x[0] + 1.0)[130:].exp(),
    ),
    "a slice that others cut in two": lambda x, t: ([x[0] + 1.0, x[1]], ((x[0] * 2.0)[:150], (x[0] * 2.0)[100:])),
    "the whole is wanted too": lambda x, t: ([x[0] * 2.0 - 1.0, x[1]], ((x[0] * 2.0)[:50] + 1.0, x[0] * 2.0)),
    "parts change places": lambda x, t: ([torch.cat([x[0][70:] + 1.0, x[0][:70] * 2.0]), x[1]], x[0][:3]),
    "parts stay in place": lambda x, t: ([torch.cat([x[0][:70] + 1.0, x[0][70:] * 2.0]), x[1]], x[0][68:72]),
    "a part reads what another overwrites": lambda x, t: (
        [torch.cat([x[0][:100] + x[0][100:], x[0][100:] - x[0][:100]]), x[1]],
        x[1][:1],
    ),
    "a part twice, old state, and nothing": lambda x, t: (
        [torch.cat([part := x[0][:60] + 1.0, part, x[0][120:], x[0][:0] * 2.0]), x[1]],
        torch.cat([part, x[1]]),
    ),
    "parts of other dtypes": lambda x, t: ([x[0] + 1.0, x[1]], torch.cat([x[0][:9] > 0, (x[1][:4] * 3).int(), x[1]])),
    "broadcast operands": lambda x, t: (
        [x[0] * x[1][:1] + x[1][0], x[1]],
        ((x[0] * x[1][:1])[:20] + t, (x[0] * x[1][:1])[20:]),
    ),
}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", STEPS)
def test_slices_and_parts(name, threads):
    for native, reference in zip(*both(STEPS[name], X.clone(), X[:130].flip(0), steps=4, threads=threads), strict=True):
        assert_same(native, reference, exact="shared" not in name)  # the one with an exponential


@pytest.mark.parametrize("threads", [1, 2])
def test_slices_of_a_batch(threads):
    def step(x, t):
        g = x[0] + x[1]
        return [g * 0.5, torch.cat([g[:, :30] - 1.0, g[:, 30:] + 1.0], 1)], (g[:, :30] * 2.0, g[1:, 30:])

    state = X.reshape(2, 100)
    for native, reference in zip(*both(step, state, state * 3.0, steps=3, threads=threads), strict=True):
        assert_same(native, reference, exact=True)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_new_state_that_is_also_part_of_a_cat(axis, threads):
    """Written into its place in the `cat`, it lies in pieces there, and is a state all the same."""

    def step(x, t):
        first, second = torch.tanh(x[0] + x[1]), x[1] * 0.5 - x[0]
        return [first, second], torch.cat([first, x[0], second], axis)

    state = X.reshape(4, 50)
    for native, reference in zip(*both(step, state, state.flip(0), steps=4, threads=threads), strict=True):
        assert_same(native, reference, exact=False)


def connectivity(n_pre: int, n_post: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Five synapses from each neuron, with both ends of the range among them."""
    generator = torch.Generator().manual_seed(n_post)
    indices = torch.randint(0, n_post, (n_pre, 5), generator=generator)
    indices[:, 0], indices[:, 4] = 0, n_post - 1
    return indices.sort(1)[0].reshape(-1).to(torch.int32), torch.arange(0, 5 * n_pre + 1, 5)


def planned(step: Step, *state: torch.Tensor) -> Plan:
    system = Stepping(step, *state)
    body = Body(system, resolve(None, system), {}, system.init_state(), 0.1)
    return generate(body, split(trace(body, list(state))))[0]


def test_a_synapse_joins_its_populations_and_they_clear_its_events():
    indices, indptr = connectivity(N, N)

    def step(x, t):
        g = x[0] + event_csr(x[1] > 1.0, torch.tensor(0.25), indices, indptr, N)
        first, second = x[1][:130] + g[:130], x[1][130:] - g[130:]
        return [g * 0.5, torch.cat([first, second])], None

    layout = planned(step, X * 0.0, X)
    passes = [kernel for kernel in layout.kernels if kernel.fused and kernel.stores]
    assert sorted(kernel.shape for kernel in passes if kernel.clears) == [(70,), (130,)]
    assert not layout.copies
    observed: Step = lambda x, t: (step(x, t)[0], x[0])  # noqa: E731
    for threads in (1, 2):
        for native, reference in zip(*both(observed, X * 0.0, X, steps=20, threads=threads), strict=True):
            assert_same(native, reference, exact=True)


def test_variables_that_read_the_old_values_of_one_another_share_a_pass():
    indices, indptr = connectivity(N, N)

    def step(x, t):
        gate, v = x
        opened = gate + (v.abs() - gate) * 0.25  # needs no events, and could run before they are known
        return [opened, v * 0.5 + gate * gate - event_csr(v > 1.0, torch.tensor(0.25), indices, indptr, N)], None

    layout = planned(step, X * 0.0, X)
    assert len([kernel for kernel in layout.kernels if kernel.stores and kernel.fused]) == 2  # the first finds spikes
    assert not layout.copies
    observed: Step = lambda x, t: (step(x, t)[0], x[0])  # noqa: E731
    for native, reference in zip(*both(observed, X * 0.0, X, steps=20), strict=True):
        assert_same(native, reference, exact=True)


def test_equal_passes_are_compiled_once():
    def step(x, t):
        parts = [x[0][:50] * 2.0 - 1.0, x[0][50:110] * 2.0 - 1.0, x[0][110:] * 3.0]
        return [torch.cat(parts), x[1] * 2.0 - 1.0], None

    system = Stepping(step, X, X)
    body = Body(system, resolve(None, system), {}, system.init_state(), 0.1)
    text = generate(body, split(trace(body, [X, X])))[1]
    assert text.count("BDTORCH_APART void pass_") == 2  # for three lengths, and with another factor
    observed: Step = lambda x, t: (step(x, t)[0], x[0])  # noqa: E731
    for native, reference in zip(*both(observed, X.clone(), X.flip(0), steps=3), strict=True):
        assert_same(native, reference, exact=True)


@pytest.mark.parametrize("reads", ["twice", "in part", "as output"])
def test_events_that_one_pass_alone_does_not_read_are_cleared_by_the_kernel(reads):
    indices, indptr = connectivity(N, N)

    def step(x, t):
        y = event_csr(x[0] > 0.0, torch.tensor(0.25), indices, indptr, N)
        shown = {"twice": y[:50] * y[1:51], "in part": y[:50] * 2.0, "as output": y}[reads]
        return [0.5 - x[0]], shown

    for native, reference in zip(*both(step, X, steps=5), strict=True):
        assert_same(native, reference, exact=True)


@pytest.mark.parametrize("n_post", [2**15, 2**15 + 1])
def test_indices_at_the_limit_of_two_bytes(n_post):
    indices, indptr = connectivity(40, n_post)

    def step(x, t):
        return [-x[0]], event_csr(x[0] > 0.0, torch.tensor(1.0), indices, indptr, n_post)

    for native, reference in zip(*both(step, torch.linspace(-1.0, 1.0, 40)), strict=True):
        assert_same(native, reference, exact=True)


def test_an_index_out_of_range_is_named_after_a_split():
    def step(x, t):
        g = x[0] + 1.0
        return [torch.cat([g[:130] * 2.0, g[130:] * 3.0]), x[1] + 1], g.gather(0, x[1])

    with pytest.raises(IndexError, match=r"in step 3: aten.gather.default \(test_split.py:\d+: .*gather"):
        run(step, X, torch.tensor([N - 2]), loop=bt.Native(threads=1))
