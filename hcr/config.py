"""Settings from a recipe file and from flags: default < recipe < flag.

A recipe is a TOML file of `key = value` lines with the names of the flags. An unknown key is an error with a
suggestion: a misspelt setting that is silently passed over costs a night of training.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from pathlib import Path
from typing import Any

from hcr.errors import UsageError


def read_recipe(path: Path, settings: type) -> dict[str, Any]:
    """Read a recipe whose keys are fields of the dataclass `settings` ("-" may stand for "_").

    Raises: UsageError for an unreadable file, an unknown key, or a value of another type than the field's default.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot read the recipe ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not TOML ({error})") from None
    fields = {field.name: field for field in dataclasses.fields(settings)}
    values = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        if name not in fields:
            near = difflib.get_close_matches(name, fields, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(fields)}"
            raise UsageError(f"{path}: unknown key {key!r}: {hint}")
        values[name] = _checked(path, key, value, fields[name].default)
    return values


def _checked(path: Path, key: str, value: Any, default: Any) -> Any:
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(default, tuple) and isinstance(value, list) and all(isinstance(each, str) for each in value):
        return tuple(value)
    if isinstance(default, tuple):
        raise UsageError(f'{path}: {key} = {value!r}: expected a list of texts like ["one", "other"]')
    if type(value) is not type(default):
        raise UsageError(f"{path}: {key} = {value!r}: expected a {type(default).__name__} like {default!r}")
    return value
