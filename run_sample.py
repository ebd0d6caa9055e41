"""Run the chain: from images with image-level labels to scored pseudo masks.

    python run_sample.py --voc12_root VOCdevkit/VOC2012                      # all stages, settings of the release
    python run_sample.py --voc12_root ... --preset paper --work_dir runs/paper
    python run_sample.py --voc12_root ... --from make_cam                    # what stands before is kept
    python run_sample.py --voc12_root ... --stages eval_cam,eval_sem_seg
"""

import importlib

from data.sample import InputError
from tools import options
from tools.scores_table import print_table
from tools.work_dir import STAGES, WorkDir


def main() -> None:
    modules = {name: importlib.import_module(name) for name in STAGES}
    parser = options.build_parser([group for module in modules.values() for group in module.OPTIONS],
                                  __doc__.splitlines()[0])
    chain = parser.add_argument_group("chain")
    chain.add_argument("--stages", help=f"comma-separated stages to run: {','.join(STAGES)}; default: all")
    chain.add_argument("--from", dest="first", choices=STAGES, help="first stage to run")
    chain.add_argument("--to", dest="last", choices=STAGES, help="last stage to run")
    args = options.parse(parser)

    def run() -> None:
        for name in choose_stages(args):
            options.run_stage(modules[name], args)
        print_table(WorkDir(args.work_dir), options.open_data_set(args))

    options.exit_with_message(run)


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
    last = STAGES.index(args.last) if args.last else len(STAGES) - 1
    if first > last:
        raise InputError(f"--from {args.first} comes after --to {args.last}; exchange them")
    return list(STAGES[first:last + 1])


if __name__ == "__main__":
    main()
