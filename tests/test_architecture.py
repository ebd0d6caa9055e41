"""docs/ARCHITECTURE.md, checked: who may import whom, and how large things may be."""

import ast
import re

from tests.helpers import ROOT

STAGES = {path.stem for path in ROOT.glob("*.py")} - {"run_sample", "hubconf"}
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
BELOW["predict"] = set(BELOW)
BELOW["check"] = set(BELOW)
BELOW["paper"] = BELOW["parity"] = set(BELOW)
BELOW["tools"] = BELOW["benchmarks"] = set(BELOW) | STAGES
OURS = set(BELOW) | STAGES | {"run_sample", "hubconf", "tests"}

LARGEST_ROOM = 0.20                # of the lines of all rooms and stage scripts
LARGEST_FILE = 350                 # lines
LARGEST_FUNCTION = 60


def product_files():
    return [*ROOT.glob("*.py"), *(path for room in BELOW for path in (ROOT / room).rglob("*.py"))]


def lines_of(path):
    return len(path.read_text(encoding="utf-8").splitlines())


def functions_of(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


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
    for path in product_files():
        text = path.read_text(encoding="utf-8")
        assert "allow_pickle=True" not in text and "weights_only=False" not in text and "pickle.load" not in text, path
        for call in re.findall(r"torch\.load\([^)]*\)", text):
            assert "weights_only=True" in call, path


def test_the_picture_names_every_module():
    text = (ROOT / "docs/ARCHITECTURE.md").read_text(encoding="utf-8")
    modules = [path for path in product_files() if path.name != "__init__.py"]
    assert [str(path.relative_to(ROOT)) for path in modules if path.name not in text] == []


# --- circles ------------------------------------------------------------------------------------------------------

def modules_imported(path):
    """The files of ours that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            for place in (parts, parts[:-1]):               # from data import sample; from data.sample import IGNORE
                file, package = ROOT.joinpath(*place).with_suffix(".py"), ROOT.joinpath(*place, "__init__.py")
                if place and (file.exists() or package.exists()):
                    yield file if file.exists() else package
                    break


def test_no_circles():
    left = {path: {found for found in modules_imported(path) if found != path} for path in product_files()}
    while free := [path for path, needs in left.items()
                   if not needs & left.keys() or not any(path in others for others in left.values())]:
        for path in free:
            del left[path]
    assert sorted(str(path.relative_to(ROOT)) for path in left) == []


# --- sizes --------------------------------------------------------------------------------------------------------

def test_no_room_is_too_large():
    lines = {room: sum(map(lines_of, (ROOT / room).rglob("*.py"))) for room in BELOW}
    stages = sum(map(lines_of, ROOT.glob("*.py")))
    whole = sum(lines.values()) + stages
    shares = {room: round(count / whole, 3) for room, count in (lines | {"stage scripts": stages}).items()}
    assert {room: share for room, share in shares.items() if share > LARGEST_ROOM} == {}


def test_no_file_is_too_long():
    files = [*product_files(), *(ROOT / "tests").rglob("*.py")]
    assert {str(path.relative_to(ROOT)): lines_of(path) for path in files if lines_of(path) > LARGEST_FILE} == {}


def test_no_function_is_too_long():
    long = {f"{path.relative_to(ROOT)}: {function.name}": function.end_lineno - function.lineno + 1
            for path in product_files() for function in functions_of(path)}
    assert {name: lines for name, lines in long.items() if lines > LARGEST_FUNCTION} == {}


def test_no_function_takes_args():
    """Flags end at the entry of a stage or command; what is below it takes the values it needs."""
    wrong = [f"{path.relative_to(ROOT)}: {function.name}" for path in product_files()
             for function in functions_of(path) if "args" in {argument.arg for argument in (
                 *function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)}]
    assert wrong == []
