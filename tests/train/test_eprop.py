"""e-prop: its factorisation is backpropagation through time with the recurrent gradient cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import bdtorch as bt
from bdtorch.train import EProp, dale, masked

N_IN, CELLS, OUTS, STEPS, BATCH = 5, 7, 3, 40, 4
FLOAT = {"dtype": torch.float64}
SURROGATE = bt.surrogate.Triangle(0.3, 1.0)

CELL_KINDS: dict[str, Callable[[], bt.DynamicalSystem]] = {
    "LIF": lambda: bt.neurons.LIF(CELLS, tau=15.0, v_reset=0.0, v_th=1.0, surrogate=SURROGATE, **FLOAT),
    "ALIF": lambda: bt.neurons.ALIF(
        CELLS,
        tau=15.0,
        tau_a=60.0,
        beta=torch.linspace(0.0, 0.9, CELLS, dtype=torch.float64),
        surrogate=SURROGATE,
        **FLOAT,
    ),
    "refractory ALIF": lambda: bt.neurons.Refractory(
        bt.neurons.ALIF(CELLS, tau=15.0, tau_a=60.0, beta=0.3, surrogate=SURROGATE, **FLOAT), period=2.0
    ),
    "AdEx": lambda: bt.neurons.AdEx(CELLS, v_init=-55.0, surrogate=bt.surrogate.SuperSpike(0.1), **FLOAT),
    "rate": lambda: bt.rates.LeakyRate(CELLS, tau=12.0, activation=torch.tanh, **FLOAT),
}
CONNECTIONS = {
    "dense": dict,
    "sparse": lambda: {
        "connect_in": bt.connect.FixedProbability(0.6),
        "connect_rec": bt.connect.FixedProbability(0.5, autapses=False),
    },
    "dense with gaps": lambda: {"connect_rec": bt.connect.AllToAll(autapses=False)},
}


def _model(cell: str, connections: str = "dense", tau: float | None = 20.0) -> bt.Sequential:
    strength = 3000.0 if cell == "AdEx" else 20.0
    layer = bt.Recurrent(
        CELL_KINDS[cell](),
        N_IN,
        w_in=bt.init.Normal(0.3 * strength, 0.4 * strength),
        w_rec=bt.init.Normal(0.0, 0.4 * strength),
        bias=nn.Parameter(torch.linspace(0.0, 0.1, CELLS, dtype=torch.float64)),
        seed=3,
        **CONNECTIONS[connections](),
    )
    return bt.Sequential(layer, bt.Readout(CELLS, OUTS, tau=tau, bias=True, seed=4, **FLOAT))


def _data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(STEPS, BATCH, N_IN, generator=generator) < 0.2).double()
    return x, torch.randn(STEPS, BATCH, OUTS, generator=generator, dtype=torch.float64)


def _loss(y: Tensor, target: Tensor) -> Tensor:
    return (y - target).square().sum() + 0.1 * y.exp().mean()


def _loss_of_sum(y: Tensor, target: Tensor) -> Tensor:
    return (y - target).square().sum() + 0.1 * y.exp().sum()


def _cut_backpropagation(model: bt.Sequential, feedback: Tensor | None, rate: tuple[float, float] | None) -> Any:
    """Autograd over a loop written by hand, where no gradient passes from the cells' outputs into other cells."""
    layer, readout = model.layers
    x, target = _data()
    state = bt.initial_state(model, (BATCH,), dt=1.0)
    cell, out, read = state["0"].cell, state["0"].out, state["1"]
    loss = torch.zeros((), dtype=torch.float64)
    spikes = torch.zeros((), dtype=torch.float64)
    for k in range(STEPS):
        t = torch.tensor(float(k), dtype=torch.float64)
        cell, out = layer.cell.step(cell, bt.Drive(current=layer.current(x[k], out.detach())), t, 1.0)
        heard = out
        spikes = spikes + out.sum(0)
        if feedback is not None:  # the value is the readout's, the gradient with respect to the cells the feedback's
            weight = readout.output.weight
            keep = readout.keep(1.0)
            y = keep * read.y + out.detach() @ weight + readout.bias
            path = out @ feedback
            read = readout.State(y=y + path - path.detach())
            y = read.y
        else:
            read, y = readout.step(read, heard, t, 1.0)
        loss = loss + _loss(y, target[k])
    if rate is not None:
        hertz = spikes / (BATCH * STEPS * 1.0) * 1000.0
        loss = loss + rate[1] / 2 * (hertz - rate[0]).square().sum()
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return loss.detach(), gradients


