"""What `simulate` accepts, refuses and returns."""

import warnings
from typing import NamedTuple

import numpy as np
import pytest
import torch

import bdtorch as bt
from tests.simulate.native.stepping import Stepping

DOUBLE = {"dtype": torch.float64}


def neuron(n: int = 3, **options) -> bt.neurons.LIF:
    return bt.neurons.LIF(n, tau=10.0, v_rest=0.0, v_reset=0.0, v_th=20.0, **DOUBLE, **options)


def run(inputs=25.0, **options) -> bt.Solution:
    return bt.simulate(neuron(), inputs, **{"dt": 0.1, "duration": 5.0, "loop": "reference", **options})


class Growth(bt.Flow):
    """dx/dt = x^2 for element 1 alone: it diverges at t = 1 / x(0)."""

    class State(NamedTuple):
        x: torch.Tensor

    def init_state(self, batch_shape=()):
        return self.State(self.fill(batch_shape, torch.tensor([0.0, 1.0, 0.0], dtype=self.dtype)))

    def derivative(self, state, inputs, t):
        return self.State(state.x**2)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"dt": 0.0}, ValueError, r"`simulate\(dt=...\)`: expected a finite number of ms above 0, got 0.0"),
        ({"dt": -0.1}, ValueError, r"got -0.1"),
        ({"dt": float("nan")}, ValueError, r"got nan"),
        ({"dt": "0.1"}, ValueError, r"got '0.1'"),
        ({"duration": 5.05}, ValueError, r"`simulate\(duration=...\)`: expected a multiple of dt=0.1 ms, got 5.05"),
        ({"duration": -1.0}, ValueError, r"at least 0, got -1.0"),
        ({"duration": float("inf")}, ValueError, r"finite number of ms .* got inf"),
        ({"duration": 100_000.05}, ValueError, r"a multiple of dt=0.1 ms, got 100000.05"),  # whatever its size
        ({"duration": "5"}, ValueError, r"finite number of ms .* got '5'"),
        ({"duration": torch.tensor(5.0)}, ValueError, r"finite number of ms .* got tensor"),
        ({"duration": None}, ValueError, r"`simulate\(duration=...\)`: expected ms, since no input"),
        ({"t0": 0.05}, ValueError, r"`simulate\(t0=...\)`: expected a multiple of dt"),
        ({"t0": float("inf")}, ValueError, r"`simulate\(t0=...\)`: expected a finite number of ms, got inf"),
        ({"t0": "3"}, ValueError, r"`simulate\(t0=...\)`: expected a finite number of ms, got '3'"),
        ({"t0": -1.0}, ValueError, r"`simulate\(t0=...\)`: expected at least 0 ms, got -1"),
        ({"batch_shape": 4}, ValueError, r"`simulate\(batch_shape=...\)`: expected a tuple of whole numbers .* got 4"),
        ({"batch_shape": (-1,)}, ValueError, r"`simulate\(batch_shape=...\)`: .* at least 0, got \(-1,\)"),
        ({"seed": 1.5}, TypeError, r"`simulate\(seed=...\)`: expected a whole number, got 1.5"),
        ({"inputs": [1.0, 2.0, 3.0]}, TypeError, r"`simulate\(inputs=...\)`: .* fit LIF, got a list of 3 in every step"),
        ({"loop": "nativ"}, ValueError, r"`simulate\(loop=...\)`: .* got 'nativ'; did you mean 'native'"),
        ({"record": [1]}, TypeError, r"`simulate\(record=...\)`: expected a dict of records by name, got list"),
        ({"record": {"v": 3}}, TypeError, r"expected a function of state and output, got 3"),
        ({"record": {"v": bt.trace("w")}}, KeyError, r"'w' names nothing: .* among 'v'"),
        ({"record": {"s": bt.spikes("E")}}, ValueError, r"`spikes\('E'\)`: expected one of the populations"),
        ({"record": {"v": bt.trace("v", index=[3])}}, ValueError, r"expected indices below 3, got 3"),
        ({"record": {"v": lambda state, out: 3.0}}, TypeError, r"expected tensors, got float"),
        ({"inputs": torch.ones(49, 3, **DOUBLE)}, ValueError, r"expected leading axis time=50, got 49"),
        ({"inputs": torch.ones(50, 3)}, TypeError, r"`simulate\(inputs=...\)`: expected dtype torch.float64, got torch.float32"),
        ({"inputs": torch.ones(50, 4, **DOUBLE)}, ValueError, r"inputs that fit LIF of size \(3,\), got \(4,\) in one step"),
        ({"inputs": torch.ones(50, 2, 3, **DOUBLE), "batch_shape": ()}, ValueError, r"'v' was \(3,\) .* \(2, 3\) .* batch"),
        ({"inputs": torch.ones(50, 3, device="meta", **DOUBLE)}, ValueError, r"expected device cpu, got meta"),
        ({"inputs": "25"}, TypeError, r"expected numbers, tensors, functions of time or None, got str"),
        ({"parameters": {"mu": torch.ones(())}}, ValueError, r"`simulate\(parameters=...\)`: expected names among"),
        ({"state": 3}, TypeError, r"`simulate\(state=...\)`: expected tensors only, got int"),
        ({"state": bt.neurons.LIF.State(torch.zeros(3))}, TypeError, r"expected dtype torch.float64, got torch.float32"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(change, error, message):
    with pytest.raises(error, match=message):
        run(**change)


def test_a_system_is_expected():
    with pytest.raises(TypeError, match=r"`simulate\(system=...\)`: expected a DynamicalSystem, got Linear"):
        bt.simulate(torch.nn.Linear(1, 1), dt=0.1, duration=1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bt.trace("v", index=[-1]), "expected indices of at least 0, got -1"),
        (lambda: bt.trace("v", index=[0.5]), "expected a non-empty list of whole numbers"),
        (lambda: bt.trace("v", index=[]), "expected a non-empty list of whole numbers"),
        (lambda: bt.trace("v", every=0), "expected a positive whole number of steps, got 0"),
        (lambda: bt.Inductor(0), r"`Inductor\(chunk=...\)`: expected a positive integer or None, got 0"),
        (lambda: bt.Native(threads=0), r"`Native\(threads=...\)`: expected a positive integer or None, got 0"),
    ],
)
def test_bad_records_and_loops_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


