"""How long work tells its caller how far it is.

The library never prints: a function that takes longer than a second takes a `Progress`, and the command line owns the
bar.
"""

from collections.abc import Callable

# progress(advance, total): `advance` more units are done of `total`.
Progress = Callable[[int, int], None]


def silent(advance: int, total: int) -> None:
    """Show nothing: the default of every function that takes a `Progress`."""
