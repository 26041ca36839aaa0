"""Synapses: the time course that a spike starts (at the presynaptic side where it is not linear), and receptors."""

from bdtorch.synapses._presynaptic import Presynaptic as Presynaptic
from bdtorch.synapses._synapse import Synapse as Synapse
from bdtorch.synapses.alpha import Alpha as Alpha
from bdtorch.synapses.exponential import DualExponential as DualExponential
from bdtorch.synapses.exponential import Exponential as Exponential
from bdtorch.synapses.nmda import NMDA as NMDA
from bdtorch.synapses.receptors import Conductance as Conductance
from bdtorch.synapses.receptors import Current as Current
from bdtorch.synapses.receptors import Jump as Jump
from bdtorch.synapses.receptors import MagnesiumBlock as MagnesiumBlock
from bdtorch.synapses.receptors import Receptor as Receptor
from bdtorch.synapses.short_term import ShortTerm as ShortTerm
from bdtorch.synapses.short_term import TsodyksMarkram as TsodyksMarkram
