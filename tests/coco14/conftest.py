from importlib.util import find_spec

if find_spec("pycocotools") and find_spec("ijson"):
    from tests.coco14.generated import data_set, out, root  # noqa: F401  (fixtures)
else:
    collect_ignore_glob = ["test_*.py"]                     # both are optional
