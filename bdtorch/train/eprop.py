"""e-prop: gradients of recurrent networks forward in time, from eligibility traces and learning signals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bdtorch import _tree as tree
from bdtorch._drive import Drive
from bdtorch._system import DynamicalSystem, initial_state
from bdtorch._types import State
from bdtorch.init import Normal
from bdtorch.network import Readout, Recurrent, Sequential
from bdtorch.ops.random import fold
from bdtorch.simulate import Loop, Solution, simulate
from bdtorch.train._eligibility import Pattern, local_jacobian

Loss = Callable[[Tensor, Any], Tensor]


class EProp(DynamicalSystem):
    r"""The gradient of a recurrent layer's weights as a sum over time of learning signal times eligibility.

    $$\frac{dE}{dW_{ij}} = \sum_t L_j^t\,\bar e_{ij}^t, \qquad e_{ij}^t = \frac{dz_j^t}{dW_{ij}}
    \text{ through cell } j \text{ alone}, \qquad L_j^t = \sum_k B_{jk} \frac{\partial E^t}{\partial y_k^t}$$

    Eligibility vectors $dh_j/dW_{ij}$ of every state variable $h_j$ of the cell are carried along by its local Jacobian,
    which automatic differentiation gives for any cell whose elements do not act on each other within a step;
    $\bar e$ is $e$ filtered by the readout's leak. What reaches a weight through other cells' spikes is left out: this is
    backpropagation through time with the recurrent gradient cut. Memory does not grow with time.

    It is itself a system, over the pair ``(x, target)``, that any loop runs; `backward` is the door that fills ``.grad``.

    Args:
        model: ``Sequential(Recurrent, Readout)``. Trained are those of its weights and biases that require gradients.
        loss: ``loss(y, target)`` of a step, a scalar in torch operations; the loss of a sequence is its sum over steps.
            ``y`` is ``(*batch, n_out)``, and ``target`` what `backward` was given for this step.
        feedback: $B$. ``"symmetric"``: the readout's weights; ``"random"``: fixed Gaussian of their variance at first;
            ``"adaptive"``: as random at first, a parameter that gets the readout's gradient, so that an optimizer that
            holds it beside the readout's weights (with weight decay on both) aligns the two; or a tensor
            ``(cells, n_out)``.
        rate: Target rate of the cells, Hz, for an additional loss ``rate_weight / 2 * sum_j (f_j - rate)^2`` with $f_j$
            the rate over time and batch; None for none.
        rate_weight: Its weight.
        seed: Names random feedback.

    Raises:
        TypeError, ValueError: An argument is not as described.

    Source: Bellec, Scherr, Subramoney, Hajek, Salaj, Legenstein & Maass (2020), doi:10.1038/s41467-020-17236-y.
    """

    class State(NamedTuple):
        model: Any
        traces: Any
        """For each trained tensor of the layer: eligibility vectors, filtered trace, sums. See `Pattern`."""
        heard: Tensor
        """The cells' outputs filtered by the readout's leak, ``(*batch, cells)``."""
        ones: Tensor
        """A constant 1 filtered so, for the readout's bias, ``(*batch,)``."""
        grad_out: Tensor
        """Gradient of the readout's weights, ``(*batch, cells, n_out)``."""
        grad_bias: Tensor
        """Gradient of the readout's bias, ``(*batch, n_out)``."""
        spikes: Tensor
        """Sum of the cells' outputs, ``(*batch, cells)``."""

    def __init__(
        self,
        model: Sequential,
        loss: Loss,
        *,
        feedback: str | Tensor = "symmetric",
        rate: float | None = None,
        rate_weight: float = 1.0,
        seed: int = 0,
    ) -> None:
        layers = list(model.layers) if isinstance(model, Sequential) else []
        if len(layers) != 2 or not isinstance(layers[0], Recurrent) or not isinstance(layers[1], Readout):
            raise TypeError(f"`EProp(model=...)`: expected Sequential(Recurrent, Readout), got {type(model).__name__}")
        if not callable(loss):
            raise TypeError(f"`EProp(loss=...)`: expected a function of outputs and target, got {loss!r}")
        super().__init__(model.size, dtype=model.dtype, device=model.device)
        self.model, self.loss = model, loss
        if self.readout.output.connect.n_pre != self.layer.count:
            raise ValueError(
                f"`EProp(model=...)`: expected a readout of {self.layer.count} cells, "
                f"got {self.readout.output.connect.n_pre}"
            )
        self.rate, self.rate_weight = rate, rate_weight
        self.adaptive = False
        self._declare_feedback(feedback, seed)

    @property
    def layer(self) -> Recurrent:
        """The model's recurrent layer."""
        return self.model.layers[0]  # type: ignore[return-value]

    @property
    def readout(self) -> Readout:
        """The model's readout."""
        return self.model.layers[1]  # type: ignore[return-value]

    def _declare_feedback(self, feedback: str | Tensor, seed: int) -> None:
        shape = (self.layer.count, self.readout.count)
        self.feedback: Tensor | None
        if isinstance(feedback, Tensor):
            if tuple(feedback.shape) != shape:
                raise ValueError(f"`EProp(feedback=...)`: expected shape {shape}, got {tuple(feedback.shape)}")
            self.register_buffer("feedback", feedback)
        elif feedback == "symmetric":
            self.feedback = None
        elif feedback in ("random", "adaptive"):
            std = float(self.readout.output.weight.detach().square().mean().sqrt())
            drawn = Normal(0.0, std)(shape, seed=fold(seed, "feedback"), dtype=self.dtype, device=self.device)
            self.adaptive = feedback == "adaptive"
            if self.adaptive:
                self.register_parameter("feedback", nn.Parameter(drawn))
            else:
                self.register_buffer("feedback", drawn)
        else:
            raise ValueError(
                f"`EProp(feedback=...)`: expected 'symmetric', 'random', 'adaptive' or a tensor, got {feedback!r}"
            )

    def _trained(self) -> list[str]:
        """Names of the layer's trained tensors."""
        layer = self.layer
        tensors = {"input": layer.input.weight, "recurrent": layer.recurrent.weight, "bias": layer.bias}
        return [name for name, value in tensors.items() if isinstance(value, Tensor) and value.requires_grad]

    def _pattern(self, name: str) -> Pattern:
        """How the entries of one of them join sources to cells."""
        return Pattern.of_bias(self.layer.count) if name == "bias" else Pattern.of(getattr(self.layer, name).connect)

    def init_state(self, batch_shape: tuple[int, ...] = (), *, dt: float | None = None, seed: int = 0) -> State:
        model = initial_state(self.model, batch_shape, dt=dt, seed=seed)
        floats = sum(leaf.is_floating_point() for leaf in tree.leaves(model["0"].cell))

        def zeros(*shape: int) -> Tensor:
            return torch.zeros((*batch_shape, *shape), dtype=self.dtype, device=self.device)

        cells, outs = self.layer.count, self.readout.count
        traces = {name: self._pattern(name).zeros(zeros, floats) for name in self._trained()}
        return self.State(
            model=model,
            traces=traces,
            heard=zeros(cells),
            ones=zeros(),
            grad_out=zeros(cells, outs),
            grad_bias=zeros(outs),
            spikes=zeros(cells),
        )

    def step(self, state: State, inputs: Any, t: Tensor, dt: float) -> tuple[State, Tensor]:
        x, target = inputs
        layer, keep = self.layer, self.readout.keep(dt)
        before = state.model["0"]
        current = layer.current(x, before.out)
        after, out, jacobian = local_jacobian(
            lambda cell, drive: layer.cell.step(cell, Drive(current=drive), t, dt), before.cell, current
        )
        read, y = self.readout.step(state.model["1"], out, t, dt)
        slope = torch.func.grad(lambda value: self._checked_loss(value, target))(y)
        feedback = self.readout.output.weight if self.feedback is None else self.feedback
        signal = slope @ feedback.mT
        sources = {"input": x, "recurrent": before.out, "bias": None}
        traces = {
            name: self._pattern(name).advance(trace, sources[name], jacobian, signal, keep)
            for name, trace in state.traces.items()
        }
        heard, ones = keep * state.heard + out, keep * state.ones + 1.0
        return self.State(
            model={"0": before._replace(cell=after, out=out), "1": read},
            traces=traces,
            heard=heard,
            ones=ones,
            grad_out=state.grad_out + heard.unsqueeze(-1) * slope.unsqueeze(-2),
            grad_bias=state.grad_bias + ones.unsqueeze(-1) * slope,
            spikes=state.spikes + out,
        ), y

    def _checked_loss(self, y: Tensor, target: Any) -> Tensor:
        loss = self.loss(y, target)
        if not isinstance(loss, Tensor) or loss.dim():
            got = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"`EProp(loss=...)`: expected a scalar, got {got}")
        return loss

    @torch.no_grad()
    def backward(
        self, x: Tensor, target: Any, *, dt: float, seed: int = 0, loop: str | Loop = "auto"
    ) -> tuple[Tensor, Solution]:
        """Run a sequence and add its gradients to ``.grad`` of the trained tensors, as ``Tensor.backward`` would.

        Args:
            x: Inputs, ``(time, *batch, n_in)``.
            target: Targets, a pytree of tensors with a leading axis time, passed to the loss step by step.
            dt: Step, ms.
            seed: Names initial values and noise.
            loop: Time loop, as in `bdtorch.simulate`.

        Returns:
            The loss of the sequence (0-d), and the solution, whose ``out`` are the readouts.

        Raises:
            ValueError: Lengths differ, the loss is no scalar, or nothing of the model requires a gradient.
        """
        if not any(parameter.requires_grad for parameter in self.model.parameters()):
            raise ValueError("`EProp.backward`: expected parameters that require gradients, got none")
        sol = simulate(self, (x, target), dt=dt, seed=seed, batch_shape=tuple(x.shape[1:-1]), loop=loop, progress=False)
        state = sol.state
        for name in state.traces:
            gradient = self._pattern(name).gradient(state.traces[name], self._rate_slope(state.spikes, sol.steps, dt))
            _accumulate(self.layer.bias if name == "bias" else getattr(self.layer, name).weight, gradient)
        cells, outs = self.layer.count, self.readout.count
        grad_out = state.grad_out.reshape(-1, cells, outs).sum(0)
        _accumulate(self.readout.output.weight, grad_out)
        if self.readout.bias is not None:
            _accumulate(self.readout.bias, state.grad_bias.reshape(-1, outs).sum(0))
        if self.adaptive:
            _accumulate(self.feedback, grad_out)
        return torch.func.vmap(self.loss)(sol.out, target).sum(), sol

    def _rate_slope(self, spikes: Tensor, steps: int, dt: float) -> Tensor | None:
        """How the rate loss changes with one spike more of each cell, ``(cells,)``; None where there is none."""
        if self.rate is None:
            return None
        batch = max(1, spikes.numel() // self.layer.count)
        hertz = 1000.0 / (batch * steps * dt)
        rates = spikes.reshape(-1, self.layer.count).sum(0) * hertz
        return self.rate_weight * (rates - self.rate) * hertz


def _accumulate(parameter: Any, gradient: Tensor) -> None:
    if not parameter.requires_grad:
        return
    parameter.grad = gradient.clone() if parameter.grad is None else parameter.grad + gradient
