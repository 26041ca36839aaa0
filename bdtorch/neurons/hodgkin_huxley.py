"""Two classical membranes, composed from channels."""

from __future__ import annotations

from typing import Any

from bdtorch._types import Size
from bdtorch.channels import Leak, PotassiumHH, PotassiumTM, SodiumHH, SodiumTM
from bdtorch.neurons.conductance_based import ConductanceBased


class HodgkinHuxley(ConductanceBased):
    """The squid axon: channels ``Na``, ``K`` and ``L`` with conductances 120, 36 and 0.3 mS/cm2 at 1 uF/cm2.

    Args:
        size: Shape of the population.
        **options: ``c``, ``v_th``, ``v_init``, ``surrogate``, ``integrator``, ``dtype``, ``device``, as in
            `ConductanceBased`.

    Source: Hodgkin & Huxley (1952), doi:10.1113/jphysiol.1952.sp004764, at a resting potential of -65 mV.
    """

    def __init__(self, size: Size, **options: Any) -> None:
        factory = {key: options[key] for key in ("dtype", "device") if key in options}
        channels = {"Na": SodiumHH(**factory), "K": PotassiumHH(**factory), "L": Leak(0.3, -54.387, **factory)}
        super().__init__(size, channels, **{"c": 1.0, "v_th": 0.0, **options})


class TraubMiles(ConductanceBased):
    """The hippocampal pyramidal cell of the COBAHH benchmark: ``Na`` 20 uS, ``K`` 6 uS and ``L`` 10 nS at 200 pF.

    Args:
        size: Shape of the population.
        **options: ``c``, ``v_th``, ``v_init``, ``surrogate``, ``integrator``, ``dtype``, ``device``, as in
            `ConductanceBased`.

    Source: Traub & Miles (1991), doi:10.1017/CBO9780511895401; Brette et al. (2007), benchmark 3,
        doi:10.1007/s10827-007-0038-6.
    """

    def __init__(self, size: Size, **options: Any) -> None:
        factory = {key: options[key] for key in ("dtype", "device") if key in options}
        channels = {"Na": SodiumTM(**factory), "K": PotassiumTM(**factory), "L": Leak(10.0, -60.0, **factory)}
        super().__init__(size, channels, **{"c": 200.0, "v_th": -20.0, **options})
