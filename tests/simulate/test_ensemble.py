"""Ensembles by `torch.func.vmap` run in compiled loops, and equal the reference loop inside of vmap."""

import warnings

import pytest
import torch
from torch.func import vmap

import bdtorch as bt
from bdtorch.simulate import _functorch as functorch

DOUBLE = {"dtype": torch.float64}
OPTIONS = {"dt": 0.1, "duration": 15.0}


def cell(n=3, **keywords):
    return bt.neurons.LIF(n, **{"tau": 10.0, "v_th": 20.0, "v_reset": 0.0, **keywords, **DOUBLE})


def network():
    def project(weight):
        return bt.Projection(
            bt.connect.FixedProbability(0.3), weight=torch.tensor(weight, **DOUBLE),
            synapse=bt.synapses.Exponential(5.0), receptor=bt.synapses.Current(), delay=0.5,
        )  # fmt: skip

    cells = {"E": bt.neurons.Refractory(cell(20), period=2.0), "I": cell(5)}
    return bt.Network(cells, {("E", ("E", "I")): project(3.0), ("I", "E"): project(-4.0)}, seed=1)


def both(function, *arguments, **keywords):
    """The same ensemble through the loop that is chosen, which must be native, and through the reference loop."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        native = vmap(lambda *x: _native(function(*x, "auto")), **keywords)(*arguments)
    return native, vmap(lambda *x: _parts(function(*x, "reference")), **keywords)(*arguments)


def _native(sol):
    assert sol.loop == "native"
    return _parts(sol)


def _parts(sol):
    return sol.state, sol.out


def assert_equal(pair):
    torch.testing.assert_close(*pair, rtol=1e-12, atol=1e-12)
    leaves = torch.utils._pytree.tree_leaves(pair[0])
    assert any(bool((leaf != leaf.flatten()[0]).any()) for leaf in leaves), "nothing happened"


def test_over_inputs_of_a_network():
    net = network()
    assert_equal(
        both(lambda i, loop: bt.simulate(net, i, loop=loop, **OPTIONS), torch.linspace(10.0, 40.0, 4, **DOUBLE))
    )


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_over_any_axis_of_a_sequence(axis):
    inputs = 40 * torch.rand(150, 4, 3, generator=torch.Generator().manual_seed(0), **DOUBLE)
    moved = inputs.movedim(1, axis)
    pair = both(lambda i, loop: bt.simulate(cell(), i, dt=0.1, loop=loop), moved, in_dims=axis)
    assert_equal(pair)
    alone = bt.simulate(cell(), inputs[:, 2], dt=0.1, loop="reference")
    torch.testing.assert_close(pair[0][1][2], alone.out)


@pytest.mark.parametrize("out_dims", [0, 1, -1])
def test_over_initial_states_with_any_place_for_the_results(out_dims):
    states = bt.initial_state(cell(v_init=bt.init.Uniform(0, 20)), (6,), seed=4)
    run = lambda s, loop: bt.simulate(cell(), 25.0, state=s, loop=loop, **OPTIONS).out  # noqa: E731
    native = vmap(lambda s: run(s, "native"), out_dims=out_dims)(states)
    assert torch.equal(native, vmap(lambda s: run(s, "reference"), out_dims=out_dims)(states))


def test_over_parameters():
    system = cell(tau=torch.tensor(10.0, **DOUBLE))
    taus = torch.tensor([5.0, 10.0, 20.0], **DOUBLE)
    assert_equal(both(lambda tau, loop: bt.simulate(system, 25.0, parameters={"tau": tau}, loop=loop, **OPTIONS), taus))


def test_over_weights_of_a_network():
    net = network()
    (name,) = [n for n, x in net.named_buffers() if n.endswith("weight") and "I" in n and float(x.min()) < 0]
    scales = torch.tensor([0.0, 1.0, 3.0], **DOUBLE)
    weight = net.get_buffer(name)

    def run(scale, loop):
        return bt.simulate(net, 40.0, parameters={name: scale * weight}, loop=loop, **OPTIONS)

    assert_equal(both(run, scales))


def test_nested_in_either_order_with_one_of_them_over_the_state():
    states = bt.initial_state(cell(v_init=bt.init.Uniform(0, 20)), (2,), seed=4)
    currents = torch.linspace(15.0, 40.0, 5, **DOUBLE)

    def run(state, current):
        return bt.simulate(cell(), current, state=state, record={"v": bt.trace("v", every=10)}, **OPTIONS)["v"]

    inner_currents = vmap(lambda s: vmap(lambda i: run(s, i))(currents))(states)
    inner_states = vmap(lambda i: vmap(lambda s: run(s, i))(states))(currents)
    assert inner_currents.shape == (2, 5, 15, 3)
    assert torch.equal(inner_currents, inner_states.transpose(0, 1))
    for s in range(2):
        state = torch.utils._pytree.tree_map(lambda x, s=s: x[s], states)
        assert torch.equal(inner_currents[s, 3], run(state, currents[3]))


def test_noise_is_each_seed_s_own():
    system = bt.neurons.LIF(4, tau=10.0, v_th=20.0, v_reset=0.0, v_init=bt.init.Uniform(0, 20), **DOUBLE)
    net = bt.Network({"P": bt.stimuli.Poisson(4, 300.0, **DOUBLE), "E": system}, {
        ("P", "E"): bt.Projection(bt.connect.OneToOne(), weight=torch.tensor(60.0, **DOUBLE),
                                  synapse=bt.synapses.Exponential(5.0), receptor=bt.synapses.Current())
    })  # fmt: skip
    seeds = torch.tensor([3, 9, 3])
    together = vmap(lambda s: bt.simulate(net, seed=s, **OPTIONS).out["P"])(seeds)
    for seed, out in zip(seeds.tolist(), together, strict=True):
        assert torch.equal(out, bt.simulate(net, seed=seed, **OPTIONS).out["P"])
    assert torch.equal(together[0], together[2]) and not torch.equal(together[0], together[1])


def test_a_seed_of_another_kind_is_refused():
    with pytest.raises(TypeError, match=r"seed=.*int64"):
        vmap(lambda s: bt.simulate(cell(), 25.0, seed=s, **OPTIONS).out)(torch.ones(3))


def test_what_members_share_is_kept_once():
    """A state variable that no member's input reaches has no axis of the ensemble, so its work is done once."""
    net = bt.Network({"A": cell(), "B": cell()})
    seen = []
    monitored = bt.Record(lambda state, out: state["B"].v)

    def run(i):
        sol = bt.simulate(net, {"A": i, "B": 25.0}, record={"b": monitored}, **OPTIONS)
        seen.append((functorch.levels_of(sol.state["A"].v), functorch.levels_of(sol["b"])))
        return sol["b"]

    shared = vmap(run)(torch.linspace(10, 40, 3, **DOUBLE))
    assert seen == [((1,), ())]
    assert torch.equal(shared[0], shared[2])


