"""Run the chain: from images with image-level labels to scored pseudo masks.

    python run_sample.py --voc12_root VOCdevkit/VOC2012                      # all stages, settings of the release
    python run_sample.py --voc12_root ... --preset paper --work_dir runs/paper
    python run_sample.py --voc12_root ... --from make_cam                    # what stands before is kept
    python run_sample.py --voc12_root ... --stages eval_cam,eval_sem_seg
    python run_sample.py --voc12_root ... --to eval_deeplab                  # the segmentation network too (GPU)
"""

import importlib

from data.sample import InputError
from frame import options
from report.page import write_report
from report.scores_table import print_table
from runtime import distributed
from runtime.command import exit_with_message, flag
from runtime.work_dir import LAST_DEFAULT_STAGE, RESULT, STAGES, WorkDir, log


def main() -> None:
    """Run the stages that the flags choose, then print all scores."""
    modules = stage_modules()
    parser = chain_parser(modules, __doc__.splitlines()[0])
    chain = parser.add_argument_group("chain")
    chain.add_argument("--stages", help=f"comma-separated stages to run: {','.join(STAGES)}; "
                                        f"default: all up to {LAST_DEFAULT_STAGE}")
    chain.add_argument("--from", dest="first", choices=STAGES, help="first stage to run")
    chain.add_argument("--to", dest="last", choices=STAGES, help="last stage to run")
    flag(chain, "report", True, "write report.html into the work directory at the end")
    args = options.parse(parser)

    def run() -> None:
        for name in choose_stages(args):
            options.run_stage(modules[name], args)
        work_dir = WorkDir(args.work_dir, args.quiet)
        if distributed.is_main():
            print_table(work_dir, options.open_data_set(args))
            if args.report:
                make_report(args)

    exit_with_message(run)


def make_report(args) -> None:
    """Write report.html and print its path. An error says that the results themselves are safe."""
    try:
        log.log(RESULT, "report: %s", write_report(args.work_dir, args.num_workers))
    except InputError as error:
        raise InputError(f"the results are complete in {args.work_dir}, but report.html could not be made: {error}\n"
                         f"mend that, then: python -m tools.report {args.work_dir}") from None


def run_alone(name: str) -> None:
    """Run one stage script: its help shows its own flags, but it takes those of all stages, like the chain."""
    modules = stage_modules()
    stage = modules[name]
    options.build_parser(stage.OPTIONS, stage.__doc__.splitlines()[0], prog=f"{name}.py").parse_known_args()
    args = options.parse(chain_parser(modules, "", prog=f"{name}.py"))
    exit_with_message(lambda: options.run_stage(stage, args, force=args.overwrite))


def stage_modules() -> dict:
    return {name: importlib.import_module(name) for name in STAGES}


def chain_parser(modules: dict, description: str, **kwargs):
    """A parser with the flags of all stages."""
    return options.build_parser([group for module in modules.values() for group in module.OPTIONS], description, **kwargs)


def choose_stages(args) -> list[str]:
    """The stages that --stages, or --from and --to, name, in the order of the chain. Raises InputError."""
    if args.stages:
        if args.first or args.last:
            raise InputError("--stages cannot be combined with --from and --to; give one of the two")
        wanted = [name.strip().removesuffix(".py") for name in args.stages.split(",")]
        unknown = [name for name in wanted if name not in STAGES]
        if unknown:
            raise InputError(f"--stages: no stage {unknown[0]!r}; there are {', '.join(STAGES)}")
        return [name for name in STAGES if name in wanted]
    first = STAGES.index(args.first) if args.first else 0
    last_default = STAGES.index(LAST_DEFAULT_STAGE)
    if args.last:
        last = STAGES.index(args.last)
    else:
        last = last_default if first <= last_default else len(STAGES) - 1
    if first > last:
        raise InputError(f"--from {args.first} comes after --to {args.last}; exchange them")
    return [name for name in STAGES[first:last + 1] if args.with_irn or name != "train_irn"]


if __name__ == "__main__":
    main()