@pytest.mark.parametrize("tau", [20.0, None], ids=["leak", "no leak"])
@pytest.mark.parametrize("connections", CONNECTIONS)
@pytest.mark.parametrize("cell", CELL_KINDS)
def test_gradients_are_those_of_cut_backpropagation(cell: str, connections: str, tau: float | None) -> None:
    model = _model(cell, connections, tau)
    _, want = _cut_backpropagation(model, None, None)
    x, target = _data()
    loss, sol = EProp(model, _loss).backward(x, target, dt=1.0, loop="reference")
    outputs = bt.simulate(model, x, dt=1.0, loop="reference").out
    torch.testing.assert_close(sol.out, outputs.detach(), rtol=1e-12, atol=1e-12)
    assert len(want) == 5
    for name, parameter in model.named_parameters():
        assert want[name].abs().max() > 0, name
        torch.testing.assert_close(
            parameter.grad, want[name], rtol=1e-9, atol=1e-12, msg=lambda m, name=name: f"{name}: {m}"
        )
    assert float(loss) == pytest.approx(sum(float(_loss(y, f)) for y, f in zip(outputs.detach(), target, strict=True)))


@pytest.mark.parametrize("connections", CONNECTIONS)
@pytest.mark.parametrize("cell", ["LIF", "ALIF", "refractory ALIF", "rate"])
@pytest.mark.parametrize("feedback", ["random", "adaptive", "given"])
def test_other_feedback_replaces_the_readouts_weights_in_the_learning_signal_alone(
    feedback: str, cell: str, connections: str
) -> None:
    model = _model(cell, connections)
    given = torch.randn(CELLS, OUTS, generator=torch.Generator().manual_seed(2), dtype=torch.float64) / CELLS**0.5
    learner = EProp(model, _loss, feedback=given if feedback == "given" else feedback, seed=9)
    assert learner.feedback is not None
    assert learner.feedback.detach().std().item() == pytest.approx(
        model.layers[1].output.weight.detach().std().item(), rel=0.5
    )
    _, want = _cut_backpropagation(model, learner.feedback.detach(), None)
    x, target = _data()
    learner.backward(x, target, dt=1.0, loop="reference")
    for name in ("layers.0.bias", "layers.0.input.weight", "layers.0.recurrent.weight"):
        torch.testing.assert_close(model.get_parameter(name).grad, want[name], rtol=1e-9, atol=1e-12)
    if feedback == "adaptive":
        assert torch.equal(learner.feedback.grad, model.layers[1].output.weight.grad)
    else:
        assert "feedback" not in dict(learner.named_parameters())


def test_adaptive_feedback_aligns_with_the_readout() -> None:
    model = _model("rate")
    learner = EProp(model, lambda y, f: (y - f).square().sum(), feedback="adaptive", seed=9)
    both = [model.layers[1].output.weight, learner.feedback]
    optimizer = torch.optim.SGD(both, lr=8e-5, weight_decay=500.0)
    x, target = _data()

    def angle() -> float:
        return float(torch.cosine_similarity(both[0].detach().flatten(), both[1].detach().flatten(), 0))

    before = angle()
    for _ in range(50):
        optimizer.zero_grad()
        learner.backward(x, target, dt=1.0, loop="native")
        optimizer.step()
    assert before < 0.7
    assert angle() > 0.75


