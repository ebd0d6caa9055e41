"""Killed at random moments and started again, the chain ends in the same bytes.

    SFC_KILLS=200 python -m pytest tests/test_interruptions.py -s     # more kills than the default 20
"""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from data.loader import follow_parent
from tests.helpers import PROCESSES, ROOT, TINY, files_of, start_script

KILLS = int(os.environ.get("SFC_KILLS", "20"))


def chain_flags(mini, folder) -> list[str]:
    return ["--voc12_root", str(mini), "--work_dir", str(folder), *TINY]


def start(mini, folder, *flags):
    """The chain in a process of its own."""
    return start_script("run_sample", [*chain_flags(mini, folder), "--no-report", *flags],
                        folder.with_suffix(".out"))


def wait(process, seconds) -> int | None:
    """Exit status, or None if it is still running after `seconds`."""
    process.join(seconds)
    return process.exitcode


def stage_under_way(folder) -> str:
    path = folder / "config.json"
    config = json.loads(path.read_text()) if path.exists() else {}
    return next((name for name, entry in config.items() if not entry["complete"]), "between stages")


def test_killed_at_random_moments(mini, finished, tmp_path):
    seed = random.randrange(2**32)
    print(f"seed {seed}")                                         # shown when the test fails
    rng, kills, where, runs = random.Random(seed), 0, {}, 0
    while kills < KILLS:
        folder, runs = tmp_path / f"run{runs}", runs + 1
        status = None
        while status is None:
            chain = start(mini, folder)
            status = wait(chain, rng.uniform(0.05, 1.2) if kills < KILLS else 120)
            if status is None:
                chain.kill()
                chain.join()
                stage = stage_under_way(folder)
                where[stage] = where.get(stage, 0) + 1
                kills += 1
        assert status == 0, folder.with_suffix(".out").read_text()[-2000:]
        assert files_of(folder) == files_of(finished)
        assert (folder / "metrics.json").read_bytes() == (finished / "metrics.json").read_bytes()
    print(f"{kills} kills in {runs} runs: {where}")


@pytest.mark.parametrize("signum, exit_status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_save_and_say_how_to_go_on(mini, finished, tmp_path, signum, exit_status):
    folder = tmp_path / "run"
    for attempt in range(50):
        chain = start(mini, folder)
        if (status := wait(chain, 0.3 + 0.1 * attempt)) is None:   # some attempt gets to the end, even if busy
            os.kill(chain.pid, signum)
            status = wait(chain, 60)
        if status == 0:
            break
        assert status == exit_status
    assert status == 0 and files_of(folder) == files_of(finished)
    text = folder.with_suffix(".out").read_text()
    assert "to go on:\n  python run_sample.py" in text and "Traceback" not in text


def test_a_second_run_on_one_work_directory_is_refused(mini, tmp_path):
    folder = tmp_path / "run"
    chain = start(mini, folder)
    try:
        for _ in range(500):
            if (folder / "lock").exists() and (folder / "lock").read_text():
                break
            time.sleep(0.01)
        os.kill(chain.pid, signal.SIGSTOP)                        # keep it under way while the second one starts
        second = subprocess.run([sys.executable, "run_sample.py", *chain_flags(mini, folder)], cwd=ROOT,
                                capture_output=True, text=True, check=False)
        assert second.returncode == 2 and f"in use by process {chain.pid} on " in second.stderr
    finally:
        chain.kill()
        chain.join()


def test_a_full_disk_is_said(mini, tmp_path, command, monkeypatch, capsys):
    def full(_descriptor):
        raise OSError(28, "No space left on device", str(tmp_path / "disk"))

    monkeypatch.setattr("data.sample.os.fsync", full)
    assert command("train_sfc", "--work_dir", tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert "No space left on device" in error and "make room" in error
    assert not list((tmp_path / "run").rglob("*.tmp")) and not (tmp_path / "run/sfc.pth").exists()


def test_quiet_prints_the_table_alone(mini, tmp_path, command, capsys):
    flags = ["--quiet", "--to", "eval_cam", "--epochs", "1", "--no-report"]
    assert command("run_sample", "--work_dir", tmp_path / "run", *flags) == 0
    captured = capsys.readouterr()
    assert captured.err == "" and "started" not in captured.out and "final_cam CRF" in captured.out
    assert "train_sfc: started" in (tmp_path / "run/log.txt").read_text()


def wait_in_worker(ready):
    follow_parent()
    ready.set()
    time.sleep(60)


def test_a_worker_is_out_of_the_launchers_reach_but_not_of_its_parents():
    """Of a signal to the whole process group it hears nothing; multiprocessing, which would wait for it, ends it."""
    ready = PROCESSES.Event()
    worker = PROCESSES.Process(target=wait_in_worker, args=(ready,), daemon=True)
    worker.start()
    assert ready.wait(30)
    assert os.getpgid(worker.pid) != os.getpgid(0)
    worker.terminate()
    worker.join(30)
    assert worker.exitcode == -signal.SIGTERM
