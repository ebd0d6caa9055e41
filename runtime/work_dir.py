"""The work directory of a run: which stage ran with which settings, its scores, its log.

config.json holds one entry a stage: its settings, when it was begun, the same of the stages whose output it read, and
whether it is complete. So a stage knows whether what lies there is its own, and of the input that lies there now.
"""

import fcntl
import json
import logging
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TextIO

import torch

from data.sample import InputError, write_text
from runtime import distributed
from runtime.device import CPU, hardware
from runtime.disk import require_space

log = logging.getLogger("sfc")
ENTRIES = "entries.json"                       # of replaced results: what config.json and metrics.json said of them
INPUTS = {"images": "list of images", "label_table": "content of --labels"}     # settings that are no flags
RESULT = logging.INFO + 5                      # level of scores, which --quiet still shows, as it does warnings


_locks: dict[Path, TextIO] = {}                # open lock files of this process, by path


class WorkDir:
    """runs/NAME. Raises InputError when it cannot be written, is in use, or its config.json is damaged.

    Of several processes, rank 0 alone locks it, keeps the log and writes the JSON files.

    quiet  keep the log off the screen
    """

    def __init__(self, path: str | Path, quiet: bool = False):
        self.path = Path(path)
        if not distributed.is_main():
            log.handlers = [logging.NullHandler()]
            log.propagate = False
        distributed.from_main(lambda: self._open(quiet))

    def _open(self, quiet: bool) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock()
            self._log_to(self.path / "log.txt", quiet)
        except OSError as error:
            raise InputError(f"{self.path}: work directory cannot be written ({error.strerror}); "
                             "choose another with --work_dir") from None

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def _lock(self) -> None:
        """One process a work directory. The system frees the lock when the process ends, however it ends."""
        path = (self.path / "lock").resolve()
        if path in _locks and path.exists():
            return
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115  it holds the lock to the end of the process
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise InputError(f"{self.path}: in use by {file.read().strip() or 'another process'}; wait for it, stop "
                             "it, or choose another --work_dir") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        _locks[path] = file

    @staticmethod
    def _log_to(path: Path, quiet: bool) -> None:
        log.setLevel(logging.INFO)
        log.propagate = False
        for handler in list(log.handlers):
            log.removeHandler(handler)
            handler.close()
        screen = logging.StreamHandler(sys.stdout)
        screen.setLevel(RESULT if quiet else logging.INFO)
        screen.setFormatter(_Formatter("%(message)s"))
        file = logging.FileHandler(path, encoding="utf-8")
        file.setFormatter(_Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        log.addHandler(screen)
        log.addHandler(file)

    # --- JSON files ---------------------------------------------------------------------------------------

    def _write_json(self, name: str, content: dict) -> None:
        write_text(self.path / name, json.dumps(content, indent=2) + "\n")

    def config(self) -> dict:
        """config.json: {stage: its entry}. Raises InputError when it is damaged."""
        return read_config(self.path)

    def metrics(self) -> dict:
        return read_json(self.path / "metrics.json")

    def save_metrics(self, stage: str, metrics: dict) -> None:
        self._write_json("metrics.json", self.metrics() | {stage: metrics})

    # --- stages -------------------------------------------------------------------------------------------

    def begin(self, stage: str, settings: dict, upstream: tuple[str, ...], outputs: tuple[str, ...],
              overwrite: bool = False, force: bool = False) -> str:
        """Enter `stage` in config.json; the answer of rank 0 on all processes.

        settings   what its result depends on (flags)
        upstream   the stages whose output it reads
        outputs    the files and folders of its result in the work directory
        overwrite  outputs of another configuration may be replaced
        force      outputs are replaced in any case
        Returns "new", "resume" (begun before with the same settings) or "complete". Replaced outputs go when the stage
        is finished.
        Raises InputError when the outputs there belong to other settings, saying which.
        """
        return distributed.from_main(lambda: self._begin(stage, settings, upstream, outputs, overwrite, force))

    def _begin(self, stage: str, settings: dict, upstream: tuple[str, ...], outputs: tuple[str, ...], overwrite: bool,
               force: bool) -> str:
        config = self.config()
        entry = {"settings": settings,
                 "upstream": {name: _identity(config[name]) for name in upstream if name in config},
                 "begun": time.time_ns(), "complete": False, "machine": _machine()}
        found = config.get(stage)
        there = [path for path in files_left(self.path, stage, outputs) if path.exists()]
        if found is not None and not found.get("clearing") and (found["complete"] or there):
            differences = entry_differences(_identity(found), entry)
            if differences and not overwrite:
                raise InputError(
                    f"{self.path}: holds {stage} of another configuration\n  " + "\n  ".join(differences) +
                    "\nchoose another --work_dir, or --overwrite to replace it and what depends on it")
            if not differences and not force:
                whole = found["complete"] and (not outputs or any((self.path / name).exists() for name in outputs))
                self._remove_torn_files(outputs)
                if whole:
                    _remove(self._aside(stage))
                else:
                    machine = _machine() | {"earlier": found["machine"]}
                    self._write_json("config.json", config | {stage: found | {"machine": machine}})
                return "complete" if whole else "resume"
            if differences:
                log.info("%s: done again, because of %s", stage, "; ".join(differences))
        # Killed while old results are being moved, the stage must not take the rest of them for its own.
        self._write_json("config.json", config | {stage: entry | {"clearing": True}})
        metrics = self.metrics()
        scores = metrics.pop(stage, None)
        if found is not None and (there or scores is not None):
            self._set_aside(stage, there, {"config": found, "metrics": scores})
        for path in there:                                    # what was not set aside
            _remove(path)
        if scores is not None:
            self._write_json("metrics.json", metrics)
        self._write_json("config.json", config | {stage: entry})
        return "new"

    def _set_aside(self, stage: str, there: list[Path], entries: dict) -> None:
        """Keep what a stage left until new results replace it, unless something is kept already."""
        aside = self._aside(stage)
        if aside.exists():
            return
        for path in there:
            target = aside / path.relative_to(self.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
        aside.mkdir(exist_ok=True)
        write_text(aside / ENTRIES, json.dumps(entries))           # last: without it nothing is put back

    def take_back(self, stage: str, outputs: tuple[str, ...]) -> None:
        """After an error: put back the results that `begin` set aside, unless there are new ones."""
        aside, files = self._aside(stage), files_left(self.path, stage, outputs)
        if not (distributed.is_main() and (aside / ENTRIES).exists()) or any(map(_holds_something, files)):
            return
        entries = read_json(aside / ENTRIES)
        for path in files:
            kept = aside / path.relative_to(self.path)
            if kept.exists():
                _remove(path)
                kept.rename(path)
        if entries["metrics"] is not None:
            self.save_metrics(stage, entries["metrics"])
        self._write_json("config.json", self.config() | {stage: entries["config"]})
        _remove(aside)
        log.info("%s: what was there before is back in its place", stage)

    def _aside(self, stage: str) -> Path:
        return self.path / f".replaced_{stage}"

    def finish(self, stage: str, metrics: dict, seconds: float, gpu: dict) -> None:
        """Mark `stage` complete and store its scores; times, which differ from run to run, go to config.json.

        gpu  facts of the GPU that it used, {} if it used none
        Waits for all processes before.
        """
        distributed.barrier()
        if distributed.is_main():
            self._finish(stage, metrics, seconds, gpu)

    def _finish(self, stage: str, metrics: dict, seconds: float, gpu: dict) -> None:
        speed = {name: metrics.pop(name) for name in ("images_per_second",) if name in metrics}
        self.save_metrics(stage, metrics)
        config = self.config()
        config[stage]["complete"] = True
        config[stage]["machine"] |= speed | gpu | {
            "processes": distributed.world(), "seconds": round(seconds, 1),
            "finished": time.strftime("%Y-%m-%d %H:%M:%S")}
        self._write_json("config.json", config)
        (self.path / f"{stage}_checkpoint.pth").unlink(missing_ok=True)
        _remove(self._aside(stage))

    def _remove_torn_files(self, outputs: tuple[str, ...]) -> None:
        """Temporary files that a killed process left."""
        for folder in (self.path, *(self.path / name for name in outputs)):
            for path in folder.glob(".*.tmp"):
                path.unlink()

    def need_space(self, bytes_needed: float, what: str) -> None:
        """Say how much disk `what` will take. Raises InputError when the disk has less."""
        log.info("%s", require_space(self.path, bytes_needed, what, "--work_dir"))

    def require(self, name: str, stage: str) -> Path:
        """Path of an input that `stage` makes; InputError that says so when it is missing."""
        path = self.path / name
        how = f"python {stage}.py --work_dir {self.path} (with the flags of this command)"
        if not path.exists():
            raise InputError(f"{path}: missing; {stage}.py makes it: {how}")
        if path.is_file() and not self.config().get(stage, {"complete": True})["complete"]:      # as sfc_best.pth
            raise InputError(f"{path}: {stage} is not finished, and would still change it; to finish it: {how}")
        return path


class _Formatter(logging.Formatter):
    """Puts "warning: " before warnings."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = f"warning: {record.message}" if record.levelno == logging.WARNING else record.message
        return super().formatMessage(record)


def read_config(folder: Path) -> dict:
    """config.json of a work directory, {} without one; see WorkDir.config."""
    path = folder / "config.json"
    config = read_json(path)
    for stage, entry in config.items():
        if not isinstance(entry, dict) or not {"settings", "upstream", "complete", "machine"} <= entry.keys():
            raise InputError(f"{path}: damaged (entry {stage}); delete it, or choose another --work_dir")
    return config


def read_json(path: Path) -> dict:
    """A JSON object; {} where there is no file. Raises InputError when it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error}); delete it, or choose another --work_dir") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: damaged (no JSON object); delete it, or choose another --work_dir")
    return content


