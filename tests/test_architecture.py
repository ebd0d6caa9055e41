"""docs/ARCHITECTURE.md, checked: who may import whom."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STAGES = {path.stem for path in ROOT.glob("*.py")} - {"run_sample"}
# A folder may import those on its right.
ALLOWED = {
    "net": {"net"},
    "data": {"data"},
    "voc12": {"voc12", "data"},
    "coco14": {"coco14", "data", "tools"},
    "tools": {"tools", "data", "net", "voc12", "coco14", "tests"},
    "benchmarks": {"benchmarks", "tools", "data", "net", "coco14"},
}
OURS = set(ALLOWED) | STAGES | {"run_sample", "tests"}


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def test_arrows_run_one_way():
    wrong = [f"{path.relative_to(ROOT)} imports {name}" for folder, allowed in ALLOWED.items()
             for path in (ROOT / folder).rglob("*.py") for name in imports_of(path) if name in OURS - allowed]
    assert wrong == []


def test_only_run_sample_imports_stages():
    wrong = [f"{path.name} imports {name}" for path in ROOT.glob("*.py") if path.stem in STAGES
             for name in imports_of(path) if name in STAGES]
    assert wrong == []


def test_net_reads_no_files():
    for path in (ROOT / "net").glob("*.py"):
        assert not re.search(r"\bopen\(|torch\.load|np\.load|Image\.open", path.read_text()), path


def test_nothing_loads_pickles():
    for path in [*ROOT.glob("*.py"), *(p for folder in ALLOWED for p in (ROOT / folder).rglob("*.py"))]:
        text = path.read_text(encoding="utf-8")
        assert "allow_pickle=True" not in text and "weights_only=False" not in text and "pickle.load" not in text, path
        for call in re.findall(r"torch\.load\([^)]*\)", text):
            assert "weights_only=True" in call, path


def test_the_picture_names_every_module():
    text = (ROOT / "docs/ARCHITECTURE.md").read_text(encoding="utf-8")
    modules = [path for path in [*ROOT.glob("*.py"), *(p for f in ALLOWED for p in (ROOT / f).glob("*.py"))]
               if path.name != "__init__.py"]
    assert [str(path.relative_to(ROOT)) for path in modules if path.name not in text] == []
