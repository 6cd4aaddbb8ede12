# SPDX-License-Identifier: Apache-2.0
"""What power_argmax_v1.npz pins: winners and value bits of every case at the portable level."""

import io

import argmax_cases
import numpy as np

import otcuda


def golden() -> dict[str, bytes]:
    otcuda.set_simd_level("portable")
    values, indices = [], []
    for _, x, y, h in argmax_cases.cases():
        value, index = otcuda.power_argmax(x, y, h)
        values.append(value.view("u4"))
        indices.append(index.astype("i4"))
    otcuda.set_simd_level("auto")
    file = io.BytesIO()
    np.savez_compressed(file, bits=np.concatenate(values), index=np.concatenate(indices))
    return {"power_argmax_v1.npz": file.getvalue()}