def files_left(folder: Path, stage: str, outputs: tuple[str, ...]) -> list[Path]:
    """What a stage leaves in a work directory: its outputs, and the checkpoint and curves of a training."""
    return [folder / name for name in (*outputs, f"{stage}_checkpoint.pth", f"tensorboard/{stage}")]


def _identity(entry: dict) -> dict:
    return {"settings": entry["settings"], "upstream": entry["upstream"], "begun": entry.get("begun")}


def setting_differences(found: dict, wanted: dict) -> list[str]:
    """Lines "--flag: was X, is Y", one for every setting of a stage that differs."""
    return [f"{INPUTS.get(name, f'--{name}')}: was {found.get(name)}, is {wanted.get(name)}"
            for name in sorted(found.keys() | wanted.keys()) if found.get(name) != wanted.get(name)]


def entry_differences(found: dict, wanted: dict, prefix: str = "") -> list[str]:
    """`setting_differences`, those of upstream stages included."""
    lines = [prefix + line for line in setting_differences(found["settings"], wanted["settings"])]
    for stage in sorted(found["upstream"].keys() | wanted["upstream"].keys()):
        if stage not in found["upstream"] or stage not in wanted["upstream"]:
            lines.append(f"{prefix}input from {stage}: {'new' if stage in wanted['upstream'] else 'gone'}")
        else:
            read, there = found["upstream"][stage], wanted["upstream"][stage]
            again = [f"{prefix}input from {stage}: made again"] if read.get("begun") != there.get("begun") else []
            lines += entry_differences(read, there, f"{stage} ") or again
    return lines


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _holds_something(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.exists()


def _machine() -> dict:
    return {"python": platform.python_version(), "torch": torch.__version__, "hardware": hardware(CPU),
            "commit": _commit()}


def _commit() -> str | None:
    """The git commit of this code, "-dirty" added when files differ from it; None outside a clone or without git."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():                      # else git would name a repository around this folder
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
