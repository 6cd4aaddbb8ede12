# SPDX-License-Identifier: Apache-2.0
"""Makes golden/context_model_v1.safetensors: python python_tests/codec/train_context_model.py."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

STEPS = 400


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from codec.context_cases import TRAINED, TRAINED_SIZES, structured_latents

    from otcuda.codec.networks import CodecConfig, ContextModel, quantise_noisy

    torch.manual_seed(1)
    model = ContextModel(CodecConfig(**TRAINED_SIZES))
    with torch.no_grad():
        model.channel_scale += 8.0
    optimiser = torch.optim.Adam(model.parameters(), lr=8e-3)
    latents = structured_latents(0, 64, 16)
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = 8e-3 * (1 - step / STEPS)
        batch = latents[torch.arange(8) + 8 * (step % 8)]
        bits = model(batch, 8 + 1.5 * torch.rand(8), quantise_noisy)[1].mean()
        optimiser.zero_grad()
        bits.backward()
        optimiser.step()
    save_file(model.state_dict(), TRAINED)


if __name__ == "__main__":
    main()
