"""Connectivity: rules that draw who connects to whom, and the data they draw."""

from bdtorch.connect.convert import as_csr as as_csr
from bdtorch.connect.convert import from_edges as from_edges
from bdtorch.connect.convert import from_scipy as from_scipy
from bdtorch.connect.convert import from_sources as from_sources
from bdtorch.connect.convert import from_targets as from_targets
from bdtorch.connect.convert import from_torch as from_torch
from bdtorch.connect.convert import to_edges as to_edges
from bdtorch.connect.convert import to_scipy as to_scipy
from bdtorch.connect.convert import to_torch as to_torch
from bdtorch.connect.data import CSR as CSR
from bdtorch.connect.data import Connectivity as Connectivity
from bdtorch.connect.data import Dense as Dense
from bdtorch.connect.data import Identity as Identity
from bdtorch.connect.groups import Groups as Groups
from bdtorch.connect.procedural import Procedural as Procedural
from bdtorch.connect.procedural import ProceduralNumberPre as ProceduralNumberPre
from bdtorch.connect.procedural import ProceduralProbability as ProceduralProbability
from bdtorch.connect.rules import AllToAll as AllToAll
from bdtorch.connect.rules import FixedNumberPost as FixedNumberPost
from bdtorch.connect.rules import FixedNumberPre as FixedNumberPre
from bdtorch.connect.rules import FixedProbability as FixedProbability
from bdtorch.connect.rules import OneToOne as OneToOne
from bdtorch.connect.rules import Rule as Rule
from bdtorch.connect.weights import Weights as Weights