def test_the_rate_loss_has_its_gradient() -> None:
    model = _model("ALIF")
    _, want = _cut_backpropagation(model, None, (10.0, 1e-3))
    x, target = _data()
    EProp(model, _loss, rate=10.0, rate_weight=1e-3).backward(x, target, dt=1.0, loop="reference")
    for name in ("layers.0.bias", "layers.0.input.weight", "layers.0.recurrent.weight"):
        torch.testing.assert_close(model.get_parameter(name).grad, want[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("connections", CONNECTIONS)
def test_the_native_loop_gives_the_same_gradients(connections: str) -> None:
    model = _model("refractory ALIF", connections)
    x, target = _data()
    gradients = []
    for loop in ("reference", "native"):
        EProp(model, _loss).backward(x, target, dt=1.0, loop=loop)
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
        model.zero_grad()
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("connections", CONNECTIONS)
def test_gradients_depend_neither_on_the_chunk_nor_on_how_the_batch_is_laid_out(connections: str) -> None:
    model = _model("refractory ALIF", connections)
    x, target = _data()
    gradients = []
    for chunk, batch in ((1, (4,)), (7, (2, 2)), (STEPS, (4,)), (64, (1, 4))):
        learner = EProp(model, _loss_of_sum, chunk=chunk, rate=10.0, rate_weight=1e-3)
        learner.backward(x.reshape(STEPS, *batch, N_IN), target.reshape(STEPS, *batch, OUTS), dt=1.0, loop="reference")
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
        model.zero_grad()
    singles = [
        EProp(model, _loss_of_sum).backward(x[:, b], target[:, b], dt=1.0, loop="reference") for b in range(BATCH)
    ]
    assert singles[0][1].out.shape == (STEPS, OUTS)
    gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for number, other in enumerate(gradients[1:]):
        for (name, _), one, two in zip(model.named_parameters(), gradients[0], other, strict=True):
            if number == 3 and name.startswith("layers.0"):
                continue  # the rate loss is one of the whole batch
            torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("feedback", ["symmetric", "random"])
@pytest.mark.parametrize("cell", ["LIF", "ALIF", "rate"])
def test_parametrised_weights_and_a_shared_bias_get_the_gradients_of_their_own_parameters(
    cell: str, feedback: str
) -> None:
    model, x, target = _model(cell), *_data()
    layer, generator = model.layers[0], torch.Generator().manual_seed(1)
    layer.bias = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    dale(layer.recurrent, torch.tensor([1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0]))
    masked(layer.recurrent, torch.rand(CELLS, CELLS, generator=generator) < 0.7)
    masked(layer.input, torch.rand(N_IN, CELLS, generator=generator) < 0.5)
    learner = EProp(model, _loss, feedback=feedback)
    _, want = _cut_backpropagation(model, learner.feedback, None)
    learner.backward(x, target, dt=1.0)
    assert set(want) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, want[name], rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


def test_memory_does_not_grow_with_time() -> None:
    class Largest(TorchDispatchMode):
        """The largest tensor of numbers that any operation makes, but for the outputs, which are handed out."""

        numel = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor) and out.is_floating_point() and out.numel() not in (x.numel(), target.numel()):
                self.numel = max(self.numel, out.numel())
            return out

    found = []
    for repeats in (1, 3):
        x, target = (value.repeat(repeats, 1, 1) for value in _data())
        with Largest() as largest:
            EProp(_model("ALIF"), _loss, chunk=4).backward(x, target, dt=1.0, loop="reference")
        found.append(largest.numel)
    assert found[0] == found[1] == BATCH * CELLS * CELLS


def test_gradients_add_up_and_frozen_parts_get_none() -> None:
    model = _model("rate", tau=None)
    model.layers[0].input.weight.requires_grad_(False)
    x, target = _data()
    learner = EProp(model, _loss)
    learner.backward(x, target, dt=1.0)
    once = model.layers[0].recurrent.weight.grad.clone()
    learner.backward(x, target, dt=1.0)
    torch.testing.assert_close(model.layers[0].recurrent.weight.grad, 2 * once)
    assert model.layers[0].input.weight.grad is None


def test_bad_arguments_are_named() -> None:
    model = _model("rate")
    x, target = _data()
    with pytest.raises(
        TypeError, match=r"`EProp\(model=...\)`: expected Sequential\(Recurrent, Readout\), got Recurrent"
    ):
        EProp(model.layers[0], _loss)
    with pytest.raises(ValueError, match=r"`EProp\(feedback=...\)`: expected 'symmetric'.*, got 'none'"):
        EProp(model, _loss, feedback="none")
    with pytest.raises(ValueError, match=r"`EProp\(feedback=...\)`: expected shape \(7, 3\), got \(3, 7\)"):
        EProp(model, _loss, feedback=torch.zeros(3, 7))
    with pytest.raises(ValueError, match=r"`EProp\(loss=...\)`: expected a scalar, got shape \(4, 3\)"):
        EProp(model, lambda y, f: y - f).backward(x, target, dt=1.0)
    with pytest.raises(
        ValueError, match=r"`EProp.backward\(target=...\)`: expected leading axis time=40, got \(39, 4, 3\)"
    ):
        EProp(model, _loss).backward(x, target[:-1], dt=1.0)
    with pytest.raises(
        ValueError, match=r"`EProp.backward\(x=...\)`: expected a tensor .* at least one step, got \(0, 4, 5\)"
    ):
        EProp(model, _loss).backward(x[:0], target[:0], dt=1.0)
    with pytest.raises(
        ValueError, match=r"`EProp.backward\(x=...\)`: expected n_in=5 on the last axis, got \(40, 4, 6\)"
    ):
        EProp(model, _loss).backward(torch.cat([x, x[..., :1]], -1), target, dt=1.0)
    with pytest.raises(ValueError, match=r"`EProp\(chunk=...\)`: expected a positive integer, got 0"):
        EProp(model, _loss, chunk=0)
    with pytest.raises(FloatingPointError, match=r"`EProp.backward`: the loss is nan; no gradient was added"):
        EProp(model, _loss).backward(x, target * float("nan"), dt=1.0)
    assert all(parameter.grad is None for parameter in model.parameters())
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ValueError, match="expected parameters that require gradients, got none"):
        EProp(model, _loss).backward(x, target, dt=1.0)
    other = bt.Sequential(_model("rate").layers[0], bt.Readout(5, 2, **FLOAT))
    with pytest.raises(ValueError, match="expected a readout of 7 cells, got 5"):
        EProp(other, _loss)
    with pytest.raises(ValueError, match=r"`EProp\(rate=...\)`: expected a finite number of at least 0, got 'ten'"):
        EProp(model, _loss, rate="ten")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"a target of shape \(4, 1\) is compared with \(4, 3\); expand it"):
        EProp(_model("rate"), lambda y, f: (y - f).square().sum()).backward(x, target[..., :1], dt=1.0)
    model = _model("rate")
    with pytest.raises(TypeError, match=r"`EProp\(feedback=...\)`: expected dtype torch.float64, got torch.float32"):
        EProp(model, _loss, feedback=torch.zeros(7, 3))
    with pytest.raises(
        ValueError, match=r"`EProp.backward\(seed=...\)`: expected a whole number of at least 0, got 'a'"
    ):
        EProp(model, _loss).backward(x, target, dt=1.0, seed="a")  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"`simulate\(loop=...\)`: expected 'auto', .*, got 'nativ'; did you mean 'native'"
    ):
        EProp(model, _loss).backward(x, target, dt=1.0, loop="nativ")
    with pytest.raises(ValueError, match=r"`EProp\(loss=...\)`: failed for outputs \(4, 3\) and target \(4, 2\)"):
        EProp(model, _loss).backward(x, target[..., :2], dt=1.0)
    with pytest.raises(
        ValueError, match=r"`EProp\(loss=...\)`: expected a loss that depends on the outputs, got one that"
    ):
        EProp(model, lambda y, f: (y.detach() - f).square().sum()).backward(x, target, dt=1.0)
    with pytest.raises(ValueError, match=r"`EProp\(loss=...\)`: expected a loss without trained parameters"):
        EProp(model, nn.Bilinear(OUTS, OUTS, 1))
    silent = bt.Recurrent(bt.neurons.LIF(CELLS, **FLOAT), N_IN)
    with pytest.raises(ValueError, match=r"expected cells that put out floats \(spikes: with a surrogate\), got bool"):
        EProp(bt.Sequential(silent, bt.Readout(CELLS, OUTS, **FLOAT)), _loss)
    learnt = _model("rate")
    learnt.layers[0].cell.tau = nn.Parameter(torch.tensor(5.0, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"expected weights and biases alone to require .* got layers.0.cell.tau"):
        EProp(learnt, _loss)
    procedural = bt.Recurrent(CELL_KINDS["rate"](), N_IN, connect_rec=bt.connect.OneToOne())
    with pytest.raises(TypeError, match="expected dense or CSR connectivity, got Identity"):
        EProp(bt.Sequential(procedural, bt.Readout(CELLS, 2, **FLOAT)), _loss).backward(x, target[..., :2], dt=1.0)
