"""Settings as dataclasses: a field is a flag, its default the setting's, its comment the help.

A group of settings is declared once, in frame/settings/:

    @dataclass(frozen=True)
    class Network(Group, title="CAM network"):
        pcm_steps: int = option(2, "applications of the PCM affinity (release 2, SEAM 1)", positive_int)

A command builds its parser from groups; `Flags` gives the values back by group: flags[Network].pcm_steps.
"""

import argparse
import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar


def option(default: Any, help: str, type: Callable[[str], Any] | None = None, choices: Iterable[str] | None = None,
           changes_result: bool = True, flag: str | None = None, bare: str | None = None) -> Any:
    """A field of a group.

    type            parses the word on the command line; None: text, or a switch where the default is a bool
    changes_result  False for what says only where or how fast: it is no part of a stage's settings
    flag            name on the command line, where it is not the field's
    bare            what the flag means without a word behind it
    """
    return dataclasses.field(default=default, metadata={
        "help": help, "type": type, "choices": choices and list(choices), "changes_result": changes_result,
        "flag": flag, "bare": bare})


@dataclasses.dataclass(frozen=True)
class Group:
    """A titled group of options.

    prefix       stands in front of the fields' names in the flags
    short_names  the flags are known without the prefix too
    """
    title: ClassVar[str] = ""
    prefix: ClassVar[str] = ""
    short_names: ClassVar[bool] = False

    def __init_subclass__(cls, title: str, prefix: str = "", short_names: bool = False, **kwargs):
        super().__init_subclass__(**kwargs)
        cls.title, cls.prefix, cls.short_names = title, prefix, short_names

    @classmethod
    def flags(cls) -> dict[str, dataclasses.Field]:
        """Name of each flag (without --) -> its field."""
        return {cls.prefix + (field.metadata["flag"] or field.name): field for field in dataclasses.fields(cls)}

    @classmethod
    def of(cls: type["G"], values: Mapping[str, Any]) -> "G":
        """The group from values by flag; those that are absent are at their defaults."""
        return cls(**{field.name: as_tuple(values[flag]) for flag, field in cls.flags().items() if flag in values})

    @classmethod
    def add_to(cls, parser: argparse.ArgumentParser) -> None:
        group = parser.add_argument_group(cls.title)
        for flag, field in cls.flags().items():
            names = [f"--{flag}"] + [f"--{field.name}"] * cls.short_names
            kind = {name: field.metadata[name] for name in ("type", "choices") if field.metadata[name]}
            if isinstance(field.default, bool) or field.type == bool | None:
                kind["action"] = argparse.BooleanOptionalAction
            if field.metadata["bare"]:
                kind |= {"nargs": "?", "const": field.metadata["bare"]}
            group.add_argument(*names, dest=flag, default=field.default, help=field.metadata["help"], **kind)


G = TypeVar("G", bound=Group)


class Flags:
    """What a command line chose, by group. values: flag -> value."""

    def __init__(self, values: Mapping[str, Any]):
        self.values = dict(values)

    def __getitem__(self, group: type[G]) -> G:
        return group.of(self.values)

    def settings(self, groups: Iterable[type[Group]]) -> dict[str, Any]:
        """Flag -> value, as JSON has it, of what the result of a stage with these groups depends on."""
        chosen = {flag: self.values.get(flag, field.default)
                  for group in groups for flag, field in group.flags().items() if field.metadata["changes_result"]}
        return {flag: list(value) if isinstance(value, tuple) else value for flag, value in sorted(chosen.items())}


def as_tuple(value: Any) -> Any:
    """JSON and argparse give lists where settings are tuples."""
    return tuple(value) if isinstance(value, list) else value


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults as they are typed."""

    def _expand_help(self, action: argparse.Action) -> str:
        shown = copy.copy(action)
        if isinstance(shown.default, tuple):
            shown.default = ",".join(map(str, shown.default))
        return super()._expand_help(shown)


def build_parser(groups: Iterable[type[Group]], description: str, **kwargs: Any) -> argparse.ArgumentParser:
    """A parser with the options of all groups, each once. A flag must be written out."""
    parser = argparse.ArgumentParser(description=description, formatter_class=_Formatter, allow_abbrev=False, **kwargs)
    for group in dict.fromkeys(groups):
        group.add_to(parser)
    return parser


def parse(parser: argparse.ArgumentParser, overrides: Callable[[Flags], Mapping[str, Any]],
          argv: Sequence[str] | None = None) -> Flags:
    """Parse with the defaults that `overrides` gives for what the command line says (preset, data set)."""
    chosen, _ = parser.parse_known_args(argv)
    parser.set_defaults(**overrides(Flags(vars(chosen))))
    return Flags(vars(parser.parse_args(argv)))