def test_spikes_have_the_axes_of_the_ensemble():
    currents = torch.linspace(15.0, 60.0, 4, **DOUBLE)
    held = []

    def run(i):
        sol = bt.simulate(cell(), i, record={"s": bt.spikes()}, keep_out=True, **OPTIONS)
        held.append(sol["s"])
        return sol.out, sol["s"].counts(), sol["s"].binned(5.0).counts

    out, counts, bins = vmap(run)(currents)
    assert held[0].batch_shape == (4,)
    assert torch.equal(held[0].counts(), out.sum(1).long()) and torch.equal(counts, out.sum(1).long())
    assert torch.equal(bins, out.reshape(4, 3, 50, 3).sum((2, 3)).long())
    assert held[0].of(3).step.numel() == int(out[3].sum()) > int(out[1].sum())


def test_a_tensor_held_elsewhere_falls_back_by_name():
    currents = torch.linspace(15.0, 40.0, 3, **DOUBLE)
    run = lambda amplitude, loop: bt.simulate(cell(), lambda t: amplitude * t, loop=loop, **OPTIONS).out  # noqa: E731
    with pytest.warns(UserWarning, match=r"function of time holds one; falling back to the reference loop"):
        got = vmap(lambda a: run(a, "auto"))(currents)
    assert torch.equal(got, vmap(lambda a: run(a, "reference"))(currents))
    with pytest.raises(bt.LoopError, match="function of time holds one"):
        vmap(lambda a: run(a, "native"))(currents)


def test_an_error_in_one_member_is_located():
    system = bt.neurons.LIF(2, tau=torch.tensor(10.0, **DOUBLE), v_th=1e9, v_reset=0.0, **DOUBLE)
    with pytest.raises(FloatingPointError, match=r"element \(1, 0\)"):
        vmap(lambda i: bt.simulate(system, i, **OPTIONS).out)(torch.tensor([1.0, -torch.inf], **DOUBLE))


