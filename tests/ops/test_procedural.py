"""Values of the products with procedural matrices: one matrix for all of them, an oracle of it, bounds and errors."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from bdtorch import ops
from bdtorch.ops import ProceduralMatrix

WORD = 2**32


def philox(key: int, step: int, block: int) -> list[int]:
    """Philox 4x32-10 in whole numbers."""
    c, k = [block % WORD, block // WORD, step % WORD, step // WORD], [key % WORD, key // WORD % WORD]
    for _ in range(10):
        low, high = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [high // WORD ^ c[1] ^ k[0], high % WORD, low // WORD ^ c[3] ^ k[1], low % WORD]
        k = [(k[0] + 0x9E3779B9) % WORD, (k[1] + 0xBB67AE85) % WORD]
    return c


def row_of_probability(matrix: ProceduralMatrix, row: int) -> list[int]:
    assert matrix.p is not None
    n_tiles = max(1, int(matrix.n_post * matrix.p / 512 + 0.5))
    width = -(-matrix.n_post // n_tiles)
    targets = []
    for tile in range(n_tiles):
        position, end = tile * width, min(matrix.n_post, (tile + 1) * width)
        for k in itertools.count():
            u = (philox(matrix.key, row, tile * WORD + k // 4)[k % 4] + 0.5) / WORD
            position += math.floor(math.log(u) / math.log1p(-matrix.p))
            if position >= end:
                break
            targets.append(position)
            position += 1
    return targets


def row_of_number(matrix: ProceduralMatrix, row: int) -> list[int]:
    assert matrix.number is not None
    left = max(2, math.isqrt(matrix.n_post - 1) + 1)
    right = -(-matrix.n_post // left)
    passes = next(n for n in range(1, 7) if max(2, right) ** (3 * n) >= 1e5)
    keys = [philox(matrix.key, row, i // 4)[i % 4] for i in range(6 * passes)]

    def shift(side: int, key: int, modulus: int) -> int:
        h = (side ^ key) * 0x7FEB352D % WORD
        return (h ^ h >> 15) * 0x846CA68B % WORD * modulus // WORD

    def permuted(value: int) -> int:
        l, r = divmod(value, right)  # noqa: E741
        for one, other in zip(keys[::2], keys[1::2], strict=True):
            l = (l + shift(r, one, left)) % left  # noqa: E741
            r = (r + shift(l, other, right)) % right
        return l * right + r

    own = matrix.n_post if matrix.self_offset is None else row + matrix.self_offset
    targets = []
    for k in range(matrix.number):
        value = permuted(k + (k >= own >= 0))
        while value >= matrix.n_post or value == own:
            value = permuted(value)
        targets.append(value)
    return targets


@pytest.mark.parametrize(("n_post", "p"), [(300, 0.05), (20_000, 0.05), (7, 0.5), (100_000, 1e-4)])
def test_rows_of_a_probability_equal_the_oracle(n_post: int, p: float) -> None:
    matrix = ProceduralMatrix(2**31 - 1, n_post, ops.fold(1, "a"), p=p)
    for row in (0, 5, 2**31 - 2):
        _, targets, _ = ops.procedural_rows(torch.tensor([row]), matrix)
        assert targets.tolist() == row_of_probability(matrix, row)


@pytest.mark.parametrize(("n_post", "number"), [(1, 0), (2, 1), (3, 2), (5, 3), (100, 99), (5000, 70), (2**31 - 1, 40)])
@pytest.mark.parametrize("self_offset", [None, 0, -3])
def test_rows_of_a_number_equal_the_oracle(n_post: int, number: int, self_offset: int | None) -> None:
    matrix = ProceduralMatrix(50, n_post, ops.fold(1, "b"), number=number, self_offset=self_offset)
    indptr, targets, _ = ops.procedural_rows(torch.arange(50), matrix)
    for row in range(50):
        assert targets[indptr[row] : indptr[row + 1]].tolist() == row_of_number(matrix, row)


def test_draws_are_the_numbers_of_the_generator_and_do_not_move_synapses() -> None:
    rows = torch.arange(3)
    for law in ({"p": 0.3}, {"number": 25}):
        lists = {
            draws: ops.procedural_rows(rows, ProceduralMatrix(3, 90, 8, **law, draws=draws))
            for draws in ("none", "uniform", "normal")
        }
        indptr, targets, none = lists["none"]
        assert not none.any()
        for draws in ("uniform", "normal"):
            assert torch.equal(lists[draws][0], indptr) and torch.equal(lists[draws][1], targets)
        for row in range(3):
            k = slice(int(indptr[row]), int(indptr[row + 1]))
            words = [philox(8, row, 2**31 + i // 4)[i % 4] >> 8 for i in range(k.stop - k.start)]
            assert torch.equal(lists["uniform"][2][k], torch.tensor(words) * 2.0**-24)


LAWS: list[dict[str, Any]] = [
    {"p": 0.15},
    {"number": 23},
    {"p": 0.15, "self_offset": -20},
    {"number": 23, "self_offset": 9},
]


def make_operands(
    matrix: ProceduralMatrix, dtype: torch.dtype, event: bool, batch: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Spikes of both sides, about 30 % active, offset and scale."""
    generator = torch.Generator().manual_seed(0)

    def spikes(n: int) -> Tensor:
        active = torch.rand((*batch, n), generator=generator) < 0.3
        return active if event else (active * torch.randn((*batch, n), generator=generator)).to(dtype)

    scale = None if matrix.draws == "none" else torch.tensor(0.3, dtype=dtype)
    return spikes(matrix.n_pre), spikes(matrix.n_post), torch.tensor(0.7, dtype=dtype), scale


