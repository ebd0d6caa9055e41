"""What one image is: reading images, masks and id lists, with errors that name the file and the fix."""

import os
import re
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, UnidentifiedImageError

IGNORE = 255                 # label of pixels that do not count
ORIENTATION = 0x0112         # EXIF tag; 1 is upright
# What shows pixels as the tag means them.
TURNS = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
         5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
         8: Image.Transpose.ROTATE_90}


class InputError(Exception):
    """Input that cannot be used. The message names the file and says what to do."""


def read_image(path: str | Path) -> np.ndarray:
    """Image file -> (H, W, 3) uint8 RGB. Grayscale, CMYK, RGBA and palette images are converted.

    Raises InputError when the file is missing, is no image, is truncated, or has values that are no 8 or 16 bits.
    """
    return np.array(_eight_bits(_decode(path, "image"), path).convert("RGB"))


def read_photo(path: str | Path) -> np.ndarray:
    """Image file as a viewer shows it, (H, W, 3) uint8 RGB: turned by its EXIF tag, what is transparent on white.

    Errors as read_image.
    """
    image = _decode(path, "image")
    turn = TURNS.get(orientation(image))
    image = _eight_bits(image, path)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array((image if turn is None else image.transpose(turn)).convert("RGB"))


def orientation(image: Image.Image) -> int:
    """The EXIF tag that says how a viewer turns an image, a key of TURNS; else 1, upright."""
    try:
        tag = image.getexif().get(ORIENTATION)
    except Exception:        # damaged tags raise whatever the parser ran into; the pixels are as good as without them
        return 1
    return tag if isinstance(tag, int) and tag in TURNS else 1


def _eight_bits(image: Image.Image, path: str | Path) -> Image.Image:
    """A grayscale image of 16 bits by its upper byte: Pillow would cut every value at 255. Others as they are."""
    if image.mode in ("I", "F"):
        raise InputError(f"{path}: image of 32 bits a pixel, which do not say where white is; convert it to 8 bits")
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image


def read_mask(path: str | Path, num_classes: int, size: tuple[int, int] | None = None) -> np.ndarray:
    """Mask file -> (H, W) uint8 class indices: 0 background, 1..num_classes foreground, 255 ignored.

    size  (H, W) of the image it belongs to; None skips that check
    Raises InputError for missing, damaged or coloured masks, wrong sizes and unknown indices.
    """
    image = _decode(path, "mask")
    if image.mode not in ("P", "L", "1", "I;16", "I"):
        raise InputError(f"{path}: mask of mode {image.mode}; class indices are needed "
                         "(palette or grayscale PNG, one index a pixel), not colours")
    mask = np.asarray(image)
    if size is not None and mask.shape != tuple(size):
        raise InputError(f"{path}: mask of {mask.shape[1]}x{mask.shape[0]} pixels for an image of "
                         f"{size[1]}x{size[0]}; masks must have the size of their image")
    if mask.size and ((mask > num_classes) & (mask != IGNORE)).any():
        found = np.unique(mask[(mask > num_classes) & (mask != IGNORE)])[:5].tolist()
        raise InputError(f"{path}: class indices {found}, but there are only {num_classes} foreground classes "
                         f"(0..{num_classes} and {IGNORE} are allowed); check the mask or the class list")
    return mask.astype(np.uint8)


def _decode(path: str | Path, kind: str) -> Image.Image:
    try:
        image = Image.open(path)
        image.load()
        return image
    except FileNotFoundError:
        raise InputError(f"{path}: {kind} file is missing; restore it or take its id out of the list") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: no {kind} that can be read; replace the file or take its id out of "
                         "the list") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: damaged {kind} ({error}); replace the file or take its id out of the list") from None


def image_size(path: str | Path) -> tuple[int, int]:
    """(H, W) of an image file, from its header alone. Raises InputError as read_image."""
    try:
        with Image.open(path) as image:
            return image.size[1], image.size[0]
    except FileNotFoundError:
        raise InputError(f"{path}: image file is missing; restore it or take its id out of the list") from None
    except OSError:
        raise InputError(f"{path}: no image that can be read; replace the file or take its id out of "
                         "the list") from None


def read_list(path: str | Path) -> list[str]:
    """Id list -> ids in order. A line is an id, which may hold spaces; or IRN's
    `/JPEGImages/ID.jpg /SegmentationClassAug/ID.png`; or VOC's `ID -1`, `ID  0` or `ID  1` of the lists of a class.

    Raises InputError when the list is missing, empty, not text or names an id twice.
    """
    try:
        return parse_list(Path(path).read_bytes(), path)
    except FileNotFoundError:
        raise InputError(f"{path}: list is missing; give another with --train_list, --infer_list or "
                         "--eval_list") from None
    except (IsADirectoryError, PermissionError) as error:
        raise InputError(f"{path}: not a readable list of ids ({error}); it needs one image id a line") from None


def parse_list(content: bytes, path: str | Path) -> list[str]:
    """The ids in the content of a list; errors as read_list, naming `path`."""
    try:
        lines = [line.strip() for line in content.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a readable list of ids ({error}); it needs one image id a line") from None
    ids = [image_id(_without_second_column(line)) for line in lines if line]
    if not ids:
        raise InputError(f"{path}: list is empty; it needs one image id a line")
    if any(not name or name in (".", "..") or "\0" in name for name in ids):
        raise InputError(f"{path}: line that is no image id; it needs one image id a line")
    if len(set(ids)) < len(ids):
        twice = next(name for i, name in enumerate(ids) if name in ids[:i])
        raise InputError(f"{path}: id {twice} stands there twice; each image may be listed once")
    return ids


def _without_second_column(line: str) -> str:
    """The part of a line that names the image: a space alone does not end it."""
    if line.startswith("/"):
        return re.split(r"\s+/", line)[0]
    in_class_list = re.fullmatch(r"(\S+)(?: -1|  [01])", line)           # "%s %2d", as VOC writes them
    return in_class_list[1] if in_class_list else line


def image_id(text: str) -> str:
    """The id in a bare id, a file name or a path: folders and the suffix of an image are dropped."""
    path = PurePosixPath(text)
    return path.stem if path.suffix.lower() in (".jpg", ".jpeg", ".png") else path.name


def write_atomically(path: str | Path, write) -> None:
    """Call write(file) on a temporary file beside `path`, then rename it: a torn file cannot exist.

    write  callable that takes a binary file object
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, atomically."""
    write_atomically(path, lambda file: file.write(text.encode()))


def label_path(folder: str | Path, name: str) -> Path:
    """The label map of image `name` in a folder of them: IR labels, pseudo masks, predictions."""
    return Path(folder) / f"{name}.png"


def palette(entries: int = 256) -> list[int]:
    """Colours of VOC: bits 0-2 of the index give the top bits of R, G, B, bits 3-5 the next, and so on."""
    index = np.arange(entries)
    colours = np.zeros((entries, 3), np.int64)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((index >> (3 * bit + channel)) & 1) << (7 - bit)
    return colours.flatten().tolist()


def write_mask(path: str | Path, mask: np.ndarray) -> None:
    """(H, W) uint8 class indices -> palette PNG with VOC's colours: viewers show colours, loaders read indices."""
    image = Image.fromarray(np.ascontiguousarray(mask, dtype=np.uint8), mode="L")
    image.putpalette(palette())
    write_atomically(path, lambda file: image.save(file, format="PNG"))
