"""Training: rules that fit readouts to simulated activity. For gradient descent use `torch.optim` as it is."""

from bdtorch.train.cross_validation import Validation as Validation
from bdtorch.train.cross_validation import choose_penalty as choose_penalty
from bdtorch.train.cross_validation import cross_validate as cross_validate
from bdtorch.train.readout import ReadoutFit as ReadoutFit
from bdtorch.train.readout import accuracy as accuracy
from bdtorch.train.readout import one_hot as one_hot
from bdtorch.train.ridge import Ridge as Ridge
