import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from data.cam_store import CamRecord, read_record, write_record
from data.image_bank import ImageBank
from data.loader import EpochBatches, LabelledCrops, Order, ScaledImages, TrainCrops, same_size_batches, train_loader
from data.sample import (
    ORIENTATION,
    InputError,
    orientation,
    palette,
    read_image,
    read_list,
    read_mask,
    read_photo,
    write_atomically,
    write_mask,
)
from data.transforms import cut, random_crop_box, random_resize_long, rescale, shift_hsv
from net.inputs import ImageInput
from refine.fusion import background_step, full_size_cams, fuse_scales

# --- files --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P", "1", "LA"])
def test_images_of_other_modes_are_converted(tmp_path, mode):
    path = tmp_path / ("image.jpg" if mode in ("L", "CMYK") else "image.png")
    Image.new("RGB", (7, 5), (200, 200, 200)).convert(mode).save(path)
    image = read_image(path)
    assert image.shape == (5, 7, 3) and image.dtype == np.uint8 and image.flags.writeable
    assert abs(int(image[2, 3, 0]) - 200) < (60 if mode == "1" else 8)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("read", [read_image, read_photo])
def test_grayscale_of_16_bits_keeps_its_range(tmp_path, suffix, read):
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(np.array([[0, 255, 256, 0x7FFF, 0xFFFF]], np.uint16)).save(path)
    assert read(path)[0].tolist() == [[value] * 3 for value in (0, 0, 1, 127, 255)]


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_images_without_a_white_are_refused(tmp_path, kind):
    Image.fromarray(np.ones((2, 2), kind)).save(tmp_path / "image.tif")
    for read in (read_image, read_photo):
        with pytest.raises(InputError, match=r"image\.tif: .*; convert it to 8 bits"):
            read(tmp_path / "image.tif")


