"""The training crops of deeplab-pytorch, and the image that its CRF sees."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from data.loader import DeepLabCrops
from data.sample import write_mask
from data.transforms import cut_size, wrapped_bgr

MEAN = (104.008, 116.669, 122.675)


@pytest.fixture
def scene(tmp_path):
    """An image of 31 x 47 pixels and a label map of the same size."""
    rng = np.random.default_rng(0)
    image, label = rng.integers(0, 256, (31, 47, 3), dtype=np.uint8), rng.integers(0, 4, (31, 47), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "image.png")
    write_mask(tmp_path / "mask.png", label)
    return tmp_path, image, label


def crops_of(folder, **settings):
    settings = {"scale": (1.0,), "flip": False} | settings
    settings |= {"num_classes": 3, "crop": 40, "seed": 0, "one_of_scales": True}
    return DeepLabCrops(["image"], lambda _: folder / "image.png", lambda _: folder / "mask.png", **settings)


@pytest.mark.parametrize("scale", [0.5, 0.77, 1.0, 1.5])
def test_crops_are_cut_from_the_image_resized_by_opencv(scene, scale):
    folder, image, label = scene
    height, width = int(31 * scale), int(47 * scale)
    whole = cv2.resize(image.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    labels = np.asarray(Image.fromarray(label).resize((width, height), Image.NEAREST))
    places = set()
    for epoch in range(12):
        pixels, box, crop_label = crops_of(folder, scale=(scale,))[epoch, 0]
        assert pixels.dtype == torch.float32 and pixels.shape == (3, 40, 40) and crop_label.dtype == torch.uint8
        h, w = min(height, 40), min(width, 40)
        assert box.tolist() == [0, h, 0, w]                                # padding at the bottom and the right
        assert (pixels[:, h:] == 0).all() and (pixels[:, :, w:] == 0).all()
        assert (crop_label[h:] == 255).all() and (crop_label[:, w:] == 255).all()
        found = [(y, x) for y in range(height - h + 1) for x in range(width - w + 1)
                 if np.array_equal(pixels[:, :h, :w].permute(1, 2, 0), whole[y:y + h, x:x + w])]
        assert len(found) == 1
        y, x = found[0]
        assert np.array_equal(crop_label[:h, :w], labels[y:y + h, x:x + w])
        places.add(found[0])
    assert len(places) == 1 if scale <= 0.77 else len(places) > 4          # every place where the image is larger


def test_the_whole_crop_is_flipped(scene):
    folder, *_ = scene
    straight, either = crops_of(folder, scale=(0.5,)), crops_of(folder, scale=(0.5,), flip=True)
    pixels, _, label = straight[0, 0]                                      # the only place
    flipped = 0
    for epoch in range(20):
        image, box, mask = either[epoch, 0]
        if torch.equal(image, pixels):
            assert box.tolist() == [0, 15, 0, 23] and torch.equal(mask, label)
        else:
            flipped += 1
            assert torch.equal(image, pixels.flip(2)) and torch.equal(mask, label.flip(1))
            assert box.tolist() == [0, 15, 17, 40]
    assert 4 < flipped < 16


def test_sizes_are_cut_off():
    assert cut_size((31, 47), 0.77) == (23, 36) and cut_size((3, 400), 0.25) == (1, 100)
    assert cut_size((75, 94), 1.25) == (93, 117)                           # 93.75 and 117.5


def test_the_crf_of_deeplab_pytorch_sees_a_wrapped_image():
    image = np.array([[[200, 120, 100]]], np.uint8)                        # R, G, B
    # B 100 - 104.008 = -4.008 -> -4 -> 252; G 120 - 116.669 -> 3; R 200 - 122.675 -> 77
    assert wrapped_bgr(image, MEAN).tolist() == [[[252, 3, 77]]]
    assert wrapped_bgr(np.zeros((1, 1, 3), np.uint8), MEAN).tolist() == [[[256 - 104, 256 - 116, 256 - 122]]]
