"""Settings that stand once: each is a field of a dataclass, with its range, its choices and its help.

Recipe files, command lines, checks and docstrings are made from those fields. Precedence: default < recipe < flag.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from hcr.errors import UsageError

Settings = TypeVar("Settings", bound=type)
_METADATA = "setting"
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text in quotes"}


@dataclass(frozen=True)
class Setting:
    """What a field of a settings class says of itself, beside its name, type and default.

    help: one sentence or two, for `--help` and the docstring alike.
    low, high: the bounds, both allowed; None for no bound.
    choices: the values allowed; () for any.
    usual: in words, what is used where the default says nothing by itself.
    metavar: how help names the value; "" for its type.
    alone: the value of a flag that stands alone; None where it cannot.
    """

    help: str
    low: Any = None
    high: Any = None
    choices: tuple[str, ...] = ()
    usual: str = ""
    metavar: str = ""
    alone: Any = None


def setting(default: Any, help: str, low: Any = None, high: Any = None, **more: Any) -> Any:
    """Declare a field of a settings class: its default, and the parts of a `Setting`."""
    return dataclasses.field(default=default, metadata={_METADATA: Setting(help, low, high, **more)})


def settings_of(settings: type) -> dict[str, Setting]:
    """Return the settings of a class by name, in their order."""
    return {field.name: field.metadata[_METADATA] for field in dataclasses.fields(settings)}


def type_of(settings: type, name: str) -> type:
    """Return a setting's type: bool, int, float, str or tuple. None, which means "nobody chose", is left out."""
    hint = get_type_hints(settings)[name]
    if get_origin(hint) is types.UnionType:
        # Of int | float the wider one.
        hint = [part for part in get_args(hint) if part is not type(None)][-1]
    found: type = get_origin(hint) or hint
    return found


def flag_of(name: str) -> str:
    """Return the flag that sets `name` on a command line, as errors name it."""
    return f"--{name.replace('_', '-')}"


def check_settings(settings: Any) -> None:
    """Check an object's settings against their ranges and choices. Raises: UsageError for the first that is outside."""
    for name, declared in settings_of(type(settings)).items():
        value = getattr(settings, name)
        if value is None:
            continue
        if declared.choices and value not in declared.choices:
            raise UsageError(f"{flag_of(name)} {value!r}: expected one of {', '.join(declared.choices)}")
        if (declared.low is not None and value < declared.low) or (declared.high is not None and value > declared.high):
            bounds = f"{declared.low} or more" if declared.high is None else f"{declared.low} to {declared.high}"
            raise UsageError(f"{flag_of(name)} {value}: expected {bounds}")


def described(settings: Settings) -> Settings:
    """Add a line for each setting to the class's docstring, before its example: its default and its help."""
    lines = [
        f"        {name} ({declared.usual or repr(getattr(settings, name))}): {declared.help}"
        for name, declared in settings_of(settings).items()
    ]
    text, mark, example = (settings.__doc__ or "").partition("\n    Example:\n")
    settings.__doc__ = "\n".join([text, "    Settings:", *lines, ""]) + mark + example
    return settings


def read_recipe(path: Path, settings: type) -> dict[str, Any]:
    """Read a recipe: a TOML file of `key = value` lines whose keys are fields of `settings` ("-" may stand for "_").

    A misspelt setting that is silently passed over costs a night of training, so an unknown key is an error.
    Raises: UsageError for an unreadable file, an unknown key (with the nearest one), or a value of another type.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot read the recipe ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not TOML ({error})") from None
    names = list(settings_of(settings))
    values = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
            raise UsageError(f"{path}: unknown key {key!r}: {hint}")
        values[name] = _checked(path, key, value, type_of(settings, name))
    return values


def _checked(path: Path, key: str, value: Any, expected: type) -> Any:
    if expected is float and type(value) is int:
        return float(value)
    if expected is tuple:
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            return tuple(value)
        raise UsageError(f'{path}: {key} = {value!r}: expected a list of texts like ["one", "other"]')
    if type(value) is not expected:
        raise UsageError(f"{path}: {key} = {value!r}: expected {_WORDS[expected]}")
    return value
