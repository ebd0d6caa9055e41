"""Make the folder that --voc12_root needs from PASCAL VOC 2012 trainval and SBD.

    python -m voc12.prepare --out VOCdevkit --voc VOCtrainval_11-May-2012.tar --sbd benchmark.tgz
    python -m voc12.prepare --out VOCdevkit --download

Archives or the folders that they were unpacked into are read file by file, and only what is needed is written:

    OUT/VOC2012/JPEGImages  Annotations  SegmentationClass  ImageSets/Segmentation     as in the archive
    OUT/VOC2012/SegmentationClassAug/ID.png                    VOC's mask where VOC has one, else SBD's; 255 is kept
    OUT/VOC2012/ImageSets/Segmentation/train_aug.txt           VOC train and SBD train and val without VOC val, sorted

It may be interrupted: copies that are there in the right size, and converted masks, are kept.
"""

import argparse
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path, PurePosixPath

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))    # the repository, when run as a script

from data.sample import InputError, image_size, read_list, read_mask, write_atomically, write_mask, write_text
from runtime.command import default_workers, exit_with_message, positive_int
from runtime.disk import require_space
from runtime.parallel import map_images
from voc12 import download
from voc12.archives import Layout, Source, open_source, require_files
from voc12.sbd import read_mat
from voc12.voc import CLASS_NAMES

LISTS = "ImageSets/Segmentation"
TRAIN_AUG = f"{LISTS}/train_aug.txt"
VOC_ROOTS = ("", "VOC2012", "VOCdevkit/VOC2012")
VOC = Layout("VOC 2012 trainval", VOC_ROOTS, (f"{LISTS}/train.txt", f"{LISTS}/val.txt"))
VOC_TEST = Layout("VOC 2012 test", VOC_ROOTS, (f"{LISTS}/test.txt",))
SBD = Layout("SBD", ("", "dataset", "benchmark_RELEASE/dataset"), ("train.txt", "val.txt"))

COPIED = {"JPEGImages": ".jpg", "Annotations": ".xml", "SegmentationClass": ".png", LISTS: ".txt"}
COUNTS = {"train": 1464, "val": 1449, "train_aug": 10582, "test": 1456}       # images of the official lists
SOURCES = {"voc": "VOCtrainval_11-May-2012.tar, or the folder it was unpacked into",
           "sbd": "benchmark.tgz of SBD, or the folder it was unpacked into",
           "test": "VOC2012test.tar or its folder: adds the images of its segmentation task, for the server"}
BLOCK = 4096                                                                  # bytes that a file's size is rounded to


# --- what there is to do --------------------------------------------------------------------------------------------

def copied_files(source: Source) -> list[str]:
    """The files of VOC that are copied: not what a file manager left there, nor a train_aug.txt, which is made here."""
    paths = [path for path in map(PurePosixPath, source.sizes) if not path.name.startswith(".")]
    return [str(path) for path in paths if COPIED.get(str(path.parent)) == path.suffix and str(path) != TRAIN_AUG]


def augmented_ids(voc: Source, sbd: Source) -> list[str]:
    """VOC train and SBD (train and val) without VOC val, sorted."""
    train, val = (set(voc.lists[name]) for name in VOC.lists)
    return sorted((train | {name for ids in sbd.lists.values() for name in ids}) - val)


def require_complete(voc: Source, sbd: Source, augmented: Iterable[str]) -> None:
    """InputError unless every image of a list has its files."""
    official = [name for ids in voc.lists.values() for name in ids]
    images = [*official, *augmented]
    needed = {"JPEGImages": images, "Annotations": images, "SegmentationClass": official}
    require_files(voc, [f"{folder}/{name}{COPIED[folder]}" for folder, names in needed.items() for name in names])
    require_files(sbd, [mat_of(name) for name in without_official(voc, augmented)])


def without_official(voc: Source, ids: Iterable[str]) -> list[str]:
    """The ids that VOC has no mask of."""
    return [name for name in ids if f"SegmentationClass/{name}.png" not in voc.sizes]


def mat_of(name: str) -> str:
    return f"cls/{name}.mat"


