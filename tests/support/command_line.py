# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Subcommands of kdps, called in this process with options by name."""

from collections.abc import Callable

from kdps.cli.main import main

Run = Callable[..., int]


def runner(command: str, **defaults: object) -> Run:
    """A function that runs ``kdps COMMAND`` with these options and returns its exit code.

    The command may be of several words.
    Its keywords replace the defaults: None leaves an option out, True gives it without a value, a
    tuple gives several. Its arguments come last, as config overrides do.
    """

    def run(*overrides: str, **options: object) -> int:
        argv = command.split()
        for name, value in {**defaults, **options}.items():
            if value is None:
                continue
            values = value if isinstance(value, tuple) else () if value is True else (value,)
            argv += ["--" + name.replace("_", "-"), *map(str, values)]
        return main([*argv, *overrides])

    return run
