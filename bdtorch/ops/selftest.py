"""Checks the operators of this installation, in a minute: ``python -m bdtorch.ops.selftest``.

With a GPU, every CUDA operator is compared with the CPU's on the same arguments. Without one it says so, and compares
the CPU's operators with dense products, with their formulas in torch's operations, and with Philox in NumPy's integers.
Prints a line for each check.

Exit code: 0, all checks passed; 1, a check failed; 2, there is a GPU but no CUDA library of bdtorch was loaded for it.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bdtorch import ops
from bdtorch.ops._checks import Arguments, Check, csr_of, dense_of, deterministic
from bdtorch.ops._checks_connectivity import connectivity_checks
from bdtorch.ops._checks_learning import learning_checks
from bdtorch.ops._checks_weights import segment_checks, weight_checks
from bdtorch.ops.csr import TWO_BYTES


def sparse_cases() -> Iterator[tuple[str, Arguments]]:
    """Names and arguments of the products with stored matrices: shapes, dtypes of weights and spikes, batches."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, 1, 1.0), (65, 7, 0.3), (1000, 3000, 0.01), (300, 2000, 0.9)]
    weight_dtypes = (torch.float32, torch.float64, *TWO_BYTES)
    for (n_pre, n_post, density), dtype, batch, event in itertools.product(
        shapes, weight_dtypes, ((), (5,)), (True, False)
    ):
        indices, indptr = csr_of(n_pre, n_post, density, generator)
        sums = torch.float64 if dtype == torch.float64 else torch.float32
        weights = torch.randn(len(indices), generator=generator).to(dtype)
        pre = (torch.randn(*batch, n_pre, generator=generator) - 0.5).relu().to(sums)
        post = (torch.randn(*batch, n_post, generator=generator) - 0.5).relu().to(sums)
        pre, post = (pre > 0, post > 0) if event else (pre, post)
        arguments = (pre, post, weights, indices, indptr, n_post)
        yield f"{n_pre} x {n_post}, {str(dtype)[6:]}, batch {batch}, {'bool' if event else 'float'} spikes", arguments


def sparse_checks(cuda: bool) -> Iterator[Check]:
    """The products with stored matrices, against the CPU's or against dense ones."""
    for name, (pre, post, weights, indices, indptr, n_post) in sparse_cases():
        sums = torch.float64 if weights.dtype == torch.float64 else torch.float32
        tolerance = 1e-10 if sums == torch.float64 else 1e-4

        def forward(s: Tensor, w: Tensor, i: Tensor, p: Tensor, n: int, sums: torch.dtype = sums) -> Tensor:
            return ops.event_csr(s, w, i, p, n) if cuda else (s.double() @ dense_of(w, i, p, n)).to(sums)

        def transposed(s: Tensor, w: Tensor, i: Tensor, p: Tensor, sums: torch.dtype = sums) -> Tensor:
            return ops.event_csr_t(s, w, i, p) if cuda else (s.double() @ dense_of(w, i, p, s.shape[-1]).T).to(sums)

        def outer(x: Tensor, g: Tensor, i: Tensor, p: Tensor) -> Tensor:
            if cuda:
                return ops.csr_outer(x, g, i, p)
            rows = torch.repeat_interleave(torch.arange(len(p) - 1), p.diff())
            products = x.double()[..., rows] * g.double()[..., i.long()]
            return products.reshape(-1, len(i)).sum(0).to(g.dtype)

        structure = (indices, indptr)
        yield Check(f"event_csr, {name}", ops.event_csr, (pre, weights, *structure, n_post), forward, tolerance)
        yield Check(f"event_csr_t, {name}", ops.event_csr_t, (post, weights, *structure), transposed, tolerance)
        g = post.to(sums)
        yield Check(f"csr_outer, {name}", ops.csr_outer, (pre, g, *structure), outer, tolerance)
        if cuda:
            yield Check(
                f"event_csr, deterministic, {name}",
                deterministic(ops.event_csr),
                (pre, weights, *structure, n_post),
                forward,
            )


def procedural_checks(cuda: bool) -> Iterator[Check]:
    """The products with matrices that are drawn, against the CPU's or against those with the listed synapses."""
    generator = torch.Generator().manual_seed(1)
    laws: tuple[dict[str, Any], ...] = ({"p": 0.1}, {"p": 1.0}, {"number": 30})
    for law, draws, batch in itertools.product(laws, ("none", "uniform", "normal"), ((), (3,))):
        matrix = ops.ProceduralMatrix(400, 900, 7, draws=draws, self_offset=3, **law)
        offset, scale = torch.tensor(0.75), None if draws == "none" else torch.tensor(0.5)
        spikes = torch.rand(*batch, 400, generator=generator) < 0.2
        values = torch.randn(*batch, 900, generator=generator)
        indptr, targets, numbers = ops.procedural_rows(torch.arange(400), matrix)
        weights = offset if scale is None else offset + scale * numbers
        dense = dense_of(weights.expand(len(targets)), targets, indptr, 900)

        def forward(s: Tensor, a: Tensor, b: Tensor | None, m: Any, dense: Tensor = dense) -> Tensor:
            return ops.procedural_event(s, a, b, m) if cuda else (s.double() @ dense).float()

        def gather(s: Tensor, a: Tensor, b: Tensor | None, m: Any, dense: Tensor = dense) -> Tensor:
            return ops.procedural_gather(s, a, b, m) if cuda else (s.double() @ dense.T).float()

        name = f"{law}, draws {draws}, batch {batch}"
        yield Check(f"procedural_event, {name}", ops.procedural_event, (spikes, offset, scale, matrix), forward, 1e-4)
        if cuda:
            ordered = deterministic(ops.procedural_event)
            yield Check(f"procedural_event, deterministic, {name}", ordered, (spikes, offset, scale, matrix), forward)
        yield Check(f"procedural_gather, {name}", ops.procedural_gather, (values, offset, scale, matrix), gather, 1e-4)


