"""Write docs/api.md from the docstrings of what `import hcr` offers, so that the two cannot disagree.

python pipelines/write_api_docs.py
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
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
ORDER = ("load", "Predictor", "open_pack", "PackDataset", "evaluate", "train", "TrainConfig", "Execution", "Charset",
         "HcrError", "UsageError", "DataError", "Stopped")  # fmt: skip


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
        if method.startswith("_") or not inspect.getdoc(member):
            continue
        shown = f"{name}.{method}"
        if not isinstance(member, property):
            shown = _signature(shown, getattr(value, method))
        yield f"### `{shown}`\n\n{_prose(member)}"


def _signature(name: str, value: Any) -> str:
    """Return a call as a person writes it, without `self`, modules and quotes; a class of settings has none to show."""
    if inspect.isclass(value) and (dataclasses.is_dataclass(value) or issubclass(value, BaseException)):
        return name
    signature = inspect.signature(value)
    parameters = [one for key, one in signature.parameters.items() if key not in ("self", "cls")]
    text = str(signature.replace(parameters=parameters)) if not inspect.isclass(value) else ""
    return name + re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", text.replace("'", ""))


def _prose(value: Any) -> str:
    """Return a docstring as Markdown: its example as a block of Python."""
    text, _, example = (inspect.getdoc(value) or "").partition("\nExample:\n")
    block = f"\n```python\n{textwrap.dedent(example).strip()}\n```\n" if example else ""
    return f"{text.strip()}\n{block}"


if __name__ == "__main__":
    TARGET.write_text(document(), "utf-8", newline="\n")
