"""Reservoirs: fixed dynamical systems whose activity a trained readout reads. They count in steps, not in ms."""

from bdtorch.reservoirs.echo_state import EchoState as EchoState
from bdtorch.reservoirs.next_generation import NextGeneration as NextGeneration
from bdtorch.reservoirs.polynomial import polynomial_count as polynomial_count
from bdtorch.reservoirs.polynomial import polynomial_features as polynomial_features
