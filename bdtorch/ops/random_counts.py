r"""Random counts as a function of (key, counter, index): Poisson and binomial, the streams of `bdtorch.ops.random`.

The laws are exact, computed in double precision whatever the dtype of the parameters, and the same to the bit on every
device. Small means invert the distribution function; from a mean of 10 on, candidates are accepted or rejected. Values
are not inspected, since on a GPU that would make the host wait on every step: an invalid parameter gives the count -1.
No gradient flows.

Sources: Hoermann (1993), doi:10.1016/0167-6687(93)90997-4 (Poisson) and doi:10.1080/00949659308811496 (binomial).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bdtorch.ops.random import (
    _batch_shape,
    _expect_parameter,
    _expect_streams,
    _mapped,
    _mapped_streams,
)

_random_poisson = torch.ops.bdtorch.random_poisson.default
_random_binomial = torch.ops.bdtorch.random_binomial.default


def poisson(key: Tensor, counter: Tensor, rate: Tensor, n: int) -> Tensor:
    r"""Draws counts of mean `rate`.

    $$P(k) = \mathrm{e}^{-\lambda} \lambda^k / k!$$

    Args:
        key: ``(*batch,)`` int64, one stream for each batch element; 0-d is one stream for all.
        counter: ``(*batch,)`` int64, step of each stream; 0-d is one step for all.
        rate: Mean counts, ``()``, ``(n,)`` or ``(*batch, n)``, float32 or float64, in [0, 2**31] (a rate in kHz times dt
            in ms); others give -1.
        n: How many counts for each batch element, below 2**40.

    Returns:
        ``(*batch, n)`` int64.

    Raises:
        TypeError: If a dtype is not one of those above.
        ValueError: If a shape, a device or n does not fit.
    """
    _expect_streams("poisson", key, counter, n)
    _expect_parameter("poisson", "rate", rate, key, counter, n)
    counts: Tensor = _random_poisson(key, counter, rate, n)
    return counts


def binomial(key: Tensor, counter: Tensor, trials: int, p: Tensor, n: int) -> Tensor:
    r"""Draws how many of `trials` independent trials succeed.

    $$P(k) = \binom{N}{k} p^k (1 - p)^{N - k}$$

    Args:
        key: ``(*batch,)`` int64, one stream for each batch element; 0-d is one stream for all.
        counter: ``(*batch,)`` int64, step of each stream; 0-d is one step for all.
        trials: N, in [0, 2**31).
        p: Probability of success, ``()``, ``(n,)`` or ``(*batch, n)``, float32 or float64, in [0, 1]; others give -1.
        n: How many counts for each batch element, below 2**40.

    Returns:
        ``(*batch, n)`` int64.

    Raises:
        TypeError: If a dtype is not one of those above.
        ValueError: If a shape, a device, trials or n does not fit.
    """
    _expect_streams("binomial", key, counter, n)
    if not 0 <= trials < 2**31:
        raise ValueError(f"`binomial(trials=...)`: expected a number in [0, 2**31), got {trials}")
    _expect_parameter("binomial", "p", p, key, counter, n)
    counts: Tensor = _random_binomial(key, counter, trials, p, n)
    return counts


@torch.library.register_fake(_random_poisson)
def _(key: Tensor, counter: Tensor, rate: Tensor, n: int) -> Tensor:
    return key.new_empty((*_batch_shape(key, counter), n))


@torch.library.register_fake(_random_binomial)
def _(key: Tensor, counter: Tensor, trials: int, p: Tensor, n: int) -> Tensor:
    return key.new_empty((*_batch_shape(key, counter), n))


def _vmap_poisson(info: Any, in_dims: Any, key: Tensor, counter: Tensor, rate: Tensor, n: int) -> tuple[Tensor, int]:
    key, counter = _mapped_streams(info.batch_size, in_dims, key, counter)
    rate = _mapped(rate, in_dims[2], info.batch_size, (*key.shape[1:], n))
    return _random_poisson(key, counter, rate, n), 0


def _vmap_binomial(
    info: Any, in_dims: Any, key: Tensor, counter: Tensor, trials: int, p: Tensor, n: int
) -> tuple[Tensor, int]:
    key, counter = _mapped_streams(info.batch_size, in_dims, key, counter)
    p = _mapped(p, in_dims[3], info.batch_size, (*key.shape[1:], n))
    return _random_binomial(key, counter, trials, p, n), 0


torch.library.register_vmap(_random_poisson, _vmap_poisson)
torch.library.register_vmap(_random_binomial, _vmap_binomial)