def philox_uniforms(key: Tensor, counter: Tensor, n: int) -> Tensor:
    """What `ops.uniform` must give in float32, from the generator's definition in NumPy's integers."""
    block = np.arange((n + 3) // 4, dtype=np.uint64)
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    step, name = int(counter) % 2**64, int(key) % 2**64
    words = [block & low, block >> shift, np.full_like(block, step % 2**32), np.full_like(block, step >> 32)]
    key_0, key_1 = name % 2**32, name >> 32
    for _ in range(10):
        product_0, product_1 = np.uint64(0xD2511F53) * words[0], np.uint64(0xCD9E8D57) * words[2]
        words = [(product_1 >> shift) ^ words[1] ^ np.uint64(key_0), product_1 & low,
                 (product_0 >> shift) ^ words[3] ^ np.uint64(key_1), product_0 & low]  # fmt: skip
        key_0, key_1 = (key_0 + 0x9E3779B9) % 2**32, (key_1 + 0xBB67AE85) % 2**32
    uniforms = (np.stack(words, 1).reshape(-1)[:n] >> np.uint64(8)).astype(np.float32) * np.float32(2.0**-24)
    return torch.from_numpy(uniforms)


def random_checks(cuda: bool) -> Iterator[Check]:
    """Random numbers, whose bits are the same on every device."""
    key, counter, n = ops.make_key(3), torch.tensor(2**33 + 5), 10_001
    rate, p = torch.linspace(0, 60, n), torch.linspace(0, 1, n)

    def doors(dtype: torch.dtype) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
        return {
            "uniform": lambda k, c: ops.uniform(k, c, n, dtype=dtype),
            "normal": lambda k, c: ops.normal(k, c, n, dtype=dtype),
            "exponential": lambda k, c: ops.exponential(k, c, n, dtype=dtype),
            "bernoulli": lambda k, c: ops.bernoulli(k, c, p.to(k.device, dtype), n),
            "poisson": lambda k, c: ops.poisson(k, c, rate.to(k.device, dtype), n),
            "binomial": lambda k, c: ops.binomial(k, c, 80, p.to(k.device, dtype), n),
        }

    yield Check("uniform, float32, against Philox", doors(torch.float32)["uniform"], (key, counter),
                lambda k, c: philox_uniforms(k, c, n))  # fmt: skip
    if not cuda:
        return
    for dtype in (torch.float32, torch.float64):
        for name, door in doors(dtype).items():
            yield Check(f"{name}, {str(dtype)[6:]}", door, (key, counter), door)


def all_checks(cuda: bool) -> Iterator[Check]:
    """Every check, on a GPU or of the CPU's operators."""
    return itertools.chain(
        sparse_checks(cuda), weight_checks(cuda), segment_checks(cuda), procedural_checks(cuda), random_checks(cuda),
        learning_checks(), connectivity_checks(),
    )  # fmt: skip


def run(device: torch.device) -> list[tuple[str, str | None]]:
    """Every check on a device: its name, and what is wrong or None."""
    return [(check.name, check.error(device)) for check in all_checks(device.type != "cpu")]


def main() -> int:
    """Runs the checks and reports; returns the exit code."""
    if torch.cuda.is_available():
        if not torch._C._dispatch_has_kernel_for_dispatch_key("bdtorch::event_csr", "CUDA"):
            print(f"There is a GPU, but bdtorch has no library for CUDA {torch.version.cuda}: build it with nvcc.")
            return 2
        device = torch.device("cuda")
        print(f"Comparing the operators on {torch.cuda.get_device_name()} with those of the CPU.")
    else:
        device = torch.device("cpu")
        print("No GPU is visible to torch: the CUDA operators were NOT checked.")
        print(
            "Comparing the operators of the CPU with dense products, formulas in torch, and a Philox generator in NumPy."
        )
    results = run(device)
    for name, error in results:
        print(f"{'ok    ' if error is None else 'FAILED'} {name}{'' if error is None else ': ' + error}")
    failures = sum(error is not None for _, error in results)
    print(f"{failures} of {len(results)} checks failed on {device.type}")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
