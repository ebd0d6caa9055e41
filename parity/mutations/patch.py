"""How a wrong is put into the program, and taken out again."""

import functools
import inspect
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType

import torch.nn.functional as F

ROOT = Path(__file__).resolve().parents[2]
Patch = Callable[[], AbstractContextManager]


def replaced(function: Callable, make: Callable[[Callable], Callable]) -> Patch:
    """`make(function)` takes the place of `function`, in every module of ours that names it, or in its class."""

    @contextmanager
    def patch():
        places = places_of(function)
        original, wrong = inspect.getattr_static(*places[0]), make(function)
        for owner, name in places:
            setattr(owner, name, wrong)
        try:
            yield
        finally:
            for owner, name in places:
                setattr(owner, name, original)

    return patch


def places_of(function: Callable) -> list[tuple[object, str]]:
    """(owner, name) wherever it can be looked up: its class, or the module that defines it and those that import it."""
    home = sys.modules[function.__module__]
    if "." in function.__qualname__:
        owner, name = function.__qualname__.split(".")
        return [(getattr(home, owner), name)]
    modules = [home, *(module for module in list(sys.modules.values()) if is_ours(module) and module is not home)]
    return [(module, name) for module in modules for name, value in list(vars(module).items()) if value is function]


def is_ours(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).is_relative_to(ROOT) and ".venv" not in file


def changed(function: Callable, **values) -> Patch:
    """Calls see these values of their arguments: a value, or what a function makes of the one that was given."""

    def make(original):
        signature = inspect.signature(original)

        @functools.wraps(original)
        def wrong(*args, **kwargs):
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            for name, value in values.items():
                bound.arguments[name] = value(bound.arguments[name]) if callable(value) else value
            return original(*bound.args, **bound.kwargs)

        return wrong

    return replaced(function, make)


def then(function: Callable, change: Callable) -> Patch:
    """Callers get `change` of what the function returns."""

    def make(original):
        @functools.wraps(original)
        def wrong(*args, **kwargs):
            return change(original(*args, **kwargs))

        return wrong

    return replaced(function, make)


def corners(module: ModuleType, when: Callable[[dict], bool] = lambda options: True) -> Patch:
    """The resizings of a module (those whose keyword arguments satisfy `when`) align corners if they must not, and
    the other way round."""

    def interpolate(x, *args, **options):
        if when(options):
            options["align_corners"] = not options["align_corners"]
        return F.interpolate(x, *args, **options)

    @contextmanager
    def patch():
        wrong = ModuleType("functional")
        wrong.__dict__.update(vars(F) | {"interpolate": interpolate})
        module.F = wrong
        try:
            yield
        finally:
            module.F = F

    return patch
