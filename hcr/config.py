"""Settings that stand once: each is a field of a dataclass, with its range, its choices and its help.

Recipe files, command lines, checks and docstrings are made from those fields. Precedence: default < recipe < flag.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from hcr.errors import UsageError

Settings = TypeVar("Settings", bound=type)
_METADATA = "setting"
_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text in quotes",
    tuple: 'a list of texts like ["one", "other"]',
}


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

    @property
    def bounds(self) -> str:
        """The range in words, as "1 to 10,000" or "0 or more"; "" without one."""
        if self.low is None:
            return ""
        return f"{_number(self.low)} " + ("or more" if self.high is None else f"to {_number(self.high)}")


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def setting(default: Any, help: str, low: Any = None, high: Any = None, **more: Any) -> Any:
    """Declare a field of a settings class: its default, and the parts of a `Setting`."""
    return dataclasses.field(default=default, metadata={_METADATA: Setting(help, low, high, **more)})


def settings_of(settings: type) -> dict[str, Setting]:
    """Return the settings of a class by name, in their order."""
    return {field.name: field.metadata[_METADATA] for field in dataclasses.fields(settings)}


def type_of(settings: type, name: str) -> type:
    """Return a setting's type: bool, int, float, str or tuple. None, which means "nobody chose", is left out."""
    # Of int | float | str the widest one, which a command line gives.
    return [part for part in _types_in(get_type_hints(settings)[name]) if part is not type(None)][-1]


def _types_in(hint: Any) -> list[type]:
    """Return the classes of a field's annotation, those of a union in their order; of tuple[str, ...] the tuple."""
    parts = get_args(hint) if get_origin(hint) is types.UnionType else (hint,)
    return [get_origin(part) or part for part in parts]


def flag_of(name: str) -> str:
    """Return the flag that sets `name` on a command line, as errors name it."""
    return f"--{name.replace('_', '-')}"


def check_settings(settings: Any) -> None:
    """Check an object's settings against their types, ranges and choices.

    What fits a type without being of it is replaced: 1 by 1.0, a list of texts by a tuple.
    Raises: UsageError for the first setting that does not fit.
    """
    hints = get_type_hints(type(settings))
    for name, declared in settings_of(type(settings)).items():
        value = getattr(settings, name)
        fitting = _checked(value, _types_in(hints[name]), declared, f"{flag_of(name)} {value!r}")
        if fitting is not value:
            object.__setattr__(settings, name, fitting)


def _checked(value: Any, expected: list[type], declared: Setting, shown: str) -> Any:
    """Return `value` as one of the `expected` types, checked against range and choices.

    Raises: UsageError for a value that does not fit; `shown` names the setting and the value in the message.
    """
    fitting = type(value) in expected
    # numpy's float64 is a float, too; true and false are no numbers.
    is_number = float in expected and isinstance(value, int | float) and not isinstance(value, bool)
    is_list = tuple in expected and isinstance(value, list | tuple)
    if not (fitting or is_number or is_list) or (is_list and not all(isinstance(each, str) for each in value)):
        raise UsageError(f"{shown}: expected {_words(expected)}")
    if value is None:
        return value
    if declared.choices and value not in declared.choices:
        raise UsageError(f"{shown}: expected one of {', '.join(declared.choices)}")
    if declared.low is not None:
        high = math.inf if declared.high is None else declared.high
        # In this form it refuses nan, too.
        if not declared.low <= value <= high:
            raise UsageError(f"{shown}: expected {declared.bounds}")
    if fitting:
        return value
    return tuple(value) if is_list else float(value)


def _words(expected: list[type]) -> str:
    return " or ".join(_WORDS.get(each, f"a {each.__name__}") for each in expected if each is not type(None))


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

    A misspelt setting that is silently ignored costs a night of training, so an unknown key is an error.
    Raises: UsageError for an unreadable file, an unknown key (with the nearest one), or a value that does not fit.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot read the recipe ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not TOML ({error})") from None
    names, hints = list(settings_of(settings)), get_type_hints(settings)
    values = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
            raise UsageError(f"{path}: unknown key {key!r}: {hint}")
        expected = _types_in(hints[name])
        values[name] = _checked(value, expected, settings_of(settings)[name], f"{path}: {key} = {value!r}")
    return values