class Broken(Growth):
    def __init__(self, how):
        super().__init__(3)
        self.how = how

    def step(self, state, inputs, t, dt):
        if self.how == "writes":
            state.x.add_(1.0)
            return state, state.x
        changed = {"grows": torch.ones(4), "casts": state.x.double(), "number": 1.0}
        if self.how == "renames":
            return {"y": state.x}, state.x
        return self.State(changed[self.how]), state.x


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("writes", RuntimeError, "step must not write to its arguments, but it changed the state variable 'x'"),
        ("grows", ValueError, r"'x' was \(3,\) float32 on cpu and became \(4,\) float32"),
        ("casts", ValueError, r"'x' was \(3,\) float32 on cpu and became \(3,\) float64"),
        ("number", TypeError, "step must return tensors: the state variable 'x' became float"),
        ("renames", ValueError, r"step must keep the structure of the state: expected \['x'\], got \['y'\]"),
    ],
)
def test_an_impure_or_unstable_step_is_reported(how, error, message):
    with pytest.raises(error, match=message):
        bt.simulate(Broken(how), dt=0.1, duration=1.0)


def test_forms_of_input_agree():
    constant = run(25.0).out
    steps = torch.full((50, 3), 25.0, **DOUBLE)
    for inputs in (torch.tensor(25.0, **DOUBLE), bt.Constant(torch.full((3,), 25.0, **DOUBLE)), steps,
                   lambda t: torch.full((3,), 25.0, **DOUBLE), bt.stimuli.Step(25.0)):  # fmt: skip
        if isinstance(inputs, bt.stimuli.Step):
            inputs = bt.stimuli.Step(torch.tensor(25.0, **DOUBLE))
        assert torch.equal(run(inputs).out, constant)
    assert run(steps, duration=None).out.shape == constant.shape


@pytest.mark.parametrize("loop", ["reference", "native"])
def test_functions_of_time_see_the_start_of_each_step(loop):
    class Clock(Growth):
        def step(self, state, inputs, t, dt):
            return state, torch.stack([inputs, t])

    sol = bt.simulate(Clock(3), lambda t: 2.0 * t, dt=0.1, duration=1.0, t0=0.5, loop=loop)
    expected = torch.arange(5, 15, dtype=torch.float64) * 0.1
    assert torch.equal(sol.out[:, 1], expected)
    assert torch.equal(sol.out[:, 0], 2.0 * expected)
    assert torch.equal(sol.t, torch.arange(6, 16, dtype=torch.float64) * 0.1)


