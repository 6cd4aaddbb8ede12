# SPDX-License-Identifier: Apache-2.0
"""Put the weights of a run into the package: python tools/ship_weights.py RUN/weights.safetensors.

The release number rises by one (modulo 7) unless --id says otherwise: files name it in three bits.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "otcuda" / "data" / "weights.safetensors"


def main() -> None:
    """Number the weights and write them where the package looks for them."""
    sys.path.insert(0, str(ROOT))
    from otcuda.codec.bitstream import CUSTOM_MODEL
    from otcuda.codec.model import load_model

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--id", type=int, choices=range(CUSTOM_MODEL))
    options = parser.parse_args()
    model = load_model(options.weights)
    before = load_model(SHIPPED).id if SHIPPED.is_file() else CUSTOM_MODEL - 1
    model.id = (before + 1) % CUSTOM_MODEL if options.id is None else options.id
    model.save(SHIPPED)
    print(f"{SHIPPED.name}: {model}")


if __name__ == "__main__":
    main()
