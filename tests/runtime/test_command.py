"""Messages instead of tracebacks, and the command to go on with."""

import sys
from concurrent.futures.process import BrokenProcessPool
from types import SimpleNamespace
from unittest import mock

import pytest

from runtime import interrupt
from runtime.command import exit_with_message


@pytest.mark.parametrize("script, kept", [("run_sample.py", True), ("train_sfc.py", False)])
def test_the_chain_needs_overwrite_to_go_on_and_a_stage_would_start_anew(script, kept, monkeypatch):
    monkeypatch.setattr(sys, "argv", [script, "--work_dir", "a b", "--overwrite", "--lr", "1"])
    words = ["--overwrite"] if kept else []
    assert interrupt.command_to_go_on() == " ".join(["python", script, "--work_dir", "'a b'", *words, "--lr", "1"])


def test_a_module_and_a_package_are_named_as_they_are_started(monkeypatch):
    for name, words in (("tools.report", "python -m tools.report a"),
                        ("benchmarks.__main__", "python -m benchmarks a")):
        main = mock.Mock(__spec__=SimpleNamespace(name=name, origin="here.py"))
        monkeypatch.setitem(sys.modules, "__main__", main)
        monkeypatch.setattr(sys, "argv", ["here.py", "a"])
        assert interrupt.command_to_go_on() == words


@pytest.mark.parametrize("place", ["file", "file/folder"])
def test_a_file_where_a_folder_should_be(place, tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stop:
        exit_with_message(lambda: (tmp_path / place).mkdir(parents=True, exist_ok=True), "--out")
    error = capsys.readouterr().err
    assert stop.value.code == 2 and f"{tmp_path / place}: " in error and "another --out" in error


def test_an_error_that_is_no_place_to_write_is_not_hidden(tmp_path):
    with pytest.raises(FileNotFoundError):
        exit_with_message((tmp_path / "absent").read_bytes)


def test_a_killed_process_of_the_pool(capsys):
    def die():
        raise BrokenProcessPool("a child process terminated abruptly")

    with pytest.raises(SystemExit) as stop:
        exit_with_message(die)
    error = capsys.readouterr().err
    assert stop.value.code == 1 and "want of memory" in error and "--num_workers" in error