def on_disk(sizes: Iterable[int]) -> int:
    """Bytes that files take."""
    return sum(-(-size // BLOCK) * BLOCK for size in sizes)


# --- one file -------------------------------------------------------------------------------------------------------

def write_copy(root: Path, job: tuple[str, bytes]) -> None:
    name, content = job
    write_atomically(root / name, lambda file: file.write(content))


def copy_official_mask(root: Path, name: str) -> None:
    """SegmentationClass/ID.png -> SegmentationClassAug/ID.png. Raises InputError for a mask that does not fit."""
    path, copy = (root / folder / f"{name}.png" for folder in ("SegmentationClass", "SegmentationClassAug"))
    read_mask(path, len(CLASS_NAMES), image_size(root / "JPEGImages" / f"{name}.jpg"))
    content = path.read_bytes()
    if not copy.exists() or copy.read_bytes() != content:
        write_copy(root, (f"SegmentationClassAug/{name}.png", content))


def convert_mask(root: Path, job: tuple[str, bytes]) -> None:
    """(cls/ID.mat, its content) -> SegmentationClassAug/ID.png. Raises InputError for a mask that does not fit."""
    path, content = job
    name = PurePosixPath(path).stem
    mask = read_mat(content, path)
    height, width = image_size(root / "JPEGImages" / f"{name}.jpg")
    if mask.shape != (height, width):
        raise InputError(f"{path}: mask of {mask.shape[1]}x{mask.shape[0]} pixels for an image of {width}x{height}; "
                         "VOC and SBD must be the releases that belong together, fetch both again")
    write_mask(root / "SegmentationClassAug" / f"{name}.png", mask)


# --- the folder -----------------------------------------------------------------------------------------------------

def prepare(root: Path, voc: Source, sbd: Source, num_workers: int) -> None:
    """Write everything but the test images. Raises InputError for bad input, before anything is written if it can."""
    augmented = augmented_ids(voc, sbd)
    require_complete(voc, sbd, augmented)
    list_path = root / TRAIN_AUG
    if list_path.exists() and set(read_list(list_path)) != set(augmented):
        raise InputError(f"{list_path}: lists other images than VOC and SBD give; move it away, or choose "
                         "another --out")

    copied = copied_files(voc)
    official = sorted(PurePosixPath(name).stem for name in copied if name.startswith("SegmentationClass/"))
    mats = [mat_of(name) for name in without_official(voc, augmented)
            if not (root / "SegmentationClassAug" / f"{name}.png").exists()]
    # A mask takes no more as PNG than in the .mat file, which holds the outlines too, but for its palette.
    space = on_disk(sbd.sizes[name] + BLOCK for name in mats) + on_disk(
        voc.sizes[f"SegmentationClass/{name}.png"] for name in official)
    copy_files(root, voc, copied, space, num_workers)
    (root / "SegmentationClassAug").mkdir(exist_ok=True)
    run_all(map_images(partial(copy_official_mask, root), official, num_workers, "VOC masks"))
    run_all(map_images(partial(convert_mask, root), sbd.read(mats), num_workers, "SBD masks", total=len(mats)))
    if not list_path.exists():
        write_text(list_path, "".join(f"{name}\n" for name in augmented))


def add_test_images(root: Path, test: Source, num_workers: int) -> None:
    """Copy the images of the segmentation task's test list. Raises InputError for bad input."""
    [(name, ids)] = test.lists.items()
    images = [f"JPEGImages/{name}.jpg" for name in ids]
    require_files(test, images)
    copy_files(root, test, [name, *images], 0, num_workers)


def copy_files(root: Path, source: Source, names: list[str], further_space: int, num_workers: int) -> None:
    """Copy the files that are not there in the right size. Raises InputError unless all this fits on the disk.

    further_space   bytes that will be needed after them
    """
    def there(name: str) -> bool:
        path = root / name
        return path.exists() and path.stat().st_size == source.sizes[name]

    missing = [name for name in names if not there(name)]
    print(f"{source.path}: {len(missing):,} files to copy of {len(names):,}")
    space = on_disk(source.sizes[name] for name in missing) + further_space
    print(require_space(root, space, "files to write", "--out"))
    for folder in COPIED:
        (root / folder).mkdir(parents=True, exist_ok=True)
    jobs = source.read(missing)
    run_all(map_images(partial(write_copy, root), jobs, num_workers, "copies", total=len(missing), unit="file"))


def run_all(results: Iterable) -> None:
    for _ in results:
        pass


def say_counts(root: Path) -> None:
    """Print how many images each list has, and where that differs from the official ones."""
    for name, expected in COUNTS.items():
        path = root / LISTS / f"{name}.txt"
        if path.exists():
            count = len(read_list(path))
            print(f"{name:9} {count:6,} images" + (
                "" if count == expected else f"   warning: the official list has {expected:,}"))
    print(f"ready: --voc12_root {root}")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, default=argparse.SUPPRESS, metavar="DIR",
                        help="folder to write VOC2012 into; may be the VOCdevkit that --voc names")
    for flag, help in SOURCES.items():
        parser.add_argument(f"--{flag}", type=Path, default=argparse.SUPPRESS, metavar="PATH", help=help)
    parser.add_argument("--download", action="store_true", help="fetch what --voc and --sbd do not name into "
                        "OUT/downloads (a part that is there is gone on with); may be deleted afterwards")
    parser.add_argument("--num_workers", type=positive_int, default=default_workers(), help="processes")
    args = parser.parse_args(argv)
    if not args.download and (("voc" in args) != ("sbd" in args) or not ("voc" in args or "test" in args)):
        parser.error("needs --voc and --sbd, --download for what is not there of them, or --test alone")
    root = args.out / "VOC2012"

    def write() -> None:
        if "voc" in args or args.download:
            voc = args.voc if "voc" in args else download.fetch(download.VOC, args.out / "downloads")
            sbd = args.sbd if "sbd" in args else download.fetch(download.SBD, args.out / "downloads")
            prepare(root, open_source(voc, VOC), open_source(sbd, SBD), args.num_workers)
        if "test" in args:
            add_test_images(root, open_source(args.test, VOC_TEST), args.num_workers)
        say_counts(root)

    exit_with_message(write, "--out")


if __name__ == "__main__":
    main()
