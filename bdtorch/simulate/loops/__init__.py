"""Time loops. All are interchangeable; `bdtorch.simulate` takes one by name or as an object."""

from bdtorch.simulate.loops._loop import Loop as Loop
from bdtorch.simulate.loops._loop import LoopError as LoopError
from bdtorch.simulate.loops.inductor import Inductor as Inductor
from bdtorch.simulate.loops.native import Native as Native
from bdtorch.simulate.loops.reference import Reference as Reference
