"""Spiking neurons. Each takes a `bdtorch.Drive` (or a current) and puts out its spikes."""

from bdtorch.neurons._integrate_fire import IntegrateFire as IntegrateFire
from bdtorch.neurons.adaptive import AdEx as AdEx
from bdtorch.neurons.adaptive_threshold import ALIF as ALIF
from bdtorch.neurons.bursting import FitzHughRinzel as FitzHughRinzel
from bdtorch.neurons.bursting import HindmarshRose as HindmarshRose
from bdtorch.neurons.conductance_based import ConductanceBased as ConductanceBased
from bdtorch.neurons.exponential import ExpIF as ExpIF
from bdtorch.neurons.hodgkin_huxley import HodgkinHuxley as HodgkinHuxley
from bdtorch.neurons.hodgkin_huxley import TraubMiles as TraubMiles
from bdtorch.neurons.izhikevich import Izhikevich as Izhikevich
from bdtorch.neurons.leaky import LIF as LIF
from bdtorch.neurons.morris_lecar import MorrisLecar as MorrisLecar
from bdtorch.neurons.refractory import Refractory as Refractory
