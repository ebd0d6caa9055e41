"""Downloads from a server of this machine that breaks off, ignores ranges, or sends something else."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from torchvision.datasets import SBDataset
from torchvision.datasets.voc import DATASET_YEAR_DICT

from data.sample import InputError
from tests.helpers import files_of
from tests.voc12 import distributed as small
from voc12 import download, prepare
from voc12.download import Remote, fetch

CONTENT = bytes(range(256)) * 40


class Server(ThreadingHTTPServer):
    """files: path -> content. ranges: whether it knows them. breaks_after: bytes of an answer. asked: ranges asked."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.ranges, self.breaks_after, self.asked = {"/a.tar": CONTENT}, True, None, []

    def remote(self, name="a.tar", content=CONTENT):
        return Remote(f"http://127.0.0.1:{self.server_port}/{name}", hashlib.md5(content).hexdigest())


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        asked = self.headers["Range"]
        self.server.asked.append(asked)
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.ranges else 0
        if start and start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][:self.server.breaks_after])

    def log_message(self, format, *args):
        """Keep still."""


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_fetched_once(server, tmp_path):
    path = fetch(server.remote(), tmp_path / "downloads")
    assert path == tmp_path / "downloads/a.tar" and path.read_bytes() == CONTENT
    assert fetch(server.remote(), tmp_path / "downloads") == path and server.asked == [None]
    assert files_of(path.parent) == {"a.tar": CONTENT}                       # no part is left


@pytest.mark.parametrize("ranges", [True, False])
def test_an_earlier_part_is_gone_on_with(server, tmp_path, ranges):
    server.ranges = ranges
    (tmp_path / "a.tar.part").write_bytes(CONTENT[:1000])
    assert fetch(server.remote(), tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-"]


def test_a_part_that_is_complete(server, tmp_path):
    (tmp_path / "a.tar.part").write_bytes(CONTENT)
    assert fetch(server.remote(), tmp_path).read_bytes() == CONTENT


def test_broken_connections_are_renewed(server, tmp_path):
    server.breaks_after = 4000
    assert fetch(server.remote(), tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=4000-", "bytes=8000-"]


def test_a_server_that_sends_no_more(server, tmp_path):
    server.breaks_after, server.ranges = 4000, False
    with pytest.raises(InputError, match=r"a\.tar: download stopped after 0 MB \(the connection broke\); the same"):
        fetch(server.remote(), tmp_path)
    server.breaks_after = None
    assert fetch(server.remote(), tmp_path).read_bytes() == CONTENT


def test_another_sum(server, tmp_path):
    with pytest.raises(InputError, match=r"came with MD5 sum .* and was deleted; the same command fetches it anew"):
        fetch(server.remote(content=b"expected"), tmp_path)
    assert files_of(tmp_path) == {}


def test_no_such_file_and_no_server(server, tmp_path):
    with pytest.raises(InputError, match=r"b\.tar: download stopped .*404"):
        fetch(server.remote("b.tar"), tmp_path)
    with pytest.raises(InputError, match=r"download stopped .*--voc or --sbd"):
        fetch(Remote("http://127.0.0.1:1/a.tar", ""), tmp_path)


def test_no_space(server, tmp_path, monkeypatch):
    monkeypatch.setattr("runtime.disk.shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(InputError, match="part need about 0 MB, but only 0 MB are free; make room"):
        fetch(server.remote(), tmp_path)


def test_the_command(server, tmp_path, monkeypatch):
    for name, files, mode in (("VOC", small.voc_files(), "w"), ("SBD", small.sbd_files(), "w:gz")):
        content = Path(small.write_tar(tmp_path / name, files, mode)).read_bytes()
        server.files[f"/{name}.archive"] = content
        monkeypatch.setattr(download, name, server.remote(f"{name}.archive", content))
    given = "--out", str(tmp_path / "given"), "--voc", str(tmp_path / "VOC"), "--sbd", str(tmp_path / "SBD")
    prepare.main([*given, "--num_workers", "1"])
    prepare.main(["--out", str(tmp_path / "out"), "--download", "--num_workers", "1"])
    assert files_of(tmp_path / "given/VOC2012") == files_of(tmp_path / "out/VOC2012") != {}
    prepare.main(["--out", str(tmp_path / "half"), "--download", "--voc", str(tmp_path / "VOC"), "--num_workers", "1"])
    assert [path.name for path in (tmp_path / "half/downloads").iterdir()] == ["SBD.archive"]


def test_sums_are_those_of_torchvision():
    voc = DATASET_YEAR_DICT["2012"]
    assert (download.VOC.md5, download.VOC.file_name) == (voc["md5"], voc["filename"])
    assert (download.SBD.md5, download.SBD.file_name) == (SBDataset.md5, SBDataset.filename)
