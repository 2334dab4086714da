"""What every command shares: one-line errors with exit codes, progress bars, the options for device and charset."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from hcr.charset import KNOWN
from hcr.errors import HcrError
from hcr.models.device import DEVICES

if TYPE_CHECKING:
    from tqdm import tqdm

Function = TypeVar("Function", bound=Callable[..., Any] | click.Command)

# Threads that wait for each other by spinning hinder themselves as soon as another program uses the cores. Beside one
# such program on two cores training was about twice as fast when they sleep (docs/lab-notes.md), and somewhat slower
# on an idle machine. torch reads this when it is imported, which no command has done yet.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A log file gets a line this often; a terminal gets a bar.
LINE_SECONDS = 30.0


class Command(click.Command):
    """A command that ends an HcrError with one line and its exit code; `--debug` shows the traceback instead."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(["--debug"], is_flag=True, expose_value=False, callback=_keep_debug, help="Show tracebacks.")
        )

    def invoke(self, ctx: click.Context) -> Any:
        utf8_streams()
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # the reader has gone, as with `| head`: click then ends without a message
        except (HcrError, OSError) as error:
            if ctx.meta.get("debug"):
                raise
            if isinstance(error, OSError):
                error = HcrError(f"{error.filename or 'input/output'}: {error.strerror or error}")
            show_error(error)
            ctx.exit(error.exit_code)


def _keep_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.meta["debug"] = value


def show_error(error: HcrError) -> None:
    """Show an error as its one line on stderr."""
    click.echo(f"error: {' '.join(str(error).split())}", err=True)


def utf8_streams() -> None:
    """Write UTF-8 whatever the locale is: characters are the point of every output."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8")


class Meter:
    """A `Progress` on stderr: a bar in a terminal, else a line every 30 seconds; nothing for work under a second.

    start: what was done before, which does not count into the speed.
    about: a few words shown behind the speed.
    """

    def __init__(self, label: str, unit: str) -> None:
        self.label, self.unit, self.about = label, unit, ""
        self.start = self.done = 0
        self._bar: tqdm[NoReturn] | None = None
        self._began = self._shown = 0.0

    def __call__(self, count: int, total: int) -> None:
        from tqdm import tqdm

        if not self.done:
            self._began = self._shown = time.monotonic()
        self.done = max(self.done, self.start) + count
        if sys.stderr.isatty():
            if self._bar is None:
                self._bar = tqdm(
                    desc=self.label, total=total, initial=self.start, unit=self.unit, unit_scale=True, delay=1,
                    dynamic_ncols=True, leave=False,
                )  # fmt: skip
            self._bar.set_postfix_str(self.about, refresh=False)
            self._bar.update(count)
        elif time.monotonic() - self._shown >= LINE_SECONDS:
            self._shown = time.monotonic()
            meter = tqdm.format_meter(
                self.done, total, self._shown - self._began, prefix=self.label, unit=self.unit, unit_scale=True,
                initial=self.start, postfix=self.about, bar_format="{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt} "
                "[{elapsed}<{remaining}, {rate_fmt}{postfix}]",
            )  # fmt: skip
            click.echo(meter, err=True)

    def close(self) -> None:
        """Take the bar off the screen; the next call starts a new one."""
        if self._bar is not None:
            self._bar.close()
        self._bar, self.start, self.done = None, 0, 0


@contextmanager
def meter(label: str, unit: str) -> Iterator[Meter]:
    """Show the progress of what runs inside, in `unit`s."""
    shown = Meter(label, unit)
    try:
        yield shown
    finally:
        shown.close()


def note(message: str) -> None:
    """Show a line on stderr without disturbing a bar."""
    from tqdm import tqdm

    tqdm.write(message, file=sys.stderr)


def _show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        import hcr

        click.echo(f"hcr {hcr.__version__}")
        ctx.exit()


version_option = click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Show the version."
)


device_option = click.option(
    "--device", type=click.Choice(DEVICES), default="auto", show_default=True,
    help="Where to compute; auto: on the GPU if there is one.",
)  # fmt: skip


class RenamedOption(click.Option):
    """An option whose help shows its first spelling only; the others are older ones that still work."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        spellings = self.opts
        self.opts = spellings[:1]
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = spellings


def charset_option(
    purpose: str, *, words: str = "", default: str | None = None, older: tuple[str, ...] = ()
) -> Callable[[Function], Function]:
    """Return the option `--charset`, whose value `Charset.named` reads.

    purpose: what the charset is for, the beginning of the help text.
    words: the values that the command knows beside those of `Charset.named`.
    older: spellings that still work and are not shown.
    """
    values = f"{words}{', '.join(KNOWN)}, or a FILE of characters"
    return click.option(
        "--charset", *older, cls=RenamedOption, default=default, show_default=True, help=f"{purpose}: {values}."
    )
