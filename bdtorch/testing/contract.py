"""All checks at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bdtorch.testing.batch import check_batch, check_vmap, check_vmap_parameters
from bdtorch.testing.calculus import check_gradients, check_linear, check_time
from bdtorch.testing.case import Case
from bdtorch.testing.copies import check_checkpoint, check_copies, check_dtype, check_state_dict
from bdtorch.testing.gradients import check_native_gradients
from bdtorch.testing.loops import check_chunks, check_inductor, check_native
from bdtorch.testing.values import check_determinism, check_purity, check_stability

CHECKS: tuple[Callable[[Case], None], ...] = (
    check_purity,
    check_stability,
    check_determinism,
    check_batch,
    check_vmap,
    check_vmap_parameters,
    check_dtype,
    check_state_dict,
    check_copies,
    check_checkpoint,
    check_gradients,
    check_linear,
    check_time,
    check_chunks,
    check_native,
    check_native_gradients,
    check_inductor,
)
"""Every check, the quick ones first; the last three need compilers."""


def check_contract(case: Case, *, without: Sequence[Callable[[Case], None]] = ()) -> None:
    """Run every check on a case.

    Args:
        case: The model under test.
        without: Checks to leave out, such as `check_inductor`, which compiles for several seconds.

    Raises:
        AssertionError: the model breaks the contract; the message says how.
    """
    for check in CHECKS:
        if check not in without:
            check(case)
