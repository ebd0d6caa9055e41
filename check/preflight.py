"""Look before a run: every check in its order. Nothing is started, and nothing is written."""

from collections.abc import Sequence
from functools import partial

from check import duration, environment, images, memory, weights, work_dir
from check.finding import Finding, findings_of
from check.plan import Plan
from frame.flags import Flags
from frame.stage import Stage
from runtime.progress import progress

BY_ITSELF = {"environment": environment.check, "work directory": work_dir.check}
ON_IMAGES = {"data set": images.check, "results": work_dir.check_results, "weights": weights.check,
             "memory": memory.check, "disk": work_dir.check_disk, "time": duration.check}


def preflight(stages: Sequence[Stage], flags: Flags, full: bool) -> list[Finding]:
    """All findings on the stages with these flags.

    full  look at every image, not at a sample
    """
    plan = Plan(stages, flags, full)
    findings = []
    for subject, check in progress((BY_ITSELF | ON_IMAGES).items(), desc="check", unit="subject"):
        findings += findings_of(subject, partial(check, plan))
        if subject == "data set" and findings[-1].subject == subject:          # it could not even be opened
            break
    return findings
