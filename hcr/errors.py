"""What can go wrong, and the exit code each kind ends a command with.

Every message is one line: what is wrong, where (file and byte offset or key, expected and found), and what to do.
"""


class HcrError(Exception):
    """Something failed that the user can act on (exit code 1)."""

    exit_code = 1


class UsageError(HcrError):
    """The command line or a recipe asks for something that does not exist or does not fit (exit code 2)."""

    exit_code = 2


class DataError(HcrError):
    """A file is damaged, of another kind, or does not belong to the others (exit code 3)."""

    exit_code = 3


class Stopped(HcrError):
    """A signal stopped the work; everything is saved, and `--resume` continues (exit code 75, EX_TEMPFAIL)."""

    exit_code = 75
