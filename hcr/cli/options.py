"""Command-line options made from a settings class: name, type, default, choices, range and help stand in its fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import click

from hcr.config import Setting, flag_of, settings_of, type_of

Function = TypeVar("Function", bound=Callable[..., Any] | click.Command)


def setting_options(settings: type, *, skip: tuple[str, ...] = ()) -> Callable[[Function], Function]:
    """Return a decorator that gives a command an option for each field of `settings` but `skip`, in their order."""
    names = [name for name in settings_of(settings) if name not in skip]

    def decorate(command: Function) -> Function:
        # The last decorator's option is shown first.
        for name in reversed(names):
            command = _option(settings, name)(command)
        return command

    return decorate


def _option(settings: type, name: str) -> Callable[[Function], Function]:
    declared, expected = settings_of(settings)[name], type_of(settings, name)
    default = {field.name: field.default for field in dataclasses.fields(settings)}[name]
    spelling = flag_of(name)
    given: dict[str, Any] = {"default": default, "help": f"{declared.help}{_bracket(declared, default)}"}
    if expected is bool:
        spelling += f"/--no-{name.replace('_', '-')}" if default else ""
        given["is_flag"] = True
    elif declared.choices:
        given["type"] = click.Choice(declared.choices)
    else:
        # The class checks the range: one message for flags and recipes.
        given |= {"type": str if expected is tuple else expected, "multiple": expected is tuple}
        given["metavar"] = declared.metavar or None
    if declared.alone is not None:
        given |= {"is_flag": False, "flag_value": declared.alone}
    return click.option(spelling, name, **given)


def _bracket(declared: Setting, default: Any) -> str:
    """Return what help says of default and range: "  [default: 20; 1 to 10,000]"."""
    shown = declared.usual or ("on" if default is True else "" if default is False else str(default))
    parts = [f"default: {shown}"] if shown else []
    if declared.bounds:
        parts.append(declared.bounds)
    return f"  [{'; '.join(parts)}]" if parts else ""
