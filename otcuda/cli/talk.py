# SPDX-License-Identifier: Apache-2.0
"""What every verb shares: talk on stderr, JSON on stdout, options, exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

from otcuda import batch
from otcuda.errors import ArgumentError

FAILED, USAGE, PARTLY, BUDGET, INTERRUPTED, CLOSED_PIPE = 1, 2, 3, 4, 130, 141
WIDTH = 80
PATIENCE = 0.5  # seconds before a bar is drawn: drawing takes 0.2 itself


class Talk:
    """What goes to stderr, and the switches that say how much of it."""

    def __init__(self) -> None:
        self.quiet = self.verbose = self.debug = False
        self.color: bool | None = False if os.environ.get("NO_COLOR") else None
        self.file: str | None = None  # what an error is about

    def say(self, text: str) -> None:
        """One message, unless --quiet."""
        if not self.quiet:
            click.echo(text, err=True)

    def detail(self, text: str) -> None:
        """One message with --verbose."""
        if self.verbose:
            self.say(text)

    def error(self, text: str) -> None:
        """Why it failed, in lines of at most 80 columns."""
        if self.file is not None:
            text = f"{batch.shown(self.file)}: {text}"
        lines = textwrap.wrap(
            f"otcuda: {text}",
            WIDTH,
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        click.secho("\n".join(lines), err=True, fg="red", color=self.color)

    @contextlib.contextmanager
    def progress(self, label: str, total: float) -> Iterator[Callable[[float, str], None]]:
        """Gives a function(done, what) that moves a bar.

        The bar appears when work has taken a while; without a terminal it never does.
        """
        if self.quiet or not sys.stderr.isatty():
            yield lambda done, what: None
            return
        start = time.monotonic()
        with contextlib.ExitStack() as stack:
            drawn: list[Callable[[float, str], None]] = []

            def move(done: float, what: str) -> None:
                if not drawn:
                    if time.monotonic() - start < PATIENCE:
                        return
                    drawn.append(stack.enter_context(self._bar(label, total)))
                drawn[0](done, what)

            yield move

    @contextlib.contextmanager
    def _bar(self, label: str, total: float) -> Iterator[Callable[[float, str], None]]:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True, no_color=self.color is False)
        columns = [
            TextColumn("{task.description}"),
            BarColumn(24),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[what]}"),
        ]
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(label, total=total, what="")
            yield lambda done, what: bar.update(task, completed=done, what=what)


talks = click.make_pass_decorator(Talk)


def _switch(name: str) -> Callable[..., None]:
    def store(context: click.Context, _: click.Parameter, value: Any) -> None:
        talk = context.find_object(Talk)
        if name == "color" and value != "auto":
            talk.color = context.color = value == "always"
        elif name != "color":
            setattr(talk, name, value)

    return store


def talk_options(command: Callable) -> Callable:
    """The switches of `Talk`, on every verb."""
    for option in (
        click.option(
            "--debug",
            is_flag=True,
            expose_value=False,
            callback=_switch("debug"),
            help="Show tracebacks.",
        ),
        click.option(
            "--color",
            type=click.Choice(["auto", "always", "never"]),
            default="auto",
            expose_value=False,
            callback=_switch("color"),
            help="Colour of messages.",
        ),
        click.option(
            "-v",
            "--verbose",
            is_flag=True,
            expose_value=False,
            callback=_switch("verbose"),
            help="Say more.",
        ),
        click.option(
            "-q",
            "--quiet",
            is_flag=True,
            expose_value=False,
            callback=_switch("quiet"),
            help="Say nothing but errors.",
        ),
    ):
        command = option(command)
    return command


def json_option(command: Callable) -> Callable:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="Results as JSON on stdout.")(
        command
    )


class Effort(click.ParamType):
    """How long the encoder searches: 0 or 1."""

    name = "0..1"

    def convert(self, value: Any, param: Any, context: Any) -> int:
        """("1") -> 1; says where 2 has gone."""
        if str(value) == "2":
            self.fail("effort 2 was taken out: it gained nothing; take 1, the default")
        if str(value) not in ("0", "1"):
            self.fail(f"{value} is not 0 or 1")
        return int(value)


class Shard(click.ParamType):
    """`i/n`, 0 <= i < n."""

    name = "i/n"

    def convert(self, value: Any, param: Any, context: Any) -> tuple[int, int]:
        """("3/64") -> (3, 64)."""
        try:
            index, count = map(int, value.split("/"))
        except ValueError:
            self.fail(f"{value!r} is not two numbers i/n", param, context)
        if not 0 <= index < count:
            self.fail(f"{value}: shards of {count} are 0 to {count - 1}", param, context)
        return index, count


def exists_options(command: Callable) -> Callable:
    """What to do with files that are there already: `exists` is "overwrite", "skip" or None."""
    for option in (
        click.option(
            "-n",
            "--skip-existing",
            "exists",
            flag_value="skip",
            help="Leave out what is there already.",
        ),
        click.option(
            "-f",
            "--force",
            "exists",
            flag_value="overwrite",
            help="Overwrite what is there already.",
        ),
    ):
        command = option(command)
    return command


def batch_options(command: Callable) -> Callable:
    """What `compress` and `decompress` share."""
    command = exists_options(command)
    for option in (
        click.option(
            "--shard",
            type=Shard(),
            default="0/1",
            metavar="I/N",
            help="Do part I of N, counted from 0.",
        ),
        click.option(
            "-j",
            "--jobs",
            type=click.IntRange(1, 1024),
            default=1,
            show_default=True,
            metavar="N",
            help="Pictures at once, each in its own process.",
        ),
        click.option(
            "--model",
            type=click.Path(),
            metavar="PATH",
            help="Weights, or a folder of them; the bundled ones by default.",
        ),
        click.option("-o", "--output", metavar="PATH", help="File, folder, or - for stdout."),
    ):
        command = option(command)
    return talk_options(json_option(command))


def write_json(record: dict[str, Any]) -> None:
    """One object, one line."""
    click.echo(json.dumps(record))


@contextlib.contextmanager
def wrong_usage() -> Iterator[None]:
    """What the caller asked for does not fit together: exit code 2."""
    try:
        yield
    except ArgumentError as error:
        raise click.UsageError(str(error)) from None
