"""e-prop: gradients of recurrent networks forward in time, from eligibility traces and learning signals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bdtorch import _tree as tree
from bdtorch._system import initial_state
from bdtorch.init import Normal
from bdtorch.network import Readout, Recurrent, Sequential
from bdtorch.ops.random import fold
from bdtorch.simulate import Loop, Solution, Windows
from bdtorch.train._checks import not_negative, whole
from bdtorch.train._eligibility import Local, LocalStep, Pull
from bdtorch.train._pieces import checked_loss, cut
from bdtorch.train._traces import Pattern

Loss = Callable[[Tensor, Any], Tensor]


class EProp(nn.Module):
    r"""The gradient of a recurrent layer's weights as a sum over time of learning signal times eligibility.

    $$\frac{dE}{dW_{ij}} = \sum_t L_j^t\,\bar e_{ij}^t, \qquad e_{ij}^t = \frac{dz_j^t}{dW_{ij}}
    \text{ through cell } j \text{ alone}, \qquad L_j^t = \sum_k B_{jk} \frac{\partial E^t}{\partial y_k^t}$$

    Eligibility vectors $dh_j/dW_{ij}$ of every state variable $h_j$ of the cell are carried along by its local Jacobian,
    which automatic differentiation gives for any cell whose elements do not act on each other within a step;
    $\bar e$ is $e$ filtered by the readout's leak. What reaches a weight through other cells' spikes is left out: this is
    backpropagation through time with the recurrent gradient cut. Memory does not grow with time.

    Traces advance by chunks of steps: the local Jacobians of a chunk are multiplied once per cell, which leaves one matrix
    product of sources and cells for all its steps instead of a pass over all synapses at each.

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
        chunk: Steps by which traces advance at once. The gradient does not depend on it; memory and speed do.
        seed: Names random feedback.

    Raises:
        TypeError, ValueError: An argument is not as described.

    Source: Bellec, Scherr, Subramoney, Hajek, Salaj, Legenstein & Maass (2020), doi:10.1038/s41467-020-17236-y.
    """

    def __init__(
        self,
        model: Sequential,
        loss: Loss,
        *,
        feedback: str | Tensor = "symmetric",
        rate: float | None = None,
        rate_weight: float = 1.0,
        chunk: int = 64,
        seed: int = 0,
    ) -> None:
        layers = list(model.layers) if isinstance(model, Sequential) else []
        if len(layers) != 2 or not isinstance(layers[0], Recurrent) or not isinstance(layers[1], Readout):
            raise TypeError(f"`EProp(model=...)`: expected Sequential(Recurrent, Readout), got {type(model).__name__}")
        if not callable(loss):
            raise TypeError(f"`EProp(loss=...)`: expected a function of outputs and target, got {loss!r}")
        if isinstance(loss, nn.Module) and any(parameter.requires_grad for parameter in loss.parameters()):
            raise ValueError(
                "`EProp(loss=...)`: expected a loss without trained parameters, which would get no gradient"
            )
        super().__init__()
        self.model, self.loss, self.chunk = model, loss, whole(chunk, "EProp(chunk=...)")
        if self.readout.output.connect.n_pre != self.layer.count:
            raise ValueError(
                f"`EProp(model=...)`: expected a readout of {self.layer.count} cells, "
                f"got {self.readout.output.connect.n_pre}"
            )
        self.rate = None if rate is None else not_negative(rate, "EProp(rate=...)")
        self.rate_weight = not_negative(rate_weight, "EProp(rate_weight=...)")
        if not self.layer.init_out().is_floating_point():
            raise ValueError(
                "`EProp(model=...)`: expected cells that put out floats (spikes: with a surrogate), got bool"
            )
        self._check_trained()
        self.adaptive = False
        self._declare_feedback(feedback, whole(seed, "EProp(seed=...)", least=0))

    def _check_trained(self) -> None:
        """Reject parameters that would be left without a gradient in silence."""
        own = {
            id(p) for part in (self.layer.input, self.layer.recurrent, self.readout.output) for p in part.parameters()
        }
        own |= {id(tensor) for tensor in (self.layer.bias, self.readout.bias)}
        idle = [name for name, p in self.model.named_parameters() if p.requires_grad and id(p) not in own]
        if idle:
            raise ValueError(
                f"`EProp(model=...)`: expected weights and biases alone to require gradients, got {', '.join(idle)}; "
                "`requires_grad_(False)` leaves it as it is"
            )

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
            if feedback.dtype != self.model.dtype:
                raise TypeError(f"`EProp(feedback=...)`: expected dtype {self.model.dtype}, got {feedback.dtype}")
            self.register_buffer("feedback", feedback)
        elif feedback == "symmetric":
            self.feedback = None
        elif feedback in ("random", "adaptive"):
            std = float(self.readout.output.weight.detach().square().mean().sqrt())
            drawn = Normal(0.0, std)(
                shape, seed=fold(seed, "feedback"), dtype=self.model.dtype, device=self.model.device
            )
            self.adaptive = feedback == "adaptive"
            if self.adaptive:
                self.register_parameter("feedback", nn.Parameter(drawn))
            else:
                self.register_buffer("feedback", drawn)
        else:
            raise ValueError(
                f"`EProp(feedback=...)`: expected 'symmetric', 'random', 'adaptive' or a tensor, got {feedback!r}"
            )

    def _tensor(self, name: str) -> Any:
        """The layer's input weights, recurrent weights or bias."""
        return self.layer.bias if name == "bias" else getattr(self.layer, name).weight

    @torch.enable_grad()
    def _patterns(self) -> dict[str, Pattern]:
        """How the entries of each trained tensor of the layer join sources to cells."""
        layer, found = self.layer, {}
        for name in ("input", "recurrent", "bias"):
            tensor = self._tensor(name)
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                one_each = Pattern((1, layer.count))
                found[name] = one_each if name == "bias" else Pattern.of(getattr(layer, name).connect)
        return found

    def _feedback(self) -> Tensor:
        return self.readout.output.weight if self.feedback is None else self.feedback

    def _checked_loss(self, y: Tensor, target: Any) -> Tensor:
        return checked_loss(self.loss, y, target, "EProp(loss=...)", "target")

    @torch.enable_grad()
    def _check_slope(self, x: Tensor, target: Any) -> None:
        """Reject a loss whose gradient would be zero because it does not hang on the outputs."""
        y = x.new_zeros(*x.shape[1:-1], self.readout.count, dtype=self.model.dtype, requires_grad=True)
        if not self._checked_loss(y, tree.map(lambda leaf: leaf[0], target)).requires_grad:
            raise ValueError("`EProp(loss=...)`: expected a loss that depends on the outputs, got one that does not")

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
            ValueError: Lengths differ, the loss is no scalar or does not depend on the outputs, or nothing of the model
                requires a gradient.
            FloatingPointError: The loss or a state variable became NaN or infinite; no gradient was added.
        """
        if not any(parameter.requires_grad for parameter in self.model.parameters()):
            raise ValueError("`EProp.backward`: expected parameters that require gradients, got none")
        whole(seed, "EProp.backward(seed=...)", least=0)
        _check_sequences(x, target, self.layer.input.connect.n_pre)
        self._check_slope(x, target)
        step = LocalStep(self.layer, self.readout)
        state = initial_state(step, tuple(x.shape[1:-1]), dt=dt, seed=seed)
        run = Windows(step, x[:1], dt=dt, state=state, loop=loop)
        sums, outs = _Sums(self, x, state.layer, dt, loop), []
        for start in range(0, len(x), self.chunk):
            stop = min(start + self.chunk, len(x))
            before, solution = state.layer.out, run(state, x[start:stop], start)
            state = solution.state
            outs.append(solution.out.y)
            sums.add(x[start:stop], cut(target, start, stop), before, solution.out)
        self._deliver(sums, len(x) * dt)
        after = {"0": state.layer, "1": state.readout}
        return sums.loss, Solution(after, {}, dt, 0, len(x), run.loop, outputs=torch.cat(outs))

    @torch.enable_grad()
    def _deliver(self, sums: _Sums, duration: float) -> None:
        """Hand on to autograd what was summed, which adds it to ``.grad``, through parametrisations where there are any."""
        extra = None
        if self.rate is not None:
            # How the rate loss changes with one spike more of each cell.
            hertz = 1000.0 / (sums.batch * duration)
            extra = self.rate_weight * (sums.spikes * hertz - self.rate) * hertz
        pairs = [(self.readout.output.weight, sums.grad_out), (self.readout.bias, sums.grad_bias)]
        for name, pattern in sums.patterns.items():
            pairs.append((self._tensor(name), pattern.weight_gradient(sums.traces[name], extra)))
        if self.adaptive:
            pairs.append((self.feedback, sums.grad_out))
        trained = [(tensor, gradient) for tensor, gradient in pairs if tensor is not None and tensor.requires_grad]
        torch.autograd.backward(
            [tensor for tensor, _ in trained], [gradient.sum_to_size(tensor.shape) for tensor, gradient in trained]
        )


class _Sums:
    """What is summed over the chunks of a sequence: the traces, the gradients of the readout, the loss, the spikes.

    Args:
        learner: Whose.
        x: The sequence, for its batch.
        layer: The layer's first state.
        dt: Step, ms.
        loop: Time loop.
    """

    def __init__(self, learner: EProp, x: Tensor, layer: Recurrent.State, dt: float, loop: str | Loop) -> None:
        self.learner, self.patterns = learner, learner._patterns()
        self.batch = math.prod(x.shape[1:-1])
        variables = sum(leaf.is_floating_point() for leaf in tree.leaves(layer.cell))
        cells, outs, like = learner.layer.count, learner.readout.count, learner.readout.output.weight
        self.traces = {name: p.zeros(self.batch, variables, like) for name, p in self.patterns.items()}
        self.grad_out, self.grad_bias = like.new_zeros(cells, outs), like.new_zeros(outs)
        self.spikes, self.loss = like.new_zeros(cells), like.new_zeros(())
        self.pull = Pull(cells, variables, learner.readout.keep(dt), dtype=like.dtype, device=like.device)
        self.start = initial_state(self.pull, (self.batch,), dt=dt)
        self.dt, self.loop = dt, loop
        self.run: Windows | None = None

    def add(self, x: Tensor, target: Any, before: Tensor, local: Local) -> None:
        """Take in a chunk.

        Args:
            x: Its inputs, ``(time, *batch, n_in)``.
            target: Its targets.
            before: The cells' output before it, ``(*batch, cells)``.
            local: What its steps left.
        """
        slope, losses = torch.func.vmap(torch.func.grad_and_value(self.learner._checked_loss))(local.y, target)
        self.loss = self.loss + losses.sum()
        if not bool(self.loss.isfinite()):
            raise FloatingPointError(f"`EProp.backward`: the loss is {self.loss.item()}; no gradient was added")
        flat = slope.flatten(0, -2)
        self.grad_out = self.grad_out + local.heard.flatten(0, -2).mT @ flat
        self.grad_bias = self.grad_bias + local.ones.flatten() @ flat
        self.spikes = self.spikes + local.out.flatten(0, -2).sum(0)
        if not self.patterns:
            return
        signal = slope @ self.learner._feedback().mT
        backwards = tree.map(lambda leaf: self._one_batch(leaf).flip(0), (local.jacobian, signal))
        if self.run is None:
            self.run = Windows(self.pull, backwards, dt=self.dt, state=self.start, loop=self.loop)
        sol = self.run(self.start, backwards)
        pulled = tree.map(lambda leaf: leaf.flip(0), sol.out)
        heard = torch.cat([before.unsqueeze(0), local.out[:-1]])
        sources = {"input": x, "recurrent": heard, "bias": x.new_ones(*x.shape[:-1], 1)}
        for name, pattern in self.patterns.items():
            source = self._one_batch(sources[name].to(signal.dtype))
            self.traces[name] = pattern.advance(self.traces[name], source, pulled, sol.state)

    def _one_batch(self, value: Tensor) -> Tensor:
        """``(time, *batch, size)`` as ``(time, batch, size)``."""
        return value.reshape(len(value), self.batch, value.shape[-1])


def _check_sequences(x: Any, target: Any, n_in: int) -> None:
    if not isinstance(x, Tensor) or x.dim() < 2 or not len(x):
        got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(
            f"`EProp.backward(x=...)`: expected a tensor (time, *batch, n_in) of at least one step, got {got}"
        )
    if x.shape[-1] != n_in:
        raise ValueError(f"`EProp.backward(x=...)`: expected n_in={n_in} on the last axis, got {tuple(x.shape)}")
    for leaf in tree.leaves(target):
        if not isinstance(leaf, Tensor) or not leaf.dim() or len(leaf) != len(x):
            got = tuple(leaf.shape) if isinstance(leaf, Tensor) else type(leaf).__name__
            raise ValueError(f"`EProp.backward(target=...)`: expected leading axis time={len(x)}, got {got}")