@pytest.mark.parametrize("mapped", ["input", "parameter"])
def test_gradients_outside_of_vmap(mapped):
    """Autograd around vmap goes back through the native loop, to shared and to mapped leaves."""
    surrogate = bt.surrogate.Sigmoid()
    tau = torch.nn.Parameter(torch.tensor(10.0, **DOUBLE))
    system = cell(tau=tau, surrogate=surrogate)
    values = torch.linspace(15.0, 30.0, 3, **DOUBLE).requires_grad_()

    def run(x, loop):
        inputs, parameters = (x, None) if mapped == "input" else (25.0, {"tau": x})
        return bt.simulate(system, inputs, parameters=parameters, loop=loop, **OPTIONS)

    gradients = []
    for loop in ("auto", "reference"):
        state, out = vmap(lambda x, loop=loop: _parts(run(x, loop)))(values)
        wanted = [values, tau] if mapped == "input" else [values]
        gradients.append(torch.autograd.grad((state.v**2).sum() + (out * torch.arange(3.0)).sum(), wanted))
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)
    assert all(bool((g != 0).all()) for g in gradients[0])


def test_grad_of_vmap_and_vmap_of_grad_agree():
    system = cell(v_th=1e6)

    def loss(i):
        return (bt.simulate(system, i, dt=0.5, duration=5.0).state.v ** 2).sum()

    currents = torch.tensor([1.0, 2.0], **DOUBLE)
    outer = torch.func.grad(lambda x: vmap(loss)(x).sum())(currents)
    inner = vmap(torch.func.grad(loss))(currents)
    assert torch.allclose(outer, inner) and bool((outer > 0).all())


@pytest.mark.slow
def test_through_inductor():
    net = network()
    currents = torch.linspace(10.0, 40.0, 3, **DOUBLE)
    run = lambda i, loop: _parts(bt.simulate(net, i, dt=0.1, duration=10.0, loop=loop))  # noqa: E731
    torch.testing.assert_close(vmap(lambda i: run(i, "inductor"))(currents), vmap(lambda i: run(i, "native"))(currents))


def test_torch_still_wraps_tensors_as_this_package_takes_it():
    """The private part of torch.func: if this fails, `bdtorch/simulate/_functorch.py` is to be read against this torch."""
    x = torch.arange(24.0).reshape(2, 3, 4)

    def inner(row):
        assert functorch.levels_of(row) == (1, 2)
        assert [(v.number, v.size) for v in functorch.active_vmaps()] == [(1, 3), (2, 4)]
        flat = functorch.physical(row)
        assert torch.equal(flat, x.permute(1, 2, 0)) and functorch.levels_of(flat) == ()
        with functorch.outside():
            assert not functorch.transformed()
        assert functorch.transformed()
        return functorch.member(2 * flat, (1, 2))

    assert torch.equal(vmap(vmap(inner, 1), 1)(x), 2 * x.permute(1, 2, 0))
    assert torch.func.grad(lambda y: vmap(lambda z: _no_vmaps(z))(y).sum())(torch.ones(2)).tolist() == [1.0, 1.0]


def _no_vmaps(z):
    assert functorch.active_vmaps() is None
    return z


@pytest.mark.parametrize("loop", ["native", pytest.param("inductor", marks=pytest.mark.slow)])
def test_nested_ensembles_of_noise_by_seed_and_current(loop):
    """The noise differs between the members of the outer one alone, and so does a part of the state."""
    system = bt.NoisyFlow(bt.rates.FitzHughNagumo(3), {"v": 0.1})
    seeds, currents = torch.arange(3), torch.tensor([0.0, 0.3])

    def of(current, seed):
        return bt.simulate(system, current, dt=0.1, duration=2.0, seed=seed, loop=loop).out

    both = torch.func.vmap(lambda seed: torch.func.vmap(lambda current: of(current, seed))(currents))(seeds)
    alone = torch.stack([torch.stack([of(current, int(seed)) for current in currents]) for seed in seeds])
    torch.testing.assert_close(
        both, alone, rtol=0.0 if loop == "native" else 1e-5, atol=0.0 if loop == "native" else 1e-6
    )


def test_an_ensemble_of_nobody_is_refused():
    for nobody in (torch.zeros(0), torch.zeros(0, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"expected at least one member under torch\.func\.vmap, got none"):
            torch.func.vmap(lambda x: bt.simulate(bt.neurons.LIF(3), 1.0, dt=0.1, duration=1.0, seed=x).out)(nobody)


def test_a_seed_may_be_a_tensor_outside_of_an_ensemble_too():
    system = bt.stimuli.Poisson(20, rate=100.0)
    runs = [bt.simulate(system, dt=0.1, duration=20.0, seed=seed).out for seed in (3, torch.tensor(3))]
    assert torch.equal(*runs) and runs[0].any()