def listed(matrix: ProceduralMatrix, offset: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, indices and indptr of the stored matrix, in the order of the rows' drawing."""
    indptr, targets, draws = ops.procedural_rows(torch.arange(matrix.n_pre), matrix)
    return offset if scale is None else offset + scale * draws.to(offset.dtype), targets, indptr


@pytest.mark.parametrize("batch", [(), (1,), (11,), (2, 2), (0,)], ids=str)
@pytest.mark.parametrize("law", LAWS, ids=str)
def test_products_equal_those_of_the_stored_matrix_to_the_bit(law: dict[str, Any], batch: tuple[int, ...]) -> None:
    for draws, dtype, event in itertools.product(_draws(), [torch.float32, torch.float64], [False, True]):
        matrix = ProceduralMatrix(150, 130, 4, draws=draws, **law)
        pre, post, offset, scale = make_operands(matrix, dtype, event, batch)
        stored = listed(matrix, offset, scale)
        y = ops.procedural_event(pre, offset, scale, matrix)
        assert y.dtype == dtype and torch.equal(y, stored_event(pre, *stored, matrix.n_post))
        x = ops.procedural_gather(post, offset, scale, matrix)
        assert x.dtype == dtype and torch.equal(x, stored_gather(post, *stored))


def stored_event(spikes: Tensor, weights: Tensor, indices: Tensor, indptr: Tensor, n_post: int) -> Tensor:
    """The product with synapses in the order of their drawing, which the door refuses: that of a number does not ascend."""
    flat = spikes.flatten(0, -2) if spikes.dim() > 2 else spikes
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads find their targets in ascending rows
    try:
        y: Tensor = torch.ops.bdtorch._event_csr_raw(flat, weights, indices, indptr, n_post)
    finally:
        torch.set_num_threads(threads)
    return y.reshape(*spikes.shape[:-1], n_post)


def stored_gather(spikes: Tensor, weights: Tensor, indices: Tensor, indptr: Tensor) -> Tensor:
    flat = spikes.flatten(0, -2) if spikes.dim() > 2 else spikes
    x: Tensor = torch.ops.bdtorch._event_csr_t_raw(flat, weights, indices, indptr)
    return x.reshape(*spikes.shape[:-1], len(indptr) - 1)


def _draws() -> tuple[str, ...]:
    return ("none", "uniform", "normal")


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (1, 1), (7, 5), (65, 64), (1000, 300)], ids=str)
@pytest.mark.parametrize(
    "law", [{"p": 0.0}, {"p": 1e-3}, {"p": 0.1}, {"p": 1.0}, {"number": 0}, {"number": -1}], ids=str
)
def test_shapes_and_densities(shape: tuple[int, int], law: dict[str, Any]) -> None:
    law = {"number": shape[1]} if law.get("number") == -1 else law
    matrix = ProceduralMatrix(*shape, 4, **law)
    pre, post, offset, _ = make_operands(matrix, torch.float32, True, (2,))
    weights, indices, indptr = listed(matrix, offset, None)
    assert torch.equal(ops.procedural_counts(torch.arange(shape[0]), matrix), indptr.diff())
    if law in ({"p": 1.0}, {"number": shape[1]}):
        assert torch.equal(indices.reshape(shape).sort().values, torch.arange(shape[1]).expand(shape).int())
    if law in ({"p": 0.0}, {"number": 0}):
        assert len(indices) == 0
    forward = stored_event(pre, weights, indices, indptr, shape[1])
    assert torch.equal(ops.procedural_event(pre, offset, None, matrix), forward)
    assert torch.equal(ops.procedural_gather(post, offset, None, matrix), stored_gather(post, weights, indices, indptr))


