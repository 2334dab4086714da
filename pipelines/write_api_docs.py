"""Write docs/api.md from the docstrings of what `import hcr` offers, so that the two cannot disagree.

python pipelines/write_api_docs.py
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import hcr

TARGET = Path(__file__).parents[1] / "docs/api.md"
HEAD = """# Python

Three lines read a picture. Everything else that is public stands below, written by `python pipelines/write_api_docs.py`
from the docstrings.

```python
import hcr

model = hcr.load()
print(model.read("photo.jpg")[0])
```

Pictures are uint8 with 255 = paper. Every error that the library foresees is an `hcr.HcrError`: a `UsageError` for what
was asked, a `DataError` for what was found, `Stopped` after a signal.
"""
# As a reader needs them: first what most people call.
ORDER = ("load", "Predictor", "open_pack", "PackDataset", "evaluate", "Evaluation", "train", "TrainConfig",
         "Execution", "TrainSummary", "Observer", "StepReport", "Charset", "HcrError", "UsageError", "DataError",
         "Stopped")  # fmt: skip


def document() -> str:
    """Return the whole text of docs/api.md."""
    assert set(ORDER) == set(hcr.__all__), "ORDER names what hcr.__all__ does"
    return "\n".join([HEAD, *(part for name in ORDER for part in _entry(name))])


def _entry(name: str) -> Iterator[str]:
    value = getattr(hcr, name)
    yield f"## `{_signature(f'hcr.{name}', value)}`\n\n{_prose(value)}"
    if not inspect.isclass(value):
        return
    for method, member in vars(value).items():
        if method.startswith("_") or not isinstance(member, FunctionType | classmethod | property):
            continue
        # The others are for this program's own use, or the class says what there is to say.
        if "\nExample:\n" not in (inspect.getdoc(member) or ""):
            continue
        shown = f"{name}.{method}"
        if not isinstance(member, property):
            shown = _signature(shown, getattr(value, method))
        yield f"### `{shown}`\n\n{_prose(member)}"


def _signature(name: str, value: Any) -> str:
    """Return a call as a person writes it, without `self` and what it returns; a class has none to show."""
    if inspect.isclass(value):
        return name
    parts = []
    for key, parameter in inspect.signature(value).parameters.items():
        if key in ("self", "cls"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in parts:
            parts.append("*")
        default = parameter.default
        shown = getattr(default, "__name__", None) or repr(default)
        parts.append(key if default is parameter.empty else f"{key}={shown}")
    return f"{name}({', '.join(parts)})"


def _prose(value: Any) -> str:
    """Return a docstring as Markdown: its example as a block of Python."""
    text, _, example = (inspect.getdoc(value) or "").partition("\nExample:\n")
    # A setting a line, as a list.
    text = re.sub(r"^    (\w+)( \(.*?\))?: ", r"- `\1`\2: ", text, flags=re.M).replace("Settings:\n-", "Settings:\n\n-")
    block = f"\n```python\n{textwrap.dedent(example).strip()}\n```\n" if example else ""
    return f"{text.strip()}\n{block}"


if __name__ == "__main__":
    TARGET.write_text(document(), "utf-8", newline="\n")
