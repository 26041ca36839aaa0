"""One visit to stored weights where two operations would make one each."""

from __future__ import annotations

from bdtorch.simulate.loops.native.graph import Node
from bdtorch.simulate.loops.native.kernel import kernel_reads
from bdtorch.simulate.loops.native.operations import VISITS
from bdtorch.simulate.loops.native.plan import Plan


def share_visits(plan: Plan) -> None:
    """Let a product with the weights of neurons that spike, and the change of these weights in place, be one kernel.

    What such neurons' synapses cost is fetching them from memory, so the second of two visits is nearly all that both
    would take more than one. The product moves to the change where nothing needs it before, and leaves an empty kernel.
    """
    for late, kernel in enumerate(plan.kernels):
        if kernel.fused or len(kernel.nodes) != 1 or kernel.nodes[0].op not in VISITS:
            continue
        (change,) = kernel.nodes
        if plan.refs[change].buffer.home is not plan.refs[change.args[0]].buffer.home:
            continue  # changes a copy
        for early, other in enumerate(plan.kernels[:late]):
            if not other.fused and len(other.nodes) == 1 and _is_alike(other.nodes[0], change):
                (product,) = other.nodes
                home = plan.refs[product].buffer.home
                between = [ref for k in plan.kernels[early + 1 : late + 1] for ref in kernel_reads(k, plan.refs)]
                if all(ref.buffer.home is not home for ref in between):
                    kernel.nodes = [product, change]
                    other.nodes, other.stores, other.fused = [], {}, True
                    break


def _is_alike(product: Node, change: Node) -> bool:
    """Whether a product reads the very weights that change, for the same spikes and along the same side."""
    by_columns = change.args[-1]
    return product.op == VISITS[change.op][by_columns] and product.args == (change.args[1], change.args[0])
