"""Stimuli: functions of time, and sources that are parts of a network."""

from bdtorch.stimuli.deterministic import Ramp as Ramp
from bdtorch.stimuli.deterministic import Step as Step
from bdtorch.stimuli.ornstein_uhlenbeck import OrnsteinUhlenbeck as OrnsteinUhlenbeck
from bdtorch.stimuli.poisson import Poisson as Poisson
