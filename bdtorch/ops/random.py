r"""Random numbers as a function of (key, counter, index), from the generator Philox 4x32-10.

A stream is named by a key of 64 bits. Its numbers at step ``counter`` are

$$x_i = F(\mathrm{key}, \mathrm{counter}, i), \qquad 0 \le i < n$$

and nothing else: not the device, the number of threads, the size of the vector registers, the numbers drawn before, or
``n``. Keys and counters are ordinary tensors, so they belong to a state: they batch, save, and pass through
`torch.func.vmap`. Under `vmap` a key that is not mapped over gives the same numbers to every sample; map over
``make_key(seed, (n_samples,))`` for independent ones.

No gradient flows: keys and counters are integers, and a Bernoulli draw is a step function of its probability.

Source: Salmon, Moraes, Dror & Shaw (2011), doi:10.1145/2063384.2063405.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import torch
from torch import Tensor

from . import _library as _library  # the ops exist once the library is loaded

_random_uniform = torch.ops.bdtorch.random_uniform.default
_random_normal = torch.ops.bdtorch.random_normal.default
_random_exponential = torch.ops.bdtorch.random_exponential.default
_random_bernoulli = torch.ops.bdtorch.random_bernoulli.default

_WORD = 2**64
_GOLDEN_RATIO = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))


def uniform(key: Tensor, counter: Tensor, n: int, *, dtype: torch.dtype) -> Tensor:
    """Draws from the uniform distribution on [0, 1).

    Args:
        key: ``(*batch,)`` int64, one stream for each batch element; 0-d is one stream for all.
        counter: ``(*batch,)`` int64, step of each stream; 0-d is one step for all.
        n: How many numbers for each batch element.
        dtype: float32 (multiples of 2**-24) or float64 (multiples of 2**-53).

    Returns:
        ``(*batch, n)`` of the given dtype.

    Raises:
        TypeError: If a dtype is not one of those above.
        ValueError: If a shape, a device or n does not fit.
    """
    _expect_streams("uniform", key, counter, n)
    _expect_floating("uniform", "dtype", dtype)
    numbers: Tensor = _random_uniform(key, counter, n, dtype)
    return numbers


def normal(key: Tensor, counter: Tensor, n: int, *, dtype: torch.dtype) -> Tensor:
    r"""Draws from the normal distribution of mean 0 and variance 1.

    $$z_{2m} + \mathrm{i} z_{2m+1} = \sqrt{-2 \ln u_m} \; \mathrm{e}^{2 \pi \mathrm{i} v_m}$$

    with independent uniform $u_m, v_m$. Tails end at 6.7 (float32) and 8.7 (float64).

    Args:
        key: ``(*batch,)`` int64, one stream for each batch element; 0-d is one stream for all.
        counter: ``(*batch,)`` int64, step of each stream; 0-d is one step for all.
        n: How many numbers for each batch element.
        dtype: float32 or float64.

    Returns:
        ``(*batch, n)`` of the given dtype.

    Raises:
        TypeError: If a dtype is not one of those above.
        ValueError: If a shape, a device or n does not fit.

    Source: Box & Muller (1958), doi:10.1214/aoms/1177706645.
    """
    _expect_streams("normal", key, counter, n)
    _expect_floating("normal", "dtype", dtype)
    numbers: Tensor = _random_normal(key, counter, n, dtype)
    return numbers


def exponential(key: Tensor, counter: Tensor, n: int, *, dtype: torch.dtype) -> Tensor:
    r"""Draws from the exponential distribution of mean 1: the intervals of a Poisson process of rate 1.

    $$x_i = -\ln u_i$$

    with uniform $u_i$ in (0, 1]. Tails end at 22.2 (float32) and 37.5 (float64).

    Args:
        key: ``(*batch,)`` int64, one stream for each batch element; 0-d is one stream for all.
        counter: ``(*batch,)`` int64, step of each stream; 0-d is one step for all.
        n: How many numbers for each batch element.
        dtype: float32 or float64.

    Returns:
        ``(*batch, n)`` of the given dtype.

    Raises:
        TypeError: If a dtype is not one of those above.
        ValueError: If a shape, a device or n does not fit.
    """
    _expect_streams("exponential", key, counter, n)
    _expect_floating("exponential", "dtype", dtype)
    numbers: Tensor = _random_exponential(key, counter, n, dtype)
    return numbers


def bernoulli(key: Tensor, counter: Tensor, p: Tensor, n: int) -> Tensor:
    r"""Draws events of probability p, with the numbers of `uniform` in the dtype of p.

    $$s_i = [u_i < p_i]$$

    So p <= 0 is never, p >= 1 is always, and NaN is never an event; values are not inspected, since on a GPU that would
    make the host wait on every step. No gradient flows to p.

    Args:
        key: ``(*batch,)`` int64, one stream for each batch element; 0-d is one stream for all.
        counter: ``(*batch,)`` int64, step of each stream; 0-d is one step for all.
        p: ``()``, ``(n,)`` or ``(*batch, n)``, float32 or float64, dimensionless (a rate in kHz times dt in ms).
        n: How many draws for each batch element.

    Returns:
        ``(*batch, n)`` bool.

    Raises:
        TypeError: If a dtype is not one of those above.
        ValueError: If a shape, a device or n does not fit.
    """
    _expect_streams("bernoulli", key, counter, n)
    _expect_parameter("bernoulli", "p", p, key, counter, n)
    events: Tensor = _random_bernoulli(key, counter, p, n)
    return events


def fold(seed: int, *words: int | str) -> int:
    r"""Derives the seed of an independent stream from a seed and the stream's names and indices.

    $$s_{k+1} = \mathrm{mix}(s_k \oplus \mathrm{mix}(w_k + \gamma)) \bmod 2^{64}$$

    Here mix is the finaliser of SplitMix64 and gamma its constant; a string counts as the first eight bytes
    (little-endian) of the BLAKE2b hash of its UTF-8 text. The result is part of the file format of saved states: it is
    the same for all versions and platforms. ``fold(fold(s, a), b) == fold(s, a, b)``.

    Args:
        seed: Any integer in [-2**63, 2**63).
        words: Names and indices (integers in [-2**63, 2**63)) that tell the stream from others of the same seed.

    Returns:
        An integer in [-2**63, 2**63): a key, or the seed of further folds.

    Raises:
        TypeError: If seed is not an integer, or a word neither an integer nor a string.
        ValueError: If an integer is out of range.

    Source: Steele, Lea & Flood (2014), doi:10.1145/2660193.2660195.
    """
    state = _as_word("seed", seed)
    for word in words:
        value = _hash_text(word) if isinstance(word, str) else _as_word("words", word)
        state = _mix(state ^ _mix((value + _GOLDEN_RATIO) % _WORD))
    return _signed(state)


def make_key(seed: int, batch_shape: tuple[int, ...] = (), *, device: torch.device | str | None = None) -> Tensor:
    """Makes the key of a stream, or of one independent stream for each element of a batch.

    The key of the batch element with flat index b is ``fold(seed, b)``. So any element of a batch of keys is the key of
    a single simulation, ``make_key(seed)`` is the first of them, and a larger batch begins with a smaller one.

    Args:
        seed: Any integer in [-2**63, 2**63), for instance ``fold(seed_of_the_network, name_of_the_population)``.
        batch_shape: Shape of the batch.
        device: Where to put the key.

    Returns:
        ``(*batch_shape,)`` int64.

    Raises:
        TypeError: If seed is not an integer.
        ValueError: If seed is out of range.
    """
    element = torch.arange(math.prod(batch_shape), dtype=torch.int64, device=device)
    word = _mix_tensor(element + _signed(_GOLDEN_RATIO))
    return _mix_tensor(word ^ _signed(_as_word("seed", seed))).reshape(batch_shape)


def _mix(word: int) -> int:
    for shift, factor in _MIX:
        word = (word ^ (word >> shift)) * factor % _WORD
    return word


def _mix_tensor(word: Tensor) -> Tensor:
    """`_mix` of int64 bit patterns; products wrap around."""
    for shift, factor in _MIX:
        logical_shift = (word >> shift) & ((1 << (64 - shift)) - 1)
        word = (word ^ logical_shift) * _signed(factor)
    return word


def _signed(word: int) -> int:
    """The int64 with the same bits."""
    return word - _WORD if word >= _WORD // 2 else word


def _as_word(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        expected = "an integer" if name == "seed" else "integers and strings"
        raise TypeError(f"`fold({name}=...)`: expected {expected}, got {value!r}")
    if not -_WORD // 2 <= value < _WORD // 2:
        raise ValueError(f"`fold({name}=...)`: expected integers in [-2**63, 2**63), got {value}")
    return value % _WORD


def _hash_text(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _expect_streams(op: str, key: Tensor, counter: Tensor, n: int) -> None:
    if key.dtype != torch.int64:
        raise TypeError(f"`{op}(key=...)`: expected int64, got {key.dtype}")
    if counter.dtype != torch.int64:
        raise TypeError(f"`{op}(counter=...)`: expected int64, got {counter.dtype}")
    if counter.device != key.device:
        raise ValueError(f"`{op}(counter=...)`: expected the device of key, {key.device}, got {counter.device}")
    if key.dim() and counter.dim() and key.shape != counter.shape:
        raise ValueError(f"`{op}(counter=...)`: expected shape () or {tuple(key.shape)}, got {tuple(counter.shape)}")
    if n < 0:
        raise ValueError(f"`{op}(n=...)`: expected a nonnegative number, got {n}")


def _expect_floating(op: str, name: str, dtype: torch.dtype) -> None:
    if dtype != torch.float32 and dtype != torch.float64:
        raise TypeError(f"`{op}({name}=...)`: expected float32 or float64, got {dtype}")


def _expect_parameter(op: str, name: str, parameter: Tensor, key: Tensor, counter: Tensor, n: int) -> None:
    _expect_floating(op, name, parameter.dtype)
    full_shape = (*_batch_shape(key, counter), n)
    if parameter.dim() and parameter.shape != (n,) and parameter.shape != full_shape:
        raise ValueError(f"`{op}({name}=...)`: expected shape (), ({n},) or {full_shape}, got {tuple(parameter.shape)}")
    if parameter.device != key.device:
        raise ValueError(f"`{op}({name}=...)`: expected the device of key, {key.device}, got {parameter.device}")


def _batch_shape(key: Tensor, counter: Tensor) -> torch.Size:
    return key.shape if key.dim() else counter.shape


def _fake_numbers(key: Tensor, counter: Tensor, n: int, dtype: torch.dtype) -> Tensor:
    return key.new_empty((*_batch_shape(key, counter), n), dtype=dtype)


def _fake_events(key: Tensor, counter: Tensor, p: Tensor, n: int) -> Tensor:
    return key.new_empty((*_batch_shape(key, counter), n), dtype=torch.bool)


def _mapped(tensor: Tensor, dim: int | None, size: int, sample_shape: tuple[int, ...]) -> Tensor:
    """The tensor with the mapped dimension in front and every sample expanded to sample_shape."""
    if dim is None:
        return tensor.expand(size, *sample_shape)
    front = tensor.movedim(dim, 0)
    missing = len(sample_shape) + 1 - front.dim()
    return front.reshape(size, *[1] * missing, *front.shape[1:]).expand(size, *sample_shape)


def _sample_shape(tensor: Tensor, dim: int | None) -> tuple[int, ...]:
    return tuple(size for d, size in enumerate(tensor.shape) if dim is None or d != dim % tensor.dim())


def _mapped_streams(size: int, in_dims: tuple[int | None, ...], key: Tensor, counter: Tensor) -> tuple[Tensor, Tensor]:
    batch = _sample_shape(key, in_dims[0]) or _sample_shape(counter, in_dims[1])
    return _mapped(key, in_dims[0], size, batch), _mapped(counter, in_dims[1], size, batch)


def _vmap_numbers(op: Any) -> Any:
    def rule(info: Any, in_dims: Any, key: Tensor, counter: Tensor, n: int, dtype: torch.dtype) -> tuple[Tensor, int]:
        key, counter = _mapped_streams(info.batch_size, in_dims, key, counter)
        return op(key, counter, n, dtype), 0

    return rule


def _vmap_events(info: Any, in_dims: Any, key: Tensor, counter: Tensor, p: Tensor, n: int) -> tuple[Tensor, int]:
    key, counter = _mapped_streams(info.batch_size, in_dims, key, counter)
    p = _mapped(p, in_dims[2], info.batch_size, (*key.shape[1:], n))
    return _random_bernoulli(key, counter, p, n), 0


torch.library.register_fake(_random_uniform, _fake_numbers)
torch.library.register_fake(_random_normal, _fake_numbers)
torch.library.register_fake(_random_exponential, _fake_numbers)
torch.library.register_fake(_random_bernoulli, _fake_events)
torch.library.register_vmap(_random_uniform, _vmap_numbers(_random_uniform))
torch.library.register_vmap(_random_normal, _vmap_numbers(_random_normal))
torch.library.register_vmap(_random_exponential, _vmap_numbers(_random_exponential))
torch.library.register_vmap(_random_bernoulli, _vmap_events)
