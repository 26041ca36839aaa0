"""The contract of a model as checks that run on any `bdtorch.DynamicalSystem`, also on your own.

    from bdtorch.testing import Case, check_contract

    check_contract(Case(lambda: MyNeuron(5), inputs=2.0))

Every check takes a `Case`, returns nothing, and raises an AssertionError that says what was expected and what came.
"""

from bdtorch.testing.batch import check_batch as check_batch
from bdtorch.testing.batch import check_vmap as check_vmap
from bdtorch.testing.batch import check_vmap_parameters as check_vmap_parameters
from bdtorch.testing.calculus import check_gradients as check_gradients
from bdtorch.testing.calculus import check_linear as check_linear
from bdtorch.testing.calculus import check_time as check_time
from bdtorch.testing.case import Case as Case
from bdtorch.testing.contract import CHECKS as CHECKS
from bdtorch.testing.contract import check_contract as check_contract
from bdtorch.testing.copies import check_checkpoint as check_checkpoint
from bdtorch.testing.copies import check_copies as check_copies
from bdtorch.testing.copies import check_dtype as check_dtype
from bdtorch.testing.copies import check_state_dict as check_state_dict
from bdtorch.testing.gradients import check_native_gradients as check_native_gradients
from bdtorch.testing.loops import check_chunks as check_chunks
from bdtorch.testing.loops import check_inductor as check_inductor
from bdtorch.testing.loops import check_native as check_native
from bdtorch.testing.values import check_determinism as check_determinism
from bdtorch.testing.values import check_purity as check_purity
from bdtorch.testing.values import check_stability as check_stability
