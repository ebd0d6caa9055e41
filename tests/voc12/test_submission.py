"""The archive for the test server."""

from functools import partial

import numpy as np
import pytest
from PIL import Image

from data.sample import InputError, write_mask
from voc12.submission import check_archive, entry_name, write_archive


def test_archive_check_finds_what_is_wrong(tmp_path):
    (tmp_path / "image").mkdir()
    for name in "ab":
        Image.new("RGB", (6, 4)).save(tmp_path / f"image/{name}.png")
        write_mask(tmp_path / f"{name}.png", np.full((4, 6), 4))

    def check(ids="ab", competition="comp6"):
        write_archive(tmp_path / "x.zip", tmp_path, list("ab"), "comp6")
        check_archive(tmp_path / "x.zip", list(ids), competition, 4, lambda name: tmp_path / f"image/{name}.png")

    check()
    for wrong in ({"ids": "a"}, {"ids": "abc"}, {"competition": "comp5"}):
        with pytest.raises(InputError, match="entries"):
            check(**wrong)
    for write, message in ((Image.new("L", (6, 4)).save, "mode L"),
                           (partial(write_mask, mask=np.zeros((6, 4))), "4x6"),
                           (partial(write_mask, mask=np.full((4, 6), 9)), "index 9")):
        write(tmp_path / "b.png")
        with pytest.raises(InputError, match=message) as error:
            check()
        assert entry_name("comp6", "b") in str(error.value)
    (tmp_path / "x.zip").write_bytes(b"no zip")
    with pytest.raises(InputError, match="damaged"):
        check_archive(tmp_path / "x.zip", ["a"], "comp6", 4, None)
