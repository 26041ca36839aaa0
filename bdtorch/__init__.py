"""Brain dynamics in PyTorch: models that are simulated, trained and analysed, from an ion channel to a network."""

from bdtorch import analyze as analyze
from bdtorch import channels as channels
from bdtorch import connect as connect
from bdtorch import init as init
from bdtorch import integrate as integrate
from bdtorch import neurons as neurons
from bdtorch import ops as ops
from bdtorch import plot as plot
from bdtorch import rates as rates
from bdtorch import stimuli as stimuli
from bdtorch import surrogate as surrogate
from bdtorch import synapses as synapses
from bdtorch import train as train
from bdtorch._drive import Drive as Drive
from bdtorch._flow import Flow as Flow
from bdtorch._system import DynamicalSystem as DynamicalSystem
from bdtorch._system import initial_state as initial_state
from bdtorch.network import Delay as Delay
from bdtorch.network import Network as Network
from bdtorch.network import Projection as Projection
from bdtorch.simulate import Constant as Constant
from bdtorch.simulate import Inductor as Inductor
from bdtorch.simulate import LoopError as LoopError
from bdtorch.simulate import Native as Native
from bdtorch.simulate import Record as Record
from bdtorch.simulate import Reference as Reference
from bdtorch.simulate import Solution as Solution
from bdtorch.simulate import Spikes as Spikes
from bdtorch.simulate import Stateful as Stateful
from bdtorch.simulate import load as load
from bdtorch.simulate import save as save
from bdtorch.simulate import simulate as simulate
from bdtorch.simulate import spikes as spikes
from bdtorch.simulate import trace as trace

__version__ = "0.1.0"
