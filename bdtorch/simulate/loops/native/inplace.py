"""Changing parts of a tensor in its own memory, where the graph makes a new tensor of it."""

from __future__ import annotations

from bdtorch.simulate.loops.native.graph import Node
from bdtorch.simulate.loops.native.memory import Buffer, Ref
from bdtorch.simulate.loops.native.operations import UPDATES


def update_in_place(
    makers: list[Node | None],
    reads: list[list[Ref]],
    refs: dict[Node, Ref],
    state: dict[int, Buffer],
    sources: dict[int, tuple[Node, Ref]],
    observed: list[Ref],
) -> None:
    """Let operations of `UPDATES` write over their first operand where that is the end of it.

    Args:
        makers: The operation of every kernel, in order; None for an element-wise pass.
        reads: What every kernel reads.
        refs: Where every node in memory lies; the buffers of results that may share memory become aliases.
        state: The buffer of every state.
        sources: For every state that changes, the node that makes its new value.
        observed: What is read after the kernels.
    """
    for number, node in enumerate(makers):
        if node is None or node.op not in UPDATES:
            continue
        old, new = refs[node.args[0]], refs[node]
        home = old.buffer.home
        renewed = {k for k in sources if state[k] is home}
        lost = home.role == "temporary" or renewed  # an unchanged state must last, as must constants and inputs
        elsewhere = home.role == "state" and {k for k, (made, _) in sources.items() if made is node} - renewed
        once = sum(operand is node.args[0] for operand in node.operands()) == 1
        if not lost or elsewhere or not once or not (old.whole and new.whole):
            continue
        needed = [*observed, *(ref for made, ref in sources.values() if made is not node)]
        needed += [ref for later in reads[number + 1 :] for ref in later]
        needed += [ref for ref in reads[number] if ref is not old]
        if all(ref.buffer.home is not home for ref in needed):
            new.buffer.alias = home
