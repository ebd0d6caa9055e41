"""Run the chain: from images with image-level labels to scored pseudo masks.

    python run_sample.py --voc12_root VOCdevkit/VOC2012                      # all stages, settings of the release
    python run_sample.py --voc12_root ... --preset paper --work_dir runs/paper
    python run_sample.py --voc12_root ... --from make_cam                    # what stands before is kept
    python run_sample.py --voc12_root ... --stages eval_cam,eval_sem_seg
    python run_sample.py --voc12_root ... --to eval_deeplab                  # the segmentation network too (GPU)
    python run_sample.py --voc12_root ... --check                            # only look whether all that would work
"""

import importlib
import sys
from dataclasses import dataclass

from data.sample import InputError, write_text
from frame.chain import LAST_DEFAULT_STAGE, STAGES
from frame.data_sets import open_data_set
from frame.flags import Flags, Group, build_parser, option, parse
from frame.presets import overrides
from frame.settings import GROUPS
from frame.settings.common import Data, Run
from frame.settings.irn import MaskSource
from frame.stage import open_work_dir, run_stage
from runtime import distributed
from runtime.command import exit_with_message, require_place
from runtime.work_dir import RESULT, log


@dataclass(frozen=True)
class Chain(Group, title="chain"):
    stages: str | None = option(None, f"comma-separated stages to run: {','.join(STAGES)}; default: all up to "
                                f"{LAST_DEFAULT_STAGE}")
    first: str | None = option(None, "first stage to run", choices=STAGES, flag="from")
    last: str | None = option(None, "last stage to run", choices=STAGES, flag="to")
    report: bool = option(True, "write report.html into the work directory at the end")
    check: str | None = option(None, "start nothing: say what is ready and what is wrong with data, weights, packages, "
                               "memory and disk, looking at a sample of the files or, with full, at all",
                               choices=("sample", "full"), bare="sample")
    check_json: str | None = option(None, "file that gets what --check says")


def main() -> None:
    """Run the stages that the flags choose, then print all scores."""
    flags = parse(build_parser([*GROUPS, Chain], __doc__.splitlines()[0]), overrides)
    only_check = flags[Chain].check or flags[Chain].check_json
    exit_with_message(lambda: (check_chain if only_check else run_chain)(flags))


def check_chain(flags: Flags) -> None:
    """Print what --check finds; exit status 2 if anything is an error."""
    from check.finding import ERROR, as_json, as_table
    from check.preflight import preflight

    chain = flags[Chain]
    if chain.check_json:
        require_place(chain.check_json, "--check_json")
    names = choose_stages(chain, flags[MaskSource].with_irn)
    findings = preflight([importlib.import_module(name) for name in names], flags, chain.check == "full")
    if distributed.is_main():
        print(as_table(findings))
        if chain.check_json:
            write_text(chain.check_json, as_json(findings))
    if any(finding.level == ERROR for finding in findings):
        sys.exit(2)


def run_chain(flags: Flags) -> None:
    for name in choose_stages(flags[Chain], flags[MaskSource].with_irn):
        run_stage(importlib.import_module(name), flags)
    work_dir = open_work_dir(flags[Run])
    if distributed.is_main():
        from report.scores_table import print_table

        print_table(work_dir, open_data_set(flags[Data]))
        if flags[Chain].report:
            make_report(flags[Run])


def make_report(run: Run) -> None:
    """Write report.html and print its path. An error says that the results themselves are safe."""
    from report.page import write_report  # a second of imports that a refused command need not wait for

    try:
        log.log(RESULT, "report: %s", write_report(run.work_dir, run.num_workers, run.device))
    except InputError as error:
        raise InputError(f"the results are complete in {run.work_dir}, but report.html could not be made: {error}\n"
                         f"mend that, then: python -m tools.report {run.work_dir}") from None


def choose_stages(chain: Chain, with_irn: bool) -> list[str]:
    """The stages that --stages, or --from and --to, name, in the order of the chain. Raises InputError."""
    if chain.stages:
        if chain.first or chain.last:
            raise InputError("--stages cannot be combined with --from and --to; give one of the two")
        wanted = [name.strip().removesuffix(".py") for name in chain.stages.split(",")]
        unknown = [name for name in wanted if name not in STAGES]
        if unknown:
            raise InputError(f"--stages: no stage {unknown[0]!r}; there are {', '.join(STAGES)}")
        return [name for name in STAGES if name in wanted]
    first = STAGES.index(chain.first) if chain.first else 0
    last_default = STAGES.index(LAST_DEFAULT_STAGE)
    if chain.last:
        last = STAGES.index(chain.last)
    else:
        last = last_default if first <= last_default else len(STAGES) - 1
    if first > last:
        raise InputError(f"--from {chain.first} comes after --to {chain.last}; exchange them")
    return [name for name in STAGES[first:last + 1] if with_irn or name != "train_irn"]


if __name__ == "__main__":
    main()
