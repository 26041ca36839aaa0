"""Random cases: a few tensors, and a program of a few operations on them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from tests.simulate.native.operations import ANY, BOOL, FLOATS, RULES, WHOLE, Function, Made

SHAPES = [(), (1,), (5,), (0,), (3, 5), (3, 1), (1, 5), (2, 3, 5), (0, 5), (3, 0), (65,), (4, 4), (2, 3, 3), (129,)]
SPECIAL = torch.tensor([0.0, -0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 0.5, 2.5, -2.5, 3.5, 1e-40, 7.0, -7.0])


class Case:
    """A few tensors, and a program of a few operations on them and on what they give. The same seed draws the same case."""

    def __init__(self, seed: int, dtypes: tuple[torch.dtype, ...] = ANY, special: bool = True) -> None:
        self.seed, self.dtypes, self.special = seed, dtypes, special
        self.draw, self.generator = random.Random(seed), torch.Generator().manual_seed(seed)
        shapes = [(2, 3, 5), (3, 5), (3, 5), (4, 4), *(self.draw.choice(SHAPES) for _ in range(3))]
        kinds = [FLOATS, WHOLE, BOOL, FLOATS, ANY, ANY, ANY]
        self.leaves = [
            self._leaf(shape, self.draw.choice([d for d in kind if d in dtypes] or dtypes))
            for shape, kind in zip(shapes, kinds, strict=True)
        ]
        self.operations: list[tuple[str, Function, list[int]]] = []
        exact, values = list(range(len(self.leaves))), list(self.leaves)
        for operation, operands, result, is_exact in self._drawn(values, exact):
            self.operations.append((*operation, operands))
            if is_exact:
                exact.append(len(values))
            values.append(result)

    def _leaf(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        draw, chance = self.draw, torch.rand(shape, generator=self.generator)
        if dtype == torch.bool:
            x = chance < 0.5
        elif not dtype.is_floating_point:
            x = torch.randint(-9, 9, shape, generator=self.generator).to(dtype)
            if draw.random() < 0.2:
                limits = torch.iinfo(dtype)
                x = torch.where(chance < 0.3, torch.tensor(draw.choice([limits.min, limits.max]), dtype=dtype), x)
        else:
            x = torch.randn(shape, generator=self.generator, dtype=torch.float64).to(dtype) * draw.choice([1, 3, 20])
            if self.special and draw.random() < 0.3:
                x = torch.where(
                    chance < 0.5, SPECIAL[torch.randint(len(SPECIAL), shape, generator=self.generator)].to(dtype), x
                )
        layout = draw.random()
        if layout < 0.2 and x.dim() > 1:
            return x.transpose(0, 1).contiguous().transpose(0, 1)
        return x[:1].expand(x.shape) if layout < 0.3 and x.dim() else x

    def _drawn(self, values: list[Tensor], exact: list[int]) -> Iterator[tuple[Made, list[int], Tensor, bool]]:
        """Operations that PyTorch accepts, as many as the case is to have."""
        left = self.draw.choice([1, 2, 3])
        for _ in range(200):
            chosen = self.draw.choice(RULES)
            fitting = [[k for k in exact if values[k].dtype in kinds] for kinds in chosen.operands]
            if not all(fitting):
                continue
            operands = [self.draw.choice(those) for those in fitting]
            try:
                made = chosen.make(self.draw, *(values[k] for k in operands))
                result = made[1](*(values[k] for k in operands))
                for leaves in self.shifted(3):  # and in the steps to come
                    self.run(leaves, (*self.operations, (*made, operands)))
            except (
                RuntimeError,
                TypeError,
                IndexError,
                ValueError,
                NotImplementedError,
                OverflowError,
                ZeroDivisionError,
            ):
                continue
            if isinstance(result, Tensor) and not result.is_complex() and result.numel() < 3000:
                yield made, operands, result, chosen.exact
                left -= 1
                if not left:
                    return

    def shifted(self, steps: int) -> Iterator[list[Tensor]]:
        """The leaves after each step."""
        leaves = self.leaves
        for _ in range(steps):
            yield leaves
            leaves = self.after(leaves)

    @staticmethod
    def after(leaves: list[Tensor]) -> list[Tensor]:
        """The leaves of the next step."""
        return [x.roll(1) if x.numel() else x for x in leaves]

    def run(self, leaves: list[Tensor], operations: Any = None) -> list[Tensor]:
        """What the operations give."""
        values = list(leaves)
        for _, function, operands in self.operations if operations is None else operations:
            values.append(function(*(values[k] for k in operands)))
        return values[len(leaves) :]

    def __str__(self) -> str:
        kinds = ", ".join(f"{str(x.dtype).removeprefix('torch.')}{list(x.shape)}" for x in self.leaves)
        return (
            f"case {self.seed}: {'; '.join(f'{name} of {operands}' for name, _, operands in self.operations)} ({kinds})"
        )
