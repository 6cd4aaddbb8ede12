# SPDX-License-Identifier: Apache-2.0
"""What context_net_v1.json pins: payloads and values of the random model on every kind of grid."""

from __future__ import annotations

import hashlib
import json

from codec.context_cases import K, fine_model, random_latents, small_model

from otcuda.codec.integer_context import IntegerContext

CASES = [
    ((1, 1), K, None, None),
    ((5, 3), 0, None, None),
    ((17, 9), K, None, None),
    ((17, 9), K, 0.25, None),
    ((8, 24), 255, 0.1, None),
    ((17, 9), K, 0.25, 5),
    ((17, 9), K, None, 6),
]


def golden() -> dict[str, str]:
    entries = []
    for grid, k, multiplier, mean_bits in CASES:
        net = IntegerContext(fine_model(mean_bits) if mean_bits else small_model())
        choice = net.quantise(random_latents(f"golden {grid}", (7, *grid)), k, multiplier)
        payload = net.encode(choice.symbols, k)
        entries.append(
            {
                **({"mean_bits": mean_bits} if mean_bits else {}),
                "grid": grid,
                "k": k,
                "multiplier": multiplier,
                "bytes": len(payload),
                "start": payload[:16].hex(),
                "payload": hashlib.sha256(payload).hexdigest(),
                "values16": hashlib.sha256(choice.values.astype("<i2").tobytes()).hexdigest(),
            }
        )
    return {"context_net_v1.json": json.dumps(entries, indent=1) + "\n"}
