"""The front door to simulations, what they record, and every time loop."""

from bdtorch.simulate.checkpoint import load as load
from bdtorch.simulate.checkpoint import save as save
from bdtorch.simulate.export import export_loop as export_loop
from bdtorch.simulate.inputs import Constant as Constant
from bdtorch.simulate.loops import Inductor as Inductor
from bdtorch.simulate.loops import Loop as Loop
from bdtorch.simulate.loops import LoopError as LoopError
from bdtorch.simulate.loops import Native as Native
from bdtorch.simulate.loops import Reference as Reference
from bdtorch.simulate.records import Record as Record
from bdtorch.simulate.records import Spikes as Spikes
from bdtorch.simulate.records import spikes as spikes
from bdtorch.simulate.records import trace as trace
from bdtorch.simulate.simulate import simulate as simulate
from bdtorch.simulate.solution import Solution as Solution
from bdtorch.simulate.stateful import Stateful as Stateful
from bdtorch.simulate.stream import StoredRecords as StoredRecords
from bdtorch.simulate.stream import load_records as load_records
from bdtorch.simulate.windows import Windows as Windows
