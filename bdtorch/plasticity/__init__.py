"""Plasticity: rules by which the spikes on both sides of a synapse change its weight, as a slot of `Projection`."""

from bdtorch.plasticity._rule import Events as Events
from bdtorch.plasticity._rule import Plasticity as Plasticity
from bdtorch.plasticity.clopath import Clopath as Clopath
from bdtorch.plasticity.inhibitory import VogelsSprekeler as VogelsSprekeler
from bdtorch.plasticity.pair import PairSTDP as PairSTDP
from bdtorch.plasticity.reward import RewardModulatedSTDP as RewardModulatedSTDP
from bdtorch.plasticity.triplet import TripletSTDP as TripletSTDP