@pytest.mark.parametrize("loop", ["reference", "native"])
def test_records(loop):
    every = {"all": bt.trace("v"), "some": bt.trace("v", index=[2, 0], every=4), "spikes": bt.spikes(),
             "any": lambda state, out: {"sum": state.v.sum(-1), "out": out}}  # fmt: skip
    drive = torch.tensor([25.0, 30.0, 40.0], **DOUBLE)
    sol = bt.simulate(neuron(), bt.Constant(drive), dt=0.1, duration=40.3, record=every, keep_out=True, loop=loop)
    assert sol["all"].shape == (403, 3)
    assert torch.equal(sol["some"], sol["all"][3::4][:, [2, 0]])
    assert torch.equal(sol.time("some"), sol.t[3::4])
    assert torch.allclose(sol["any"]["sum"], sol["all"].sum(-1), rtol=1e-14)
    assert torch.equal(sol["any"]["out"], sol.out)
    step, index = sol.out.nonzero(as_tuple=True)
    assert torch.equal(sol["spikes"].step, step + 1) and torch.equal(sol["spikes"].index, index)
    assert len(sol["spikes"]) > 5
    assert torch.equal(sol["spikes"].counts(), sol.out.sum(0))
    assert torch.equal(sol["spikes"].times, sol.t[step])


def test_spikes_of_a_batch():
    drive = torch.tensor([[25.0, 30.0, 40.0], [0.0, 50.0, 60.0]], **DOUBLE)
    sol = bt.simulate(neuron(), bt.Constant(drive), dt=0.1, duration=40.0, record={"s": bt.spikes()}, keep_out=True)
    assert torch.equal(sol["s"].counts(), sol.out.sum(0))
    alone = bt.simulate(neuron(), bt.Constant(drive[1]), dt=0.1, duration=40.0, record={"s": bt.spikes()})
    assert torch.equal(sol["s"].of(1).pairs, alone["s"].pairs)
    assert sol["s"].rate == pytest.approx(float(sol.out.double().mean()) * 1e4)


def test_outputs_are_kept_only_where_asked():
    assert run().out.shape == (50, 3)
    with pytest.raises(ValueError, match="keep_out=True"):
        _ = run(record={"v": bt.trace("v")}).out
    with pytest.raises(KeyError, match="'w' was not recorded; records: 'v'"):
        run(record={"v": bt.trace("v")})["w"]


@pytest.mark.parametrize("loop", ["reference", "native"])
def test_chunks_resumption_and_one_run_are_equal_to_the_bit(loop):
    record = {"v": bt.trace("v", every=3), "s": bt.spikes()}
    options = {"dt": 0.1, "record": record, "loop": loop}
    whole = bt.simulate(neuron(), 25.0, duration=100.0, **options)
    pieces, state, t = [], None, 0.0
    for _ in range(10):
        piece = bt.simulate(neuron(), 25.0, duration=10.0, state=state, t0=t, **options)
        pieces.append(piece)
        state, t = piece.state, piece.t_end
    assert torch.equal(whole.state.v, state.v)
    assert torch.equal(whole["v"], torch.cat([piece["v"] for piece in pieces]))
    assert torch.equal(whole["s"].pairs, torch.cat([piece["s"].pairs for piece in pieces]))


@pytest.mark.parametrize("loop", ["reference", "native"])
def test_a_nonfinite_state_is_located(loop):
    with pytest.raises(FloatingPointError, match=r"'x' of element 1 became (inf|nan) at t = ") as caught:
        bt.simulate(Growth(3), dt=0.01, duration=10.0, record={"x": bt.trace("x")}, loop=loop)
    partial = caught.value.solution
    assert 1.0 < partial.t_end < 1.3
    assert partial["x"].isfinite().all() and partial["x"].shape[0] == partial.steps
    unchecked = bt.simulate(Growth(3), dt=0.01, duration=10.0, check_finite=False, loop=loop)
    assert not unchecked.state.x.isfinite().all()


@pytest.mark.parametrize("values", [[3e38, 3e38], [-3e38, -3e38, 0.0], []])
def test_states_are_finite_where_their_sum_is_not(values):
    x = torch.tensor(values)
    sol = bt.simulate(Stepping(lambda x, t: (x, x[0]), x), dt=0.1, duration=1.0, loop="reference")
    assert torch.equal(sol.state["x0"], x)