@pytest.mark.parametrize("tag", range(10))
def test_photos_are_turned_as_viewers_turn_them(tmp_path, tag):
    exif = Image.Exif()
    exif[ORIENTATION] = tag
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (2, 3, 4), np.uint8)).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        seen = ImageOps.exif_transpose(image)
    seen = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")
    assert np.array_equal(read_photo(tmp_path / "a.png"), np.array(seen))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_cost_the_image(tmp_path):
    """Tags that Pillow reads but cannot write again, and a block that it cannot read at all."""
    turned, image = Image.Exif(), np.random.default_rng(0).integers(0, 256, (2, 3, 3), np.uint8)
    turned[ORIENTATION] = 6
    turned[0x0128] = 2                                                           # ResolutionUnit, a SHORT
    good = turned.tobytes()
    unwritable = good.replace(b"\x01\x28\x00\x03", b"\x01\x28\x00\x07")          # as raw bytes
    assert unwritable != good
    for number, exif in enumerate((unwritable, b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0", b"Exif\0\0")):
        Image.fromarray(image).save(tmp_path / f"{number}.png", exif=exif)
        with Image.open(tmp_path / f"{number}.png") as file:
            assert orientation(file) == (6 if number == 0 else 1)
        assert read_photo(tmp_path / f"{number}.png").shape == ((3, 2, 3) if number == 0 else (2, 3, 3))


def test_damaged_images_are_named(tmp_path):
    whole = tmp_path / "whole.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(whole)
    for name, content in (("cut.jpg", whole.read_bytes()[:700]), ("text.jpg", b"no image"), ("empty.jpg", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            read_image(tmp_path / name)
    with pytest.raises(InputError, match="missing"):
        read_image(tmp_path / "absent.jpg")


def test_masks(tmp_path):
    mask = np.array([[0, 1, 2], [255, 2, 0]], np.uint8)
    write_mask(tmp_path / "mask.png", mask)
    assert np.array_equal(read_mask(tmp_path / "mask.png", 2, (2, 3)), mask)
    image = Image.open(tmp_path / "mask.png")
    assert image.mode == "P" and image.getpalette()[3:6] == [128, 0, 0] and image.getpalette()[6:9] == [0, 128, 0]
    assert palette()[15 * 3:16 * 3] == [192, 128, 128] and palette()[255 * 3:] == [224, 224, 192]      # person, void
    with pytest.raises(InputError, match="size of their image"):
        read_mask(tmp_path / "mask.png", 2, (3, 2))
    with pytest.raises(InputError, match=r"class indices \[2\]"):
        read_mask(tmp_path / "mask.png", 1)
    image.convert("RGB").save(tmp_path / "colours.png")
    with pytest.raises(InputError, match="not colours"):
        read_mask(tmp_path / "colours.png", 2)


def test_lists(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png\n\n  b.c \n../../etc/passwd\n")
    assert read_list(path) == ["2007_000032", "b.c", "passwd"]           # no name leaves its folder
    path.write_bytes("\ufeffa b \r\nIMG 1\r\nphoto (2).JPG\r\n".encode())                   # as Windows may save it
    assert read_list(path) == ["a b", "IMG 1", "photo (2)"]
    path.write_text("2008_000001 -1\n2008_000002  1\n2008_000003  0\n")                # a list of one class in VOC
    assert read_list(path) == ["2008_000001", "2008_000002", "2008_000003"]
    path.write_text("/JPEGImages/a b.jpg /SegmentationClassAug/a b.png\n")
    assert read_list(path) == ["a b"]
    for text, reason in (("", "empty"), ("a\na\n", "twice"), ("..\n", "no image id")):
        path.write_text(text)
        with pytest.raises(InputError, match=reason):
            read_list(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a readable list"):
        read_list(path)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(file):
        file.write(b"half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_atomically(path, fail)
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


# --- augmentation ---------------------------------------------------------------------------------------------

def test_crops_show_the_image_where_the_box_says():
    rng = np.random.default_rng(0)
    for height, width in ((20, 30), (70, 30), (20, 90), (64, 64), (100, 100)):
        image = rng.integers(1, 255, (height, width, 3), dtype=np.uint8)
        placement = random_crop_box(height, width, 64, rng)
        y0, x0, top, left, h, w = placement
        crop = cut(image, placement, 64)
        assert crop.shape == (64, 64, 3) and (h, w) == (min(height, 64), min(width, 64))
        assert np.array_equal(crop[top:top + h, left:left + w], image[y0:y0 + h, x0:x0 + w])
        assert (crop != 0).all(2).sum() == h * w
    places = {random_crop_box(20, 100, 64, rng)[1:3] for _ in range(50)}
    assert len({x for x, _ in places}) > 5 and len({top for _, top in places}) > 5


def test_resizing():
    image = np.zeros((50, 100, 3), np.uint8)
    assert rescale(image, 0.5).shape == (25, 50, 3) and rescale(image, 0.001).shape == (1, 1, 3)
    sides = {random_resize_long(image, 30, 60, np.random.default_rng(i)).shape[1] for i in range(60)}
    assert min(sides) >= 30 and max(sides) <= 60 and len(sides) > 15


def test_normalisation_and_padding():
    image = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    prepare = ImageInput((0.5, 0.4, 0.3), (0.5, 0.2, 0.1))
    out = prepare(image)
    torch.testing.assert_close(out[0, :, 0, 0], torch.tensor([1.0, 3.0, 7.0]))
    out = prepare(image, torch.tensor([[0, 1, 1, 2]]))
    assert out[0, 0].tolist() == [[0, 1], [0, 0]]


# --- order and reproducibility ----------------------------------------------------------------------------------

def test_batches_continue_where_they_stopped():
    whole = list(EpochBatches(Order(10, 3, total_steps=7, seed=1)))
    assert len(whole) == 7 and whole[4:] == list(EpochBatches(Order(10, 3, 7, 1), first_step=4))
    first_epoch = [key for batch in whole[:3] for key in batch]
    assert {epoch for epoch, _ in first_epoch} == {0} and len({i for _, i in first_epoch}) == 9   # the tenth is dropped
    assert whole[3][0][0] == 1 and whole != list(EpochBatches(Order(10, 3, 7, 2)))


def test_samples_do_not_depend_on_the_workers(mini):
    ids = read_list(mini / "ImageSets/Segmentation/train.txt")
    dataset = TrainCrops(ids, np.eye(len(ids), 4, dtype=np.uint8), lambda n: mini / f"JPEGImages/{n}.jpg",
                         crop=64, resize_long=(48, 80), flip=True, seed=3)
    runs = [list(train_loader(dataset, Order(len(ids), 4, 5, seed=3), num_workers=workers)) for workers in (0, 2)]
    assert all(torch.equal(a, b) for one, two in zip(*runs) for a, b in zip(one, two))
    image, box, label = dataset[1, 5]
    assert image.dtype == label.dtype == torch.uint8 and image.shape == (3, 64, 64) and box.shape == (4,)
    assert not torch.equal(image, dataset[2, 5][0])                       # another epoch, another crop


def test_batches_of_equal_size(tmp_path):
    sizes = [(10, 8), (8, 10), (10, 8), (10, 8), (8, 10)]
    for i, size in enumerate(sizes):
        Image.new("RGB", size).save(tmp_path / f"{i}.jpg")
    batches = same_size_batches([str(i) for i in range(5)], lambda n: tmp_path / f"{n}.jpg", 2)
    assert sorted(map(tuple, batches)) == [(0, 2), (1, 4), (3,)]
    windows = same_size_batches([str(i) for i in range(5)], lambda n: tmp_path / f"{n}.jpg", 2, window=3)
    assert sorted(map(tuple, windows)) == [(0, 2), (1,), (3,), (4,)]
    _, scaled, size = ScaledImages([str(i) for i in range(5)], lambda n: tmp_path / f"{n}.jpg", (1.0, 0.5))[[0, 2]]
    assert [tuple(s.shape) for s in scaled] == [(2, 3, 8, 10), (2, 3, 4, 5)] and size == (8, 10)


# --- image bank -----------------------------------------------------------------------------------------------

def batch_of(values, labels):
    images = torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).clone()
    return images, torch.tensor([[0, 4, 0, v % 4] for v in values]), torch.tensor(labels)


def test_bank_keeps_the_latest_image_of_each_class():
    bank = ImageBank(3, 4, torch.device("cpu"))
    bank.update(*batch_of([1, 2, 3], [[1, 0, 0], [1, 1, 0], [0, 0, 0]]))
    assert bank.images[:, 0, 0, 0].tolist() == [2, 2, 0] and bank.filled.tolist() == [True, True, False]
    bank.update(*batch_of([7], [[0, 1, 0]]))
    assert bank.images[:, 0, 0, 0].tolist() == [2, 7, 0] and bank.labels[1].tolist() == [0, 1, 0]
    assert bank.boxes[1].tolist() == [0, 4, 0, 3]


def test_bank_draws_uniformly_from_filled_slots():
    bank = ImageBank(3, 4, torch.device("cpu"))
    assert len(bank.draw(4, torch.Generator())[0]) == 0
    bank.update(*batch_of([5, 6], [[1, 0, 0], [0, 0, 1]]))
    images, _, labels = bank.draw(4000, torch.Generator().manual_seed(0))
    share = (images[:, 0, 0, 0] == 5).float().mean().item()
    assert set(images[:, 0, 0, 0].tolist()) == {5, 6} and abs(share - 0.5) < 0.03
    assert torch.equal(labels[:, 0].bool(), images[:, 0, 0, 0] == 5)
    again = bank.draw(4000, torch.Generator().manual_seed(0))[0]
    assert torch.equal(images, again)
    empty = ImageBank(3, 4, torch.device("cpu"), allow_empty=True)
    empty.load_state_dict(bank.state_dict())
    assert set(empty.draw(400, torch.Generator().manual_seed(0))[0][:, 0, 0, 0].tolist()) == {0, 5, 6}


# --- CAM records ----------------------------------------------------------------------------------------------

def record():
    rng = np.random.default_rng(0)
    kinds = [[rng.random((3, 4, 6), np.float32), rng.random((3, 2, 3), np.float32) / 50] for _ in range(2)]
    return CamRecord(np.array([2, 5]), (61, 93), *kinds)


def test_records_survive_the_disk(tmp_path):
    write_record(tmp_path / "a.npz", record(), 7)
    found = read_record(tmp_path / "a.npz", 7, (61, 93))
    assert found.keys.tolist() == [0, 2, 5] and found.size == (61, 93)
    for written, read in zip(record().weight_maps + record().prototype_maps, found.weight_maps + found.prototype_maps):
        assert read.dtype == np.float32
        maxima = written.max((1, 2), keepdims=True)
        assert (np.abs(read - written) <= maxima * (0.5 / 65535 + 1e-6)).all()       # half a step, rounding
        np.testing.assert_allclose(read.max((1, 2), keepdims=True), maxima, rtol=1e-6)
    np.load(tmp_path / "a.npz", allow_pickle=False)["classes"]


def test_a_map_of_zeros_stays_zero(tmp_path):
    maps = [np.stack([np.zeros((2, 3), np.float32), np.full((2, 3), 1e-3, np.float32)])]
    write_record(tmp_path / "a.npz", CamRecord(np.array([1]), (6, 9), maps, maps), 1)
    read = read_record(tmp_path / "a.npz", 1).weight_maps[0]
    assert (read[0] == 0).all() and read[1] == pytest.approx(1e-3)


def test_records_of_the_earlier_format_say_what_to_do(tmp_path):
    maps = {f"{kind}_0": np.zeros((2, 3, 4), np.float16) for kind in ("weight", "prototype")}
    header = {"classes": np.array([1]), "num_classes": np.int64(1), "size": np.array([6, 8])}
    np.savez_compressed(tmp_path / "a.npz", **header, **maps)
    with pytest.raises(InputError, match=r"a\.npz: CAM record of an earlier format.*run make_cam.py again"):
        read_record(tmp_path / "a.npz", 1)


def test_unusable_records(tmp_path):
    path = tmp_path / "a.npz"
    with pytest.raises(InputError, match=r"make_cam\.py"):
        read_record(path, 7)
    write_record(path, record(), 7)
    with pytest.raises(InputError, match="of 7 classes, but the data set has 8"):
        read_record(path, 8)
    with pytest.raises(InputError, match="93x61"):
        read_record(path, 7, (93, 61))
    whole = path.read_bytes()
    for content in (whole[:len(whole) // 2], b"", b"PK\x03\x04", whole[:-30]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="damaged CAM record"):
            read_record(path, 7)
    np.savez(path, classes=np.array([object()], dtype=object))
    with pytest.raises(InputError, match="damaged CAM record"):
        read_record(path, 7)


def test_full_size_cams():
    weight, prototype = full_size_cams(record(), None)
    assert weight.shape == prototype.shape == (3, 61, 93)
    torch.testing.assert_close(weight.amax((1, 2)), torch.ones(3), atol=1e-3, rtol=0)
    stepped = full_size_cams(record(), 0.4)[0]
    torch.testing.assert_close(stepped[0], weight[0] + 0.4)
    torch.testing.assert_close(stepped[1:], 2 * weight[1:])
    assert fuse_scales([torch.zeros(2, 2, 2)], (4, 4)).abs().max() == 0          # a class nowhere active stays 0
    assert background_step(torch.ones(2, 1, 1), 0.25).flatten().tolist() == [1.25, 2]


def test_scales_come_from_the_list_or_the_range(mini):
    def sides(one_of_scales):
        crops = LabelledCrops(["mini_train_0001"], lambda name: mini / f"JPEGImages/{name}.jpg",
                              lambda name: mini / f"SegmentationClass/{name}.png", num_classes=4, crop=128,
                              scale=(0.5, 1.5), flip=False, seed=0, one_of_scales=one_of_scales)
        boxes = [crops[epoch, 0][1] for epoch in range(20)]
        return {int(box[1] - box[0]) for box in boxes}
    assert sides(True) == {32, 96}
    assert len(sides(False)) > 5 and all(32 <= side <= 96 for side in sides(False))


def test_colour_shift_is_bounded_and_reproducible():
    image = np.random.default_rng(0).integers(60, 200, (8, 8, 3), dtype=np.uint8)
    shifted = [shift_hsv(image, 10, np.random.default_rng(1)) for _ in range(2)]
    assert np.array_equal(*shifted) and not np.array_equal(shifted[0], image)
    assert np.abs(shifted[0].max(2).astype(int) - image.max(2)).max() <= 11       # value, and rounding
    assert np.abs(shift_hsv(image, 0, np.random.default_rng(1)).astype(int) - image).max() <= 3
