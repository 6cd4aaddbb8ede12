# SPDX-License-Identifier: Apache-2.0
"""The process `otcuda`, and `python -m otcuda`: what comes before and after the command line."""

import gc
import os
import sys


def main() -> int:
    """The command `otcuda` in a process of its own; returns its exit code."""
    try:
        _replace_closed_streams()
        from otcuda.cli import main as command

        return command()
    except KeyboardInterrupt:  # Ctrl-C while modules are still read
        print("\ninterrupted", file=sys.stderr)  # noqa: T201
        return 130
    finally:
        gc.freeze()  # or the interpreter looks at every object once more before it ends: 40 ms


def _replace_closed_streams() -> None:
    """Where a stream was closed (`<&-`, `>&-`), using it is an error of its own.

    It would be None, and the next file that is opened would get its number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            wrong_way = {"stdin": os.O_WRONLY, "stdout": os.O_RDONLY, "stderr": os.O_WRONLY}[name]
            handle = os.open(os.devnull, wrong_way)  # the lowest that is free: the stream's own
            setattr(sys, name, os.fdopen(handle, mode))


if __name__ == "__main__":
    sys.exit(main())