@pytest.mark.parametrize("n_pre", [4, 40])
@pytest.mark.parametrize("law", [{"p": 1.0}, {"p": 0.6}, {"number": 29}], ids=str)
@pytest.mark.parametrize("self_offset", [-35, -5, 0, 3, 29])
def test_no_row_reaches_its_own_target(law: dict[str, Any], self_offset: int, n_pre: int) -> None:
    barred = ProceduralMatrix(n_pre, 30, 6, self_offset=self_offset, **law)
    indptr, targets, _ = ops.procedural_rows(torch.arange(n_pre), barred)
    rows = torch.repeat_interleave(torch.arange(n_pre), indptr.diff())
    assert not (targets == rows + self_offset).any()
    assert len(torch.unique(rows * 30 + targets)) == len(targets)
    if "p" in law:  # nothing else moved
        free = ProceduralMatrix(n_pre, 30, 6, **law)
        all_indptr, all_targets, _ = ops.procedural_rows(torch.arange(n_pre), free)
        all_rows = torch.repeat_interleave(torch.arange(n_pre), all_indptr.diff())
        kept = all_targets != all_rows + self_offset
        assert torch.equal(all_targets[kept], targets) and torch.equal(all_rows[kept], rows)


@pytest.mark.parametrize("batch", [(), (3,)], ids=str)
@pytest.mark.parametrize("law", [{"p": 0.3}, {"p": 1.0}, {"number": 301}], ids=str)
def test_bits_do_not_depend_on_the_number_of_threads(law: dict[str, Any], batch: tuple[int, ...]) -> None:
    # Prime sizes, so that no partition is even, and several tiles a row.
    matrix = ProceduralMatrix(211, 4999, 4, draws="normal", self_offset=3, **law)
    pre, post, offset, scale = make_operands(matrix, torch.float32, False, batch)
    threads = torch.get_num_threads()
    results = []
    try:
        for n_threads in (1, 2, 3, 7):
            torch.set_num_threads(n_threads)
            results.append(
                (
                    ops.procedural_event(pre, offset, scale, matrix),
                    ops.procedural_gather(post, offset, scale, matrix),
                    *ops.procedural_rows(torch.arange(211), matrix),
                )
            )
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))


@pytest.mark.parametrize("law", LAWS[:2], ids=str)
def test_a_batch_equals_its_samples_to_the_bit(law: dict[str, Any]) -> None:
    matrix = ProceduralMatrix(150, 130, 4, draws="uniform", **law)
    pre, post, offset, scale = make_operands(matrix, torch.float32, False, (19,))
    y, x = ops.procedural_event(pre, offset, scale, matrix), ops.procedural_gather(post, offset, scale, matrix)
    for b in range(19):
        assert torch.equal(y[b], ops.procedural_event(pre[b], offset, scale, matrix))
        assert torch.equal(x[b], ops.procedural_gather(post[b], offset, scale, matrix))


@pytest.mark.parametrize("law", LAWS[:2], ids=str)
def test_both_precisions_meet_the_same_matrix(law: dict[str, Any]) -> None:
    matrix = ProceduralMatrix(150, 130, 4, draws="normal", **law)
    pre, _, offset, scale = make_operands(matrix, torch.float64, True, ())
    assert scale is not None
    single = ops.procedural_event(pre, offset.float(), scale.float(), matrix)
    torch.testing.assert_close(single.double(), ops.procedural_event(pre, offset, scale, matrix), rtol=1e-5, atol=1e-5)


def test_rows_are_listed_in_any_order() -> None:
    matrix = ProceduralMatrix(40, 100, 4, p=0.2, draws="normal")
    indptr, targets, draws = ops.procedural_rows(torch.arange(40), matrix)
    picked, some_targets, some_draws = ops.procedural_rows(torch.tensor([7, 3, 7]), matrix)
    for position, row in enumerate((7, 3, 7)):
        here, there = slice(*picked[position : position + 2].tolist()), slice(*indptr[row : row + 2].tolist())
        assert torch.equal(some_targets[here], targets[there]) and torch.equal(some_draws[here], draws[there])


