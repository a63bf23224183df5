"""The one error that means: the user can mend this."""


class InputError(ValueError):
    """A value, path, file or config of the user cannot be used.

    The message says what was wrong, what is allowed and what to do next; command line
    entry points print it without a traceback and exit with code 2.
    """


class Diverged(RuntimeError):
    """Training produced a loss that is no number; main prints it and exits with 1."""
