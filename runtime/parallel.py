"""Work on many images in a pool of processes, with a progress bar."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

import cv2
import torch

from data.loader import follow_parent
from runtime import interrupt
from runtime.progress import progress


def map_images(function: Callable, jobs: Iterable, workers: int, description: str, total: int | None = None,
               images_of: Callable = lambda job: 1, unit: str = "image", ahead: int = 4) -> Iterator:
    """Yield function(job) for each job, in order; jobs are taken from their iterable only as results leave.

    function   runs in processes with one thread, or here when workers <= 1
    total      images in all, for the bar; default: those of the list `jobs`
    images_of  images a job stands for: len when jobs are lists of ids
    unit       what is counted, for the bar
    ahead      jobs under way for each worker; they wait in memory
    """
    if total is None:
        total = sum(map(images_of, jobs))
    with progress(total=total, desc=description, unit=unit) as bar:
        for job, result in _results(function, jobs, workers, ahead):
            yield result
            bar.update(images_of(job))
            interrupt.check()


def _results(function: Callable, jobs: Iterable, workers: int, ahead: int) -> Iterator:
    """(job, result) in order."""
    if workers <= 1:
        yield from ((job, function(job)) for job in jobs)
        return
    # Forked children share the loaded libraries and, in the function, the index of the data set, which would travel
    # with every job otherwise; they never touch the GPU.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), _start_worker, (function,))
    try:
        under_way: deque[tuple[Any, Future]] = deque()
        for job in jobs:
            under_way.append((job, pool.submit(_run, job)))
            if len(under_way) >= ahead * workers:
                yield _finished(*under_way.popleft())
        while under_way:
            yield _finished(*under_way.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _finished(job, future: Future) -> tuple[Any, Any]:
    return job, future.result()


_function: Callable                                # of a worker: what it does with a job


def _start_worker(function: Callable) -> None:
    global _function
    _function = function
    follow_parent()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def _run(job):
    return _function(job)
