# SPDX-License-Identifier: Apache-2.0
"""`python -m otcuda` is the command `otcuda`."""

import sys

from otcuda.cli import main

if __name__ == "__main__":
    sys.exit(main())
