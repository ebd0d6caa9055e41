"""What a check says: a line of the table, with the fix where something is wrong."""

import json
from collections.abc import Callable, Iterable
from typing import NamedTuple

from data.sample import InputError

OK, WARNING, ERROR = "ok", "warning", "error"


class Finding(NamedTuple):
    """subject: what was looked at; found: what it is; fix: what to do, empty where nothing is to be done."""
    subject: str
    level: str
    found: str
    fix: str = ""


def refused(subject: str, error: InputError) -> Finding:
    """An InputError, whose message is "what is wrong; what to do"."""
    found, _, fix = str(error).partition("; ")
    return Finding(subject, ERROR, found, fix)


def findings_of(subject: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """The findings of a check; what it refuses comes last."""
    findings = []
    try:
        for finding in check():                      # one by one: those before a refusal count too
            findings.append(finding)
    except InputError as error:
        findings.append(refused(subject, error))
    return findings


def as_table(findings: list[Finding]) -> str:
    """A line a finding, its fix below it, and a last line that counts them."""
    width = max(len(finding.subject) for finding in findings)
    margin = " " * (len(WARNING) + width + 4)
    lines = []
    for subject, level, found, fix in findings:
        lines.append(f"{level:{len(WARNING)}}  {subject:{width}}  " + found.replace("\n", "\n" + margin))
        if fix:
            lines.append(f"{margin}-> " + fix.replace("\n", "\n" + margin + "   "))
    counts = {level: sum(finding.level == level for finding in findings) for level in (ERROR, WARNING)}
    return "\n".join([*lines, f"errors: {counts[ERROR]}, warnings: {counts[WARNING]}; nothing was started"])


def as_json(findings: list[Finding]) -> str:
    return json.dumps({"ok": not any(finding.level == ERROR for finding in findings),
                       "findings": [finding._asdict() for finding in findings]}, indent=2) + "\n"
