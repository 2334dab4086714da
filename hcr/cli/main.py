"""hcr: every command behind one name. Each is imported when it is asked for, so that help comes at once."""

from __future__ import annotations

from importlib import import_module

import click

from hcr.cli.common import version_option

COMMANDS = {
    "data": "Turn handwriting into packs: LMDB files of square grey pictures with integer labels.",
    "eval": "Evaluate a run's best checkpoint on a split that it has not seen.",
    "predict": "Name the handwritten character on each picture.",
    "train": "Train a network on a pack, or on handwriting drawn as it is needed.",
}


class _Commands(click.Group):
    """A group whose commands lie in hcr.cli.<name>."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"hcr.cli.{cmd_name}").main
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=_Commands)
@version_option
def main() -> None:
    """Handwritten Chinese character recognition: pack, train, evaluate, read.

    Every command also has a script of its own: `hcr predict` is `hcr-predict`.
    """


if __name__ == "__main__":
    main()
