# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import sys

import pytest
from command import InstallError, explain, installed_version, pip, run_python


def test_explain_names_the_package_that_pip_could_not_find():
    line = explain(
        [
            "WARNING: Retrying (Retry(total=0))",
            "ERROR: Could not find a version that satisfies the requirement sympy>=1 (from torch)",
            "ERROR: No matching distribution found for sympy>=1 (from torch)",
        ],
        "PyTorch",
    )
    assert line.startswith("could not get sympy>=1, needed for PyTorch. ")
    assert "PIP_INDEX_URL" in line
    assert "\n" not in line


def test_explain_gives_the_last_error_when_no_package_is_named():
    line = explain(["ERROR: first", "  ERROR: No space left on device", "hint"], "kdps")
    assert line.startswith("could not get kdps (No space left on device). ")


def test_explain_sees_a_lost_connection_behind_a_conflict_of_pins():
    line = explain(
        [
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError'",
            "ERROR: Cannot install ninja because these package versions have conflicting "
            "dependencies.",
            "ERROR: ResolutionImpossible: for help visit https://pip.pypa.io/",
        ],
        "pip and setuptools",
    )
    assert line.startswith(
        "could not get ninja, needed for pip and setuptools (no connection to the package index). "
    )


def test_a_killed_pip_is_told_from_one_that_failed(monkeypatch, tmp_path):
    killed = tmp_path / "python"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killed))
    with pytest.raises(InstallError, match="ended by signal 9"):
        pip(["install"], "kdps")


def test_explain_without_any_error_line():
    assert explain([], "kdps").startswith("could not get kdps. ")


def test_pip_reports_what_an_unreachable_index_does_not_give(monkeypatch, capfd):
    unreachable = {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_FIND_LINKS": "",
        "PIP_RETRIES": "0",
        "PIP_NO_INPUT": "1",
    }
    arguments = ["download", "--no-deps", "labgym==3.1.2"]
    with pytest.raises(InstallError, match=r"could not get labgym==3.1.2, needed for Detectron2"):
        pip(arguments, "Detectron2", unreachable)
    assert "No matching distribution" in capfd.readouterr().err


def test_pip_succeeds_with_its_output_on_screen(capfd):
    pip(["--version"], "nothing")
    assert sys.prefix in capfd.readouterr().out


def test_run_python_returns_the_last_line_as_json():
    assert run_python("print('noise'); print('[1, 2]')") == [1, 2]


def test_run_python_returns_none_on_failure(capfd):
    assert run_python("raise SystemExit(3)") is None


def test_installed_version():
    assert installed_version("pytest") == pytest.__version__
    assert installed_version("no-such-distribution-of-ours") is None