@pytest.mark.parametrize("values", [[float("inf"), float("-inf")], [0.0, float("nan")], [float("-inf"), 3e38]])
def test_infinities_do_not_cancel(values):
    system = Stepping(lambda x, t: (x, x[0]), torch.tensor(values))
    with pytest.raises(FloatingPointError, match=r"'x0' of element \d became (-?inf|nan)"):
        bt.simulate(system, dt=0.1, duration=1.0, loop="reference")


def test_batch_and_vmap_agree():
    current = torch.linspace(15, 40, 6, **DOUBLE)
    batch = bt.simulate(neuron(), bt.Constant(current[:, None].expand(6, 3)), dt=0.1, duration=20.0).out
    mapped = torch.func.vmap(lambda i: bt.simulate(neuron(), i, dt=0.1, duration=20.0).out, out_dims=1)(current)
    assert torch.equal(batch, mapped)

    states = bt.initial_state(neuron(v_init=bt.init.Uniform(0, 20)), (6,), seed=4)
    batch = bt.simulate(neuron(), 25.0, dt=0.1, duration=20.0, state=states).out
    mapped = torch.func.vmap(lambda s: bt.simulate(neuron(), 25.0, dt=0.1, duration=20.0, state=s).out, out_dims=1)
    assert torch.equal(batch, mapped(states))


def test_vmap_over_parameters():
    system = bt.neurons.LIF(3, tau=torch.tensor(10.0, **DOUBLE), v_th=20.0, v_reset=0.0, **DOUBLE)
    taus = torch.tensor([5.0, 10.0, 20.0], **DOUBLE)
    options = {"dt": 0.1, "duration": 20.0}
    mapped = torch.func.vmap(lambda tau: bt.simulate(system, 25.0, parameters={"tau": tau}, **options).state.v)(taus)
    for tau, v in zip(taus, mapped, strict=True):
        alone = bt.simulate(bt.neurons.LIF(3, tau=tau, v_th=20.0, v_reset=0.0, **DOUBLE), 25.0, **options).state.v
        assert torch.allclose(v, alone, rtol=1e-12)


def test_gradients_flow_through_inputs_parameters_and_initial_state():
    system = bt.neurons.LIF(3, tau=torch.nn.Parameter(torch.tensor(10.0, **DOUBLE)), v_th=1e6, **DOUBLE)

    def final(tau, current, v):
        state = bt.neurons.LIF.State(v)
        options = {"dt": 0.5, "duration": 10.0, "loop": "reference"}
        return bt.simulate(system, current, state=state, parameters={"tau": tau}, **options).state.v

    arguments = [torch.tensor(8.0, **DOUBLE), torch.tensor(3.0, **DOUBLE), torch.arange(3.0, **DOUBLE)]
    assert torch.autograd.gradcheck(final, [x.requires_grad_() for x in arguments])


def test_a_gradient_hidden_in_a_function_of_time_is_not_lost():
    gain = torch.tensor(2.0, **DOUBLE, requires_grad=True)
    sol = bt.simulate(neuron(), lambda t: gain * t, dt=0.1, duration=2.0, loop="reference")
    (slope,) = torch.autograd.grad(sol.state.v.sum(), gain)
    assert slope > 0
    with torch.no_grad():
        assert not bt.simulate(neuron(), lambda t: gain * t, dt=0.1, duration=2.0).state.v.requires_grad


def test_backward_takes_time_linear_in_the_number_of_steps():
    """Each input slice must be taken once: a graph in which every step indexes the sequence grows quadratically."""
    inputs = torch.ones(60, 3, **DOUBLE, requires_grad=True)
    sol = bt.simulate(neuron(), inputs, dt=0.1)
    seen, pending, selects = set(), [sol.state.v.grad_fn], 0
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        selects += node.name() in ("SelectBackward0", "SliceBackward0")
        pending += [parent for parent, _ in node.next_functions]
    assert selects <= 2, "more than a constant number of slices of the whole sequence"


def test_an_empty_run_returns_the_state_it_was_given():
    sol = run(duration=0.0)
    assert sol.steps == 0 and sol.out.shape == (0, 3) and torch.equal(sol.state.v, torch.zeros(3, **DOUBLE))


