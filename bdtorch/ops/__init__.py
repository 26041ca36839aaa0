"""Operators: typed doors to the compiled kernels, differentiable where mathematics lets them be."""

from bdtorch.ops._library import include_dir as include_dir
from bdtorch.ops.event_csr import check_csr as check_csr
from bdtorch.ops.event_csr import csr_outer as csr_outer
from bdtorch.ops.event_csr import event_csr as event_csr
from bdtorch.ops.event_csr import event_csr_t as event_csr_t
from bdtorch.ops.procedural import ProceduralMatrix as ProceduralMatrix
from bdtorch.ops.procedural import procedural_counts as procedural_counts
from bdtorch.ops.procedural import procedural_event as procedural_event
from bdtorch.ops.procedural import procedural_gather as procedural_gather
from bdtorch.ops.procedural import procedural_rows as procedural_rows
from bdtorch.ops.random import bernoulli as bernoulli
from bdtorch.ops.random import exponential as exponential
from bdtorch.ops.random import fold as fold
from bdtorch.ops.random import make_key as make_key
from bdtorch.ops.random import normal as normal
from bdtorch.ops.random import uniform as uniform
from bdtorch.ops.random_counts import binomial as binomial
from bdtorch.ops.random_counts import poisson as poisson
from bdtorch.ops.segments import pre2post as pre2post
from bdtorch.ops.segments import pre2syn as pre2syn
from bdtorch.ops.segments import segment_max as segment_max
from bdtorch.ops.segments import segment_mean as segment_mean
from bdtorch.ops.segments import segment_min as segment_min
from bdtorch.ops.segments import segment_softmax as segment_softmax
from bdtorch.ops.segments import segment_sum as segment_sum
from bdtorch.ops.segments import syn2post as syn2post
