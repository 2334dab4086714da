"""Write docs/cli.md from the commands' own --help, so that the two cannot disagree.

python pipelines/write_cli_docs.py
"""

from __future__ import annotations

import importlib
from pathlib import Path

import click

COMMANDS = "data", "train", "eval", "predict"
TARGET = Path(__file__).parents[1] / "docs/cli.md"
HEAD = """# Commands

Written by `python pipelines/write_cli_docs.py` from the commands' `--help`.

Exit codes: 0 done · 1 failed · 2 usage · 3 bad data · 75 stopped by a signal: run the same command again
(hcr-train: with `--resume`) to continue.
An error is one line on stderr that says what, where, and what to do; `--debug` shows the traceback.
"""


def document() -> str:
    """Return the whole text of docs/cli.md."""
    parts = [HEAD]
    for name in COMMANDS:
        main: click.Command = importlib.import_module(f"hcr.cli.{name}").main
        parts.append(_section(main, click.Context(main, info_name=f"hcr-{name}", terminal_width=80), "##"))
    return "\n".join(parts)


def _section(command: click.Command, context: click.Context, mark: str) -> str:
    text = f"{mark} {context.command_path}\n\n```\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            inside = click.Context(inner, info_name=name, parent=context, terminal_width=80)
            text += f"\n{_section(inner, inside, mark + '#')}"
    return text


if __name__ == "__main__":
    TARGET.write_text(document(), "utf-8", newline="\n")
