# SPDX-License-Identifier: Apache-2.0
"""The command line: one thin function a verb, no logic.

stdout carries data or JSON, stderr all talk; a progress bar is drawn only on a terminal.
Exit codes: 0 done, 1 bad input or failed work, 2 wrong usage, 3 part of a batch failed, 4 the
budget cannot be met, 130 Ctrl-C, 141 nobody reads the output any more.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import click

import otcuda
from otcuda import batch
from otcuda._torch import INSTALL
from otcuda.cli.models import doctor, evaluate, sample, train
from otcuda.cli.pictures import compress, decompress, demo, info
from otcuda.cli.talk import BUDGET, CLOSED_PIPE, FAILED, INTERRUPTED, USAGE, WIDTH, Talk
from otcuda.cli.transport import solve
from otcuda.errors import BudgetError, Error, Interrupted, Notice


class _ClosedPipe(Exception):  # noqa: N818 - click would make exit code 1 of an OSError
    """Nobody reads stdout any more."""


class _Verbs(click.Group):
    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)  # in the order in which they were added

    def make_context(self, *arguments: Any, **more: Any) -> click.Context:
        with _told_apart():  # prints the help of `otcuda --help`
            return super().make_context(*arguments, **more)

    def invoke(self, context: click.Context) -> int | None:
        with _told_apart():
            code = super().invoke(context)
            sys.stdout.flush()
        return code


@contextlib.contextmanager
def _told_apart() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise _ClosedPipe from None


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "terminal_width": WIDTH},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 part of a batch failed, 4 the budget "
    "cannot be met, 130 interrupted, 141 nobody read the output.",
)
@click.version_option(otcuda.__version__, prog_name="otcuda")
def cli() -> None:
    """Photographs in 1.5 kB, and optimal transport against millions of points."""


for verb in (demo, compress, decompress, info, evaluate, train, sample, solve, doctor):
    cli.add_command(verb)


def main(arguments: list[str] | None = None) -> int:
    """The command `otcuda`; returns its exit code."""
    talk = Talk()
    with warnings.catch_warnings():
        warnings.simplefilter("always", Notice)
        warnings.showwarning = functools.partial(_show_warning, talk, warnings.showwarning)
        return _run(arguments, talk)


def _run(arguments: list[str] | None, talk: Talk) -> int:
    try:
        code = cli.main(arguments, prog_name="otcuda", standalone_mode=False, obj=talk)
        sys.stdout.flush()  # of --help too
    except (_ClosedPipe, BrokenPipeError):
        _forget_stdout()
        return CLOSED_PIPE
    except (KeyboardInterrupt, click.Abort, Interrupted):
        talk.say("\ninterrupted")
        return INTERRUPTED
    except click.UsageError as error:
        if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
            click.echo(error.format_message(), err=True)  # `otcuda` alone: the help as it is
            return USAGE
        verb = "otcuda" if error.ctx is None else error.ctx.command_path
        talk.error(f"{error.format_message()} (see {verb} --help)")
        return USAGE
    except Exception as error:
        if talk.debug:
            traceback.print_exc()
        talk.error(_explained(error, talk))
        try:
            sys.stdout.flush()
        except (OSError, ValueError):  # it was this that failed
            _forget_stdout()
        return BUDGET if isinstance(error, BudgetError) else FAILED
    return code or 0


def _show_warning(talk: Talk, others: Callable, message: Any, category: Any, *where: Any) -> None:
    if issubclass(category, Notice):
        talk.say(f"otcuda: {message}")
    else:
        others(message, category, *where)


def _explained(error: Exception, talk: Talk) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        talk.file = os.fsdecode(error.filename)
    if isinstance(error, (Error, OSError, MemoryError)):
        return batch.reason_of(error, talk.file)
    if isinstance(error, ImportError) and "torch" in str(error):
        return f"this needs torch: {INSTALL} ({error})"
    kind = type(error).__name__
    return f"internal error: {kind}: {batch.reason_of(error)}; --debug shows where"


def _forget_stdout() -> None:
    """Nobody reads: the interpreter must not fail once more when it flushes at the end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
