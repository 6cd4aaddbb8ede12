# SPDX-License-Identifier: Apache-2.0
"""Semi-discrete optimal transport: problem, solver, maps, sampling. docs/transport.md."""

from otcuda.transport.classes import ClassedOT
from otcuda.transport.distributed import fit_distributed
from otcuda.transport.estimators import Chi2
from otcuda.transport.extended_map import ExtendedMap
from otcuda.transport.fitting import FitResult
from otcuda.transport.semidiscrete import SemiDiscreteOT
from otcuda.transport.sources import Source

__all__ = [
    "Chi2",
    "ClassedOT",
    "ExtendedMap",
    "FitResult",
    "SemiDiscreteOT",
    "Source",
    "fit_distributed",
]
