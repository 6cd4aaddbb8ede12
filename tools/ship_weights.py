# SPDX-License-Identifier: Apache-2.0
"""Put the weights of a run into the package: python tools/ship_weights.py RUN/weights.safetensors.

Weights of `--preset high` become `weights-high.safetensors`, those of `middle` likewise, others
`weights.safetensors`. Files name them by four bytes of their digest: the numbers 0 to 6 belong to
the first seven releases for ever, since a file must not be read with other weights than its own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FAMILIES = {
    "low": "weights.safetensors",
    "middle": "weights-middle.safetensors",
    "high": "weights-high.safetensors",
}


def main(arguments: list[str] | None = None, folder: Path = ROOT / "otcuda" / "data") -> None:
    """Write the weights where the package looks for them."""
    sys.path.insert(0, str(ROOT))
    from otcuda.codec.bitstream import CUSTOM_MODEL
    from otcuda.codec.model import load_model

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--family", choices=FAMILIES, help="by default that of the run's preset")
    options = parser.parse_args(arguments)
    model = load_model(options.weights)
    preset = model.training.get("preset")
    target = folder / FAMILIES[options.family or (preset if preset in FAMILIES else "low")]
    model.id = CUSTOM_MODEL
    model.save(target)
    print(f"{target.name}: {model}")


if __name__ == "__main__":
    main()