@pytest.mark.parametrize("loop", ["reference", "native"])
def test_inference_mode_changes_nothing(loop):
    """Tensors made there count no writes, by which a step that writes to its state is found elsewhere."""
    system = bt.neurons.LIF(3, v_th=20.0)
    expected = bt.simulate(system, 25.0, dt=0.1, duration=3.0, loop=loop)
    with torch.inference_mode():
        inside = bt.simulate(system, 25.0, dt=0.1, duration=3.0, loop=loop)
    assert torch.equal(inside.state.v, expected.state.v)
    after = bt.simulate(system, 25.0, dt=0.1, duration=3.0, loop=loop, state=inside.state, t0=3.0)
    assert torch.equal(after.state.v, bt.simulate(system, 25.0, dt=0.1, duration=6.0, loop=loop).state.v)

    class Writing(bt.neurons.LIF):
        def step(self, state, inputs, t, dt):
            state.v.add_(1.0)
            return super().step(state, inputs, t, dt)

    with torch.inference_mode(), pytest.raises(RuntimeError, match="step must not write to its arguments"):
        bt.simulate(Writing(3), 25.0, dt=0.1, duration=3.0, loop=loop)


class Dropping(Growth):
    """Has a part that torch takes for one operation, and one that draws, in inference mode."""

    def step(self, state, inputs, t, dt):
        x = torch.nn.functional.dropout(state.x, 0.5, False) * 0.9
        return self.State(x), x


@pytest.mark.parametrize("loop", ["reference", "native"])
def test_inference_mode_takes_operations_apart_and_maps_over_members(loop):
    system, states = Dropping(3), torch.arange(6.0).reshape(2, 3)

    def of(x):
        return bt.simulate(system, dt=0.1, duration=1.0, state=system.State(x), loop=loop).out

    expected = torch.stack([of(x) for x in states])
    with torch.inference_mode():
        assert torch.equal(torch.func.vmap(of)(states.clone()), expected)


def test_records_that_cannot_fit_are_warned_of():
    class Stopping(Growth):
        def step(self, state, inputs, t, dt):
            if t > 0:
                raise RuntimeError("enough")
            return super().step(state, inputs, t, dt)

    endless = {"dt": 0.1, "duration": 1e14, "loop": "reference"}
    with (
        pytest.warns(
            UserWarning, match=r"record=...\)`: the records of 1000000000000000 steps take 1.2e\+07 GB, .*`stream`"
        ),
        pytest.raises(RuntimeError, match="enough"),
    ):
        bt.simulate(Stopping(3, dtype=torch.float32), **endless)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeError, match="enough"):
            bt.simulate(Stopping(3), **endless, record={"s": bt.Record(lambda state, out: out, sparse=True)})


def test_whole_numbers_of_numpy_are_whole_numbers():
    system = bt.neurons.LIF(2, v_init=bt.init.Normal(0.0, 1.0))
    mine, numpy = (
        bt.simulate(system, 1.0, dt=0.1, duration=1.0, batch_shape=(kind(3),), seed=kind(4)).out
        for kind in (int, np.int64)
    )
    assert mine.shape == (10, 3, 2) and torch.equal(mine, numpy)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda state, t: state, "return the new state and the output, as `return state, out`; it returned a dict"),
        (lambda state, t: None, "it returned a NoneType"),
        (lambda state, t: (state, t, t), "it returned a tuple of 3"),
        (lambda state, t: Growth.State(state["x"]), "it returned a State"),
        (lambda state, t: (state, None), "step must put out tensors, .* its output holds a NoneType"),
    ],
)
def test_what_a_step_returns_is_named(returned, message):
    class Returning(bt.DynamicalSystem):
        def init_state(self, batch_shape=()):
            return {"x": torch.zeros(*batch_shape, 3)}

        def step(self, state, inputs, t, dt):
            return returned(state, t)

    with pytest.raises(TypeError, match=message):
        bt.simulate(Returning(3), dt=0.1, duration=1.0)


@pytest.mark.parametrize("late", ["state", "out"])
def test_shapes_that_change_late_are_an_error(late):
    class Late(bt.DynamicalSystem):
        def init_state(self, batch_shape=()):
            return {"x": torch.zeros(*batch_shape, 3)}

        def step(self, state, inputs, t, dt):
            x = state["x"] + 1.0
            grown = x[:1].expand(5) if t > 0.55 else x
            return {"x": grown if late == "state" else x}, grown

    with pytest.raises(ValueError, match=r"must keep (shape|the shapes of what they show)"):
        bt.simulate(
            Late(3), dt=0.1, duration=1.0, loop="reference", record={"x": bt.trace("x")}, keep_out=late == "out"
        )
