# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import subprocess
import sys
from types import SimpleNamespace

import pytest

from kdps.cli import main as cli
from kdps.errors import KdpsError


@pytest.fixture
def command(monkeypatch):
    """A subcommand `data` whose action the test chooses."""
    action = SimpleNamespace(run=lambda args: None)

    def add_parser(commands, summary):
        p = commands.add_parser("data", help=summary)
        p.add_argument("--number", type=int)
        p.set_defaults(run=lambda args: action.run(args))

    module = SimpleNamespace(add_parser=add_parser)
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: module)
    return action


def test_arguments_reach_the_command_and_its_code_comes_back(command):
    command.run = lambda args: args.number
    assert cli.main(["data", "--number", "7"]) == 7


def test_a_command_that_returns_nothing_has_succeeded(command):
    assert cli.main(["data"]) == 0


def fail(error):
    raise error


def test_bad_input_is_one_line_and_code_2(command, capsys):
    command.run = lambda args: fail(KdpsError("a.png: no such file"))
    assert cli.main(["data"]) == 2
    assert capsys.readouterr().err == "kdps: error: a.png: no such file\n"


def test_bad_input_found_by_a_worker_is_one_line_too(command, capsys):
    trace = "Caught KdpsError in worker 0.\nTraceback (most recent call last):\n  File x\n"
    command.run = lambda args: fail(KdpsError(f"{trace}kdps.errors.KdpsError: a.png: broken\n"))
    assert cli.main(["data"]) == 2
    assert capsys.readouterr().err == "kdps: error: a.png: broken\n"


def test_interruption_is_no_traceback(command, capsys):
    command.run = lambda args: fail(KeyboardInterrupt())
    assert cli.main(["data"]) == 130
    assert capsys.readouterr().err == "kdps: interrupted\n"


def test_so_is_one_while_modules_load(monkeypatch, capsys):
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: fail(KeyboardInterrupt()))
    assert cli.main(["data"]) == 130
    assert capsys.readouterr().err == "kdps: interrupted\n"


def test_a_defect_of_ours_keeps_its_traceback(command):
    command.run = lambda args: fail(RuntimeError("defect"))
    with pytest.raises(RuntimeError, match="defect"):
        cli.main(["data"])


@pytest.mark.parametrize("arguments", [[], ["no-such-command"], ["data", "--no-such-flag"]])
def test_wrong_usage_exits_with_2(command, arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("usage: kdps")


def test_overview_lists_every_command_without_loading_torch():
    program = (
        "import sys\n"
        "from kdps.cli.main import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit:\n    print('torch' in sys.modules)\n"
    )
    text = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout
    assert text.splitlines()[-1] == "False"
    assert all(f"{name} " in text for name in cli.COMMANDS)


def leaf_commands():
    """Every command with all its subcommands, as the words that call it."""
    for name in cli.COMMANDS:
        yield (name,)
    yield from (("data", name) for name in ("synth", "check", "show"))


@pytest.mark.parametrize("words", list(leaf_commands()), ids=" ".join)
def test_help_of_every_command_has_an_example(words, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*words, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"kdps {' '.join(words)}" in text.split("\n\n", 1)[1]
