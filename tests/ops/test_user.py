"""Operators of users: the example of the documentation, Python-only operators, kernels for others' operators, errors."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import bdtorch as bt
from bdtorch import ops
from bdtorch.simulate.loops._loop import LoopError
from tests.simulate.native.stepping import both, run

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "operators.md"


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, str(GUIDE), "exec"), names)
    return names


def test_the_example_of_the_guide_runs_in_every_loop(example: dict[str, Any]) -> None:
    runs = example["runs"]
    assert runs["reference"].abs().max() > 0.5
    torch.testing.assert_close(runs["inductor"], runs["reference"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(runs["native"], runs["reference"], rtol=1e-5, atol=1e-5)


def test_the_example_is_differentiable_and_maps(example: dict[str, Any]) -> None:
    op, dense = example["saturating_op"], example["saturating"]
    generator = torch.Generator().manual_seed(2)
    s = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    w = torch.randn(4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s, w: op(s, w, 0.7), (s, w), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda s, w: op(s, w, 0.7), (s, w))
    jacobians = torch.func.jacrev(lambda w: op(s, w, 0.7))(w), torch.func.jacfwd(lambda w: dense(s, w, 0.7))(w)
    torch.testing.assert_close(*jacobians)
    mapped = torch.func.vmap(lambda s, w: op(s, w, 0.7), in_dims=(0, None))(s, w)
    torch.testing.assert_close(mapped, dense(s, w, 0.7))
    torch.library.opcheck(op.raw, (s.detach(), w.detach(), 0.7))
    compiled = torch.compile(lambda s, w: op(s, w, 0.7).sum(), fullgraph=True, backend="aot_eager")
    compiled(s, w).backward()
    torch.testing.assert_close(w.grad, torch.autograd.grad(dense(s, w, 0.7).sum(), w)[0])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [(), (3,), (2, 2), (0,)], ids=str)
def test_the_kernel_of_the_example_takes_every_shape(
    example: dict[str, Any], batch: tuple[int, ...], dtype: torch.dtype, threads: int
) -> None:
    weights = torch.randn(11, 130, generator=torch.Generator().manual_seed(3), dtype=dtype)

    def step(x: list[Tensor], t: Tensor) -> tuple[list[Tensor], Tensor]:
        return [x[0].roll(1, -1)], example["saturating_op"](x[0].relu(), weights, 0.5)

    state = torch.randn(*batch, 11, generator=torch.Generator().manual_seed(4), dtype=dtype)
    for native, reference in zip(*both(step, state, threads=threads), strict=True):
        torch.testing.assert_close(native, reference)


def test_an_operator_in_python_alone_is_followed_by_the_native_loop() -> None:
    def count_above(x: Tensor, theta: float) -> Tensor:
        return (x > theta).sum(-1).to(x.dtype)

    signature = "count_above(Tensor x, float theta) -> Tensor"
    op = ops.define(signature, count_above, fake=lambda x, theta: x.new_empty(x.shape[:-1]), native="python")

    def step(x: list[Tensor], t: Tensor) -> tuple[list[Tensor], Tensor]:
        return [x[0] * 0.5], op(x[0], 0.1)

    for native, reference in zip(*both(step, torch.randn(4, 50)), strict=True):
        assert torch.equal(native, reference)
    x = torch.randn(3, requires_grad=True)
    with pytest.warns(UserWarning, match="autograd kernel was not registered"):
        op(x, 0.0).backward()
    assert x.grad is None


def test_an_operator_outside_of_torch_needs_a_kernel() -> None:
    def by_numpy(x: Tensor) -> Tensor:
        return torch.from_numpy(x.numpy()[..., ::-1].copy())

    op = ops.define("mirrored(Tensor x) -> Tensor", by_numpy, fake=torch.empty_like)
    followed = ops.define("mirrored_2(Tensor x) -> Tensor", by_numpy, fake=torch.empty_like, native="python")

    def step(x: list[Tensor], t: Tensor) -> tuple[list[Tensor], Tensor]:
        return [x[0] + 1.0], op(x[0])

    with pytest.raises(LoopError, match=r"_mirrored_raw\.default has no lowering"):
        run(step, torch.randn(4), loop=bt.Native())
    with pytest.raises(LoopError, match="torch operations did not make its result"):
        run(lambda x, t: ([x[0] + 1.0], followed(x[0])), torch.randn(4), loop=bt.Native())
    source = """namespace user_mirrored {
    template <class T> void mirror(bdtorch::View<const T> x, bdtorch::View<T> out) {
      const int64_t n = x.size(-1);
      for (int64_t e = 0; e < x.numel(); ++e) out[e] = x[e / n * n + (n - 1 - e % n)];
    } }"""
    ops.set_native_kernel(op.raw, ops.NativeKernel(source, "user_mirrored::mirror"))
    for native, reference in zip(*both(step, torch.randn(2, 5)), strict=True):
        assert torch.equal(native, reference)


def refusing(name: str) -> Any:
    """Doubles its operand, and throws once that is above 100."""
    source = f"""#include <stdexcept>
    namespace {name} {{
    inline void apply(bdtorch::View<const float> x, bdtorch::View<float> out, int64_t begin, int64_t end) {{
      for (int64_t k = begin; k < end; ++k)
        if ((out[k] = 2.0f * x[k]) > 100.0f) throw std::runtime_error("the battery is flat");
    }} }}"""
    kernel = ops.NativeKernel(source, f"{name}::apply", shares_last_axis=True)
    return ops.define(f"{name}(Tensor x) -> Tensor", lambda x: 2.0 * x, fake=torch.empty_like, native=kernel)


@pytest.mark.parametrize("threads", [1, 3])
def test_an_exception_in_a_kernel_is_an_error_that_names_it(threads: int) -> None:
    op = refusing(f"refusing_{threads}")
    message = rf"kernel of bdtorch_user\._refusing_{threads}_raw\.default raised an exception in step 7 \(test_user\.py:.*flat"
    with pytest.raises(RuntimeError, match=message):
        run(lambda x, t: ([op(x[0])], x[0]), torch.ones(500), steps=20, loop=bt.Native(threads=threads))
    assert run(lambda x, t: ([op(x[0])], x[0]), torch.ones(500), steps=5, loop=bt.Native(threads=threads))


def test_tensors_of_too_many_axes_are_refused() -> None:
    op = refusing("refusing_axes")
    with pytest.raises(LoopError, match=r"cannot pass 9 axes to .*refusing_axes.*: expected at most 8"):
        run(lambda x, t: ([op(x[0])], x[0]), torch.ones([1] * 9), loop="native")


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        ("saturate", "signature=.*'saturate'"),
        ("f(Tensor(a!) x) -> Tensor", "mutated"),
        ("f(Tensor x) -> (Tensor, Tensor)", "signature="),
        ("f(Banana x) -> Tensor", "expected a schema"),
        ("taken(Tensor x) -> Tensor", "'taken' is defined already"),
    ],
)
def test_bad_signatures_are_named(signature: str, message: str) -> None:
    if "taken" in signature and not hasattr(torch.ops.bdtorch_user, "taken"):
        ops.define("taken(Tensor x) -> Tensor", torch.clone, fake=torch.empty_like)
    with pytest.raises(ValueError, match=message):
        ops.define(signature, torch.clone, fake=torch.empty_like)


def test_derivatives_come_in_pairs_and_kernels_for_one_tensor() -> None:
    with pytest.raises(TypeError, match="expected both or none"):
        ops.define("half(Tensor x) -> Tensor", torch.clone, fake=torch.empty_like, jvp=lambda inputs, tangents: None)
    with pytest.raises(ValueError, match="one tensor out"):
        ops.set_native_kernel(torch.ops.aten.add_.Tensor, ops.NativeKernel("", "f"))