def test_spikes_need_not_be_contiguous() -> None:
    matrix = ProceduralMatrix(60, 40, 4, p=0.2)
    pre, _, offset, _ = make_operands(matrix, torch.float32, False, (5,))
    strided = torch.stack([pre, pre], -1)[..., 1]
    assert not strided.is_contiguous()
    assert torch.equal(
        ops.procedural_event(strided, offset, None, matrix), ops.procedural_event(pre, offset, None, matrix)
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n_pre": -1}, r"n_pre=\.\.\.\)`: expected an integer in \[0, 2147483648\), got -1"),
        ({"n_post": 2**31}, r"n_post=.*got 2147483648"),
        ({"n_post": True}, r"n_post=.*got True"),
        ({"key": 2**63}, "key=.*got 9223372036854775808"),
        ({"p": 1.5}, r"p=\.\.\.\)`: expected a probability in \[0, 1\], got 1.5"),
        ({"p": math.nan}, "p=.*got nan"),
        ({"p": None}, r"p=\.\.\., number=\.\.\.\)`: expected one of them, got None, None"),
        ({"number": 2}, "p=.*number=.*got 0.5, 2"),
        ({"p": None, "number": 6}, r"number=\.\.\.\)`: expected an integer in \[0, 6\), got 6"),
        ({"p": None, "number": 5, "self_offset": 1}, r"number=.*in \[0, 5\), got 5"),
        ({"p": None, "number": 2.0}, r"number=.*got 2\.0"),
        ({"draws": "cauchy"}, "draws=.*expected one of none, uniform, normal, got 'cauchy'"),
        ({"self_offset": 2**31}, "self_offset=.*got 2147483648"),
    ],
)
def test_a_matrix_names_a_bad_argument(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"`ProceduralMatrix\({message}"):
        ProceduralMatrix(**({"n_pre": 4, "n_post": 5, "key": 0, "p": 0.5} | changed))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"spikes": torch.zeros(4, dtype=torch.float64)}, TypeError, "spikes=.*bool or torch.float32, got torch.float64"),
        ({"spikes": torch.zeros(5)}, ValueError, r"spikes=.*expected shape \(\*batch, 4\), got \(5,\)"),
        ({"spikes": torch.tensor(True)}, ValueError, r"spikes=.*got \(\)"),
        ({"offset": torch.zeros((), dtype=torch.float16)}, TypeError, "offset=.*got torch.float16"),
        ({"offset": torch.zeros(1)}, ValueError, r"offset=.*expected shape \(\), got \(1,\)"),
        ({"offset": torch.zeros((), device="meta")}, ValueError, "offset=.*expected the device of spikes, cpu, got meta"),
        ({"scale": None}, ValueError, "scale=.*expected a tensor for normal draws, got None"),
        ({"scale": torch.zeros((), dtype=torch.float64)}, TypeError, "scale=.*the dtype of offset, torch.float32"),
        ({"matrix": ProceduralMatrix(4, 5, 0, p=0.5)}, ValueError, "scale=.*expected None for a matrix without draws"),
    ],
)  # fmt: skip
def test_products_name_a_bad_argument(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    matrix = ProceduralMatrix(4, 5, 0, p=0.5, draws="normal")
    arguments = {"spikes": torch.ones(4), "offset": torch.ones(()), "scale": torch.ones(()), "matrix": matrix}
    ops.procedural_event(**arguments)
    with pytest.raises(error, match=rf"`procedural_event\({message}"):
        ops.procedural_event(**(arguments | changed))


def test_rows_name_a_bad_argument() -> None:
    matrix = ProceduralMatrix(4, 5, 0, p=0.5)
    with pytest.raises(ValueError, match=r"`procedural_rows\(rows=.*in \[0, 4\), got 4 at position 1"):
        ops.procedural_rows(torch.tensor([0, 4]), matrix)
    with pytest.raises(TypeError, match=r"`procedural_counts\(rows=.*expected int64, got torch.int32"):
        ops.procedural_counts(torch.tensor([0], dtype=torch.int32), matrix)
    with pytest.raises(ValueError, match=r"`procedural_counts\(rows=.*got \(1, 1\) on cpu"):
        ops.procedural_counts(torch.tensor([[0]]), matrix)


def test_raw_calls_with_wrong_arguments_raise() -> None:
    spikes, one = torch.ones(4), torch.ones(())
    call = torch.ops.bdtorch.procedural_event
    with pytest.raises(RuntimeError, match=r"spikes=.*expected shape \(4,\)"):
        call(spikes[:3], one, None, 4, 5, 0, 0.5, None, 0, 5)
    with pytest.raises(RuntimeError, match=r"expected either p or number"):
        call(spikes, one, None, 4, 5, 0, 0.5, 2, 0, 5)
    with pytest.raises(RuntimeError, match=r"number=.*expected at most 4 synapses of a row, got 5"):
        call(spikes, one, None, 4, 5, 0, None, 5, 0, 1)
    with pytest.raises(RuntimeError, match=r"draws=.*expected 0, 1 or 2, got 3"):
        call(spikes, one, one, 4, 5, 0, 0.5, None, 3, 5)
    with pytest.raises(RuntimeError, match=r"rows=.*in \[0, 4\), got 9 at position 0"):
        torch.ops.bdtorch.procedural_rows(torch.tensor([9]), 4, 5, 0, 0.5, None, 0, 5)
