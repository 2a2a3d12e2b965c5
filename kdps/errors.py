# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Errors that are meant for the person at the keyboard."""


class KdpsError(ValueError):
    """Bad input that the user can mend.

    The message is one line and names the file and the field (or the config key) at fault. The
    command line prints it without a traceback; library callers catch it as a ``ValueError``.
    """


def one_line(error: BaseException | str) -> str:
    """The first line of an error's text, for use inside another message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
