"""docs/ARCHITECTURE.md, checked: who may import whom."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STAGES = {path.stem for path in ROOT.glob("*.py")} - {"run_sample"}
# What a room may import besides itself: arrows run down only.
BELOW = {
    "net": set(),
    "data": set(),
    "runtime": {"data"},
    "refine": {"data", "net"},
    "voc12": {"runtime", "data"},
    "coco14": {"runtime", "data"},
}
BELOW["frame"] = set(BELOW)
BELOW["report"] = set(BELOW)
BELOW["segmentation"] = set(BELOW)
BELOW["paper"] = BELOW["parity"] = set(BELOW)
BELOW["tools"] = BELOW["benchmarks"] = set(BELOW) | STAGES
STAGE_MAY_IMPORT = {"report", *BELOW["report"]}
OURS = set(BELOW) | STAGES | {"run_sample", "tests"}


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def test_arrows_run_one_way():
    wrong = [f"{path.relative_to(ROOT)} imports {name}" for room, below in BELOW.items()
             for path in (ROOT / room).rglob("*.py") for name in imports_of(path) if name in OURS - below - {room}]
    assert wrong == []


def test_only_run_sample_imports_stages():
    wrong = [f"{path.name} imports {name}" for path in ROOT.glob("*.py") if path.stem in STAGES
             for name in imports_of(path) if name in STAGES]
    assert wrong == []


def test_net_reads_no_files():
    for path in (ROOT / "net").glob("*.py"):
        assert not re.search(r"\bopen\(|torch\.load|np\.load|Image\.open", path.read_text()), path


def test_nothing_loads_pickles():
    for path in [*ROOT.glob("*.py"), *(p for folder in BELOW for p in (ROOT / folder).rglob("*.py"))]:
        text = path.read_text(encoding="utf-8")
        assert "allow_pickle=True" not in text and "weights_only=False" not in text and "pickle.load" not in text, path
        for call in re.findall(r"torch\.load\([^)]*\)", text):
            assert "weights_only=True" in call, path


def test_the_picture_names_every_module():
    text = (ROOT / "docs/ARCHITECTURE.md").read_text(encoding="utf-8")
    modules = [path for path in [*ROOT.glob("*.py"), *(p for f in BELOW for p in (ROOT / f).glob("*.py"))]
               if path.name != "__init__.py"]
    assert [str(path.relative_to(ROOT)) for path in modules if path.name not in text] == []
