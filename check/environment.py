"""Packages and the device."""

import importlib.metadata
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from packaging.requirements import Requirement

from check.finding import ERROR, OK, WARNING, Finding
from check.plan import Plan
from frame.settings.common import BackboneChoice, Hardware, Run
from refine.crf import MeanField, crf_inference_label
from runtime import device
from runtime.command import default_workers

ROOT = Path(__file__).resolve().parents[1]


def check(plan: Plan) -> Iterator[Finding]:
    yield from check_packages(requirements(plan.flags[BackboneChoice].backbone))
    yield from check_crf()
    yield from check_device(plan)


def requirements(backbone: str) -> list[Requirement]:
    """Lines of requirements.txt, and of requirements-optional.txt those of the backbone's packages."""
    def read(file: str) -> list[Requirement]:
        lines = (line.partition("#")[0].strip() for line in (ROOT / file).read_text(encoding="utf-8").splitlines())
        return [Requirement(line) for line in lines if line]

    family = backbone.partition("_")[0]
    return read("requirements.txt") + [package for package in read("requirements-optional.txt")
                                       if package.name.startswith(family)]


def check_packages(wanted: list[Requirement]) -> Iterator[Finding]:
    wrong = False
    for package in wanted:
        try:
            version = importlib.metadata.version(package.name)
        except importlib.metadata.PackageNotFoundError:
            wrong = True
            yield Finding("packages", ERROR, f"{package.name} is not installed", f"pip install '{package}'")
            continue
        if not package.specifier.contains(version, prereleases=True):
            wrong = True
            yield Finding("packages", WARNING, f"{package.name} {version}: the tests were not run with it",
                          f"pip install '{package}'")
    if not wrong:
        yield Finding("packages", OK, f"the {len(wanted)} that are needed; Python {platform.python_version()}")


def check_crf() -> Iterator[Finding]:
    """A CRF on a few pixels: a package that was built for another Python or NumPy only fails when it is used."""
    try:
        crf_inference_label(MeanField(np.zeros((4, 4, 3), np.uint8), num_labels=2), np.eye(4, dtype=int))
    except Exception as error:                   # of many kinds: it is compiled code that may not fit
        yield Finding("dense CRF", ERROR, f"pydensecrf does not work ({error})",
                      "pip install --force-reinstall --no-cache-dir pydensecrf2 (needs a C++ compiler)")
    else:
        yield Finding("dense CRF", OK, "pydensecrf works")


def check_device(plan: Plan) -> Iterator[Finding]:
    run = plan.flags[Run]
    place = device.prepare(run.device, plan.flags[Hardware].amp).device
    found = f"{place}: {device.hardware(place)}; PyTorch {importlib.metadata.version('torch')}"
    if no_gpu := device.choose(run.device).no_gpu:
        yield Finding("device", WARNING, f"{found}; no GPU can be used ({no_gpu})",
                      "mend that, or say --device cpu")
    else:
        yield Finding("device", OK, found)
    if run.num_workers > default_workers():
        yield Finding("device", WARNING, f"--num_workers {run.num_workers}, but this process may use "
                      f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores",
                      f"--num_workers {default_workers()}")
