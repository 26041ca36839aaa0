"""Gradients of operations whose own backward operations PyTorch does not take apart."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def weight_norm_backward(g: Tensor, v: Tensor, scale: Tensor, norms: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Of ``scale v / norms``, with a norm for each index along an axis."""
    axes = [axis for axis in range(v.dim()) if axis != dim % v.dim()]
    along = (g * v).sum(axes, keepdim=True)
    return scale / norms * (g - v * along / (norms * norms)), along / norms


def attention_weights(
    q: Tensor, k: Tensor, causal: bool, attn_mask: Tensor | None, scale: float | None
) -> tuple[Tensor, Tensor]:
    """How much of each value attention takes, which is none where all are masked, and what the softmax is taken of."""
    scores = q @ k.transpose(-2, -1) * _scale(q, scale)
    if causal:
        allowed = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril()
        scores = torch.where(allowed, scores, -math.inf)
    if attn_mask is None:
        return torch.softmax(scores, -1), scores
    scores = scores + attn_mask
    return torch.where(scores.amax(-1, keepdim=True) == -math.inf, 0.0, torch.softmax(scores, -1)), scores


def _scale(q: Tensor, scale: float | None) -> float:
    return 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale


def attention_backward(
    g: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, logarithms: Tensor, dropout: float, causal: bool, *,
    attn_mask: Tensor | None = None, scale: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Of ``softmax(q k^T) v`` by ``q``, ``k`` and ``v``."""
    weights, _ = attention_weights(q, k, causal, attn_mask, scale)
    into = weights * (g @ v.mT - (g * out).sum(-1, keepdim=True)) * _scale(q, scale)
    return into @ k, into.mT @ q, weights.mT @ g


def distances_backward(g: Tensor, a: Tensor, b: Tensor, p: float, distances: Tensor) -> Tensor:
    """Of the p-norms of all differences of rows, by the first of them; where two rows are equal, none."""
    difference, g, distances = a.unsqueeze(-2) - b.unsqueeze(-3), g.unsqueeze(-1), distances.unsqueeze(-1)
    if p == 0.0:
        return torch.zeros_like(a)
    if p == math.inf:
        slope = torch.sign(difference) * (difference.abs() == distances)
    elif p == 1.0:
        slope = torch.sign(difference)
    elif p == 2.0:
        slope = difference / torch.where(distances == 0, 1.0, distances)
    else:
        size = torch.where(difference == 0, 1.0, difference.abs())
        slope = torch.sign(difference) * size ** (p - 1) / torch.where(distances == 0, 1.0, distances) ** (p - 1)
    return (g * slope).sum(-2)


def solve_for_gradient(
    a: Tensor,
    of_determinant: bool,
    factors: Tensor,
    pivots: Tensor,
    b: Tensor,
    *,
    left: bool = True,
    adjoint: bool = False,
) -> Tensor:
    """``a.T x = b``, or ``x a.T = b``: what the gradients of solving and of determinants ask for.

    They ask by way of factors, which are those of the transpose where ``a`` is contiguous, and of ``a`` itself otherwise.
    Where a determinant is 0, ``b`` is, and so is what PyTorch makes of it.
    """
    x = torch.linalg.solve_ex(a.mT, b)[0] if left else torch.linalg.solve_ex(a, b.mT)[0].mT
    if not of_determinant:
        return x
    return torch.where((b == 0).all(-1, keepdim=True).all(-2, keepdim=True), 0.0, x)


def solve_by_factors(factors: Tensor, pivots: Tensor, b: Tensor, *, left: bool = True, adjoint: bool = False) -> Any:
    """``A x = b`` by the factors of ``A``, whose rows change places in a way that is known."""
    order, lower, upper = torch.lu_unpack(factors, pivots)
    if not left:
        return solve_by_factors(factors, pivots, b.mT, adjoint=not adjoint).mT
    if adjoint:
        y = torch.linalg.solve_triangular(upper.mT, b, upper=False)
        return order @ torch.linalg.solve_triangular(lower.mT, y, upper=True, unitriangular=True)
    y = torch.linalg.solve_triangular(lower, order.mT @ b, upper=False, unitriangular=True)
    return torch.linalg.solve_triangular(upper, y, upper=True)
