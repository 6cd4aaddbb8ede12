# SPDX-License-Identifier: Apache-2.0
"""Training of the codec, stage by stage: `autoencoder`, `entropy`, `noise`, `transport`, `gan`."""

from otcuda._torch import need_torch

need_torch("training")
