"""Imports run one way, images -> features -> heads -> retrieval -> reports with runs beside; no file is ever code."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ROOT

PACKAGE = ROOT / "src" / "likeness"
FILES = sorted(PACKAGE.rglob("*.py"))
HEAVY = {"torch", "torchvision", "torchmetrics", "numpy", "scipy", "sklearn", "pytorch_lightning", "PIL", "matplotlib"}
ROOMS = ("images", "features", "heads", "retrieval", "reports")
SUPPORT = {"errors", "files", "console", "archive", "sealed", "locking"}
MAY_IMPORT = {
    **{room: {*ROOMS[: place + 1], *SUPPORT} for place, room in enumerate(ROOMS)},
    "runs": {"runs", *SUPPORT},
    "errors": set(),
    "archive": set(),
    "sealed": {"errors", "files"},
    "locking": {"errors", "files"},
    "files": {"errors"},
    "console": {"errors", "files"},
    "config": {"config", *SUPPORT},
    "assembly": {"assembly", *ROOMS, "runs", "config", *SUPPORT},
    "grid": {*ROOMS, "runs", "config", "assembly", *SUPPORT},
    "doctor": {*ROOMS, "runs", "config", *SUPPORT},
    "outside": {*ROOMS, "config", "assembly", *SUPPORT},
    "labelling": {*ROOMS, "config", "assembly", *SUPPORT},
    "model": {*ROOMS, "config", "assembly", *SUPPORT},
    "serving": {"serving", *ROOMS, "finding", "model", *SUPPORT},
    "onnx_file": {*ROOMS, "model", *SUPPORT},
    "export": {*ROOMS, "runs", "model", "onnx_file", "__version__", *SUPPORT},
    "embedding": {*ROOMS, "config", "assembly", "model", *SUPPORT},
    "__init__": {"model"},
    "finding": {*ROOMS, "model", *SUPPORT},
    "querying": {*ROOMS, "finding", *SUPPORT},
    "indexing": {*ROOMS, "config", "assembly", "model", "finding", *SUPPORT},
    "homes": {*ROOMS, "config", "assembly", *SUPPORT},
    "app": {"commands", "runs", *SUPPORT},
    "commands": {
        "commands",
        *ROOMS,
        *("runs", "config", "assembly", "doctor", "model", "export", "embedding", "homes", "labelling"),
        *("finding", "indexing", "querying", "serving"),
        *SUPPORT,
    },
}
MAY_IMPORT["reports"] |= {"runs"}
MAY_IMPORT["runs/launch.py"] = MAY_IMPORT["runs"] | {"config"}
IMPORTERS = ("importlib.import_module", "import_module", "__import__")
FORBIDDEN_CALLS = {
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "marshal.load",
    "marshal.loads",
    "shelve.open",
    "joblib.load",
    "eval",
    "exec",
    "__import__",
    "runpy.run_path",
    "yaml.load",
    "yaml.unsafe_load",
    "torch.hub.load",
    "torch.hub.load_state_dict_from_url",
    "torch.jit.load",
    "os.system",
    "os.popen",
}


def imports(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything imported, at the top or in a function, relative or by a literal name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = (*package[: len(package) - node.level + 1],) if node.level else ()
            module = ".".join((*start, *filter(None, [node.module])))
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in IMPORTERS:
            yield from ((node.lineno, str(name.value)) for name in node.args[:1] if isinstance(name, ast.Constant))


def wrong_arrows(file: str, source: str) -> list[str]:
    """``file:line imports name`` for each import that runs against the picture; ``file`` is relative to the package."""
    room = file.split("/")[0].removesuffix(".py")
    allowed = MAY_IMPORT.get(file, MAY_IMPORT.get(room, set()))
    package = ("likeness", *file.split("/")[:-1])
    found = [(line, name.split(".")) for line, name in imports(ast.parse(source), package)]
    return [
        f"{file}:{line} imports {'.'.join(parts)}"
        for line, parts in sorted(found)
        if parts[0] == "likeness" and len(parts) > 1 and parts[1] not in allowed
    ]


def code_runners(file: str, source: str) -> list[str]:
    """``file:line call`` for each call through which a file, a text or a shell could run code."""
    tree = ast.parse(source)
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
    found = []
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        first, dot, rest = ast.unparse(call.func).partition(".")
        called = names.get(first, first) + dot + rest
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        bad = called in FORBIDDEN_CALLS or called.endswith(".extractall") or options.get("shell", "False") != "False"
        bad |= called == "torch.load" and options.get("weights_only") != "True"
        bad |= options.get("weights_only") == "False" or options.get("allow_pickle", "False") != "False"
        if bad:
            found.append(f"{file}:{call.lineno} {called}")
    return found


def heavy_at_the_top(source: str) -> list[str]:
    """What a module imports when it is imported itself, where that is heavy or a room."""
    top = [node for node in ast.parse(source).body if not isinstance(node, ast.FunctionDef | ast.ClassDef)]
    names = [name for node in top for _, name in imports(node, ("likeness",))]
    rooms = tuple(f"likeness.{room}" for room in (*ROOMS, "assembly"))
    return [name for name in names if name.split(".")[0] in HEAVY or name.startswith(rooms)]


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def test_the_package_was_found():
    assert {relative(path).split("/")[0] for path in FILES} >= {*ROOMS, "runs", "config", "assembly"}


def test_every_part_is_in_the_picture():
    parts = {relative(path).split("/")[0].removesuffix(".py") for path in FILES} - {"__init__"}
    assert parts <= MAY_IMPORT.keys()


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_no_import_runs_against_the_picture(path):
    assert wrong_arrows(relative(path), path.read_text()) == []


@pytest.mark.fault("F45")
@pytest.mark.parametrize("path", [*FILES, ROOT / "train.py", ROOT / "evaluate.py"], ids=lambda path: path.name)
def test_no_file_is_run_as_code(path):
    assert code_runners(path.name, path.read_text()) == []


WRONG_ARROWS = [
    ("images/a.py", "from likeness.features.store import Shelf", "images/a.py:1 imports likeness.features.store.Shelf"),
    ("images/a.py", "\nimport likeness.heads.dense", "images/a.py:2 imports likeness.heads.dense"),
    ("heads/a.py", "from likeness.retrieval import metric", "heads/a.py:1 imports likeness.retrieval.metric"),
    ("heads/a.py", "def f():\n    from likeness import reports", "heads/a.py:2 imports likeness.reports"),
    ("heads/a.py", "from ..reports import style", "heads/a.py:1 imports likeness.reports.style"),
    ("features/a.py", "from .. import assembly", "features/a.py:1 imports likeness.assembly"),
    ("features/a.py", "import_module('likeness.heads.conv')", "features/a.py:1 imports likeness.heads.conv"),
    ("runs/a.py", "from likeness.images.table import Row", "runs/a.py:1 imports likeness.images.table.Row"),
    ("runs/a.py", "from likeness.config import guard", "runs/a.py:1 imports likeness.config.guard"),
    ("retrieval/a.py", "from likeness.runs import journal", "retrieval/a.py:1 imports likeness.runs.journal"),
    ("reports/a.py", "from likeness.config import checking", "reports/a.py:1 imports likeness.config.checking"),
    ("errors.py", "from likeness.files import digest", "errors.py:1 imports likeness.files.digest"),
    ("config/a.py", "from likeness.heads import dense", "config/a.py:1 imports likeness.heads.dense"),
    ("cellar/a.py", "from likeness.errors import listed", "cellar/a.py:1 imports likeness.errors.listed"),
]


@pytest.mark.parametrize(("file", "source", "told"), WRONG_ARROWS)
def test_a_wrong_arrow_is_named_with_file_and_line(file, source, told):
    assert wrong_arrows(file, source) == [told]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("heads/a.py", "from likeness.features.datamodule import Split"),
        ("heads/a.py", "from .dense import Dense\nfrom likeness.heads import conv"),
        ("reports/a.py", "from likeness.runs.journal import read"),
        ("runs/launch.py", "from likeness.config.refusals import refused"),
        ("images/a.py", "import numpy\nfrom likeness.errors import listed"),
    ],
)
def test_a_right_arrow_passes(file, source):
    assert wrong_arrows(file, source) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.load(file)",
        "import pickle as p\np.loads(text)",
        "from pickle import load\nload(file)",
        "eval('1')",
        "exec(text)",
        "import yaml\nyaml.load(file)",
        "archive.extractall(folder)",
        "subprocess.run(line, shell=True)",
        "import torch\ntorch.load(path)",
        "from torch import load as read\nread(path, weights_only=False)",
        "anything(weights_only=False)",
        "import torch\ntorch.hub.load('a/b', 'c')",
        "import numpy\nnumpy.load(path, allow_pickle=True)",
        "import os\nos.system(line)",
        "import joblib\njoblib.load(path)",
        "__import__(name)",
        "import torch\ntorch.jit.load(path)",
    ],
)
def test_a_call_that_could_run_code_is_named(source):
    lines = len(source.splitlines())
    assert [told.split()[0] for told in code_runners("a.py", source)] == [f"a.py:{lines}"]


def test_calls_on_data_pass():
    source = "import torch, pickle\ntorch.load(p, weights_only=True)\nmodel.eval()\npickle.dumps(x)\nzip.extract(n)"
    assert code_runners("a.py", source) == []


@pytest.mark.parametrize("script", ["train.py", "evaluate.py"])
def test_an_entry_script_imports_what_is_heavy_inside_its_function_only(script):
    source = (ROOT / script).read_text()
    assert heavy_at_the_top(source) == []
    assert "from likeness.assembly import" in source


def test_a_heavy_import_at_the_top_is_seen():
    source = "import torch\nif x:\n    from likeness.assembly import scoring\ndef f():\n    import numpy"
    assert heavy_at_the_top(source) == ["torch", "likeness.assembly.scoring"]


SLOW = HEAVY | {"beartype", "joblib", "optuna", "submitit", "triton", "wandb"}


@pytest.mark.parametrize("names", ["likeness.config.checking, likeness.runs.launch", "likeness.app", "train, evaluate"])
def test_help_answers_at_once(names):
    """What is reachable at import time is asked of a fresh interpreter."""
    told = loaded_by(f"import {names}")
    assert "likeness.errors" in told
    assert SLOW & told == set()


@pytest.mark.parametrize("words", ["train.py --help", "train.py --cfg job", "evaluate.py --help"])
def test_a_command_that_only_shows_options_imports_nothing_slow_with_the_plugins_that_hydra_looks_through(words):
    script, *options = words.split()
    run = f"sys.argv[1:] = {options}\nsys.argv[0] = {script!r}\nrunpy.run_path({script!r}, run_name='__main__')"
    told = loaded_by(f"import runpy\ntry:\n    exec({run!r})\nexcept SystemExit:\n    pass")
    assert "hydra_plugins.likeness_launchers" in told
    assert SLOW & told == set()


def loaded_by(source: str) -> set[str]:
    """The modules that a fresh interpreter has after these lines."""
    told = subprocess.run(
        [sys.executable, "-c", f"import sys\n{source}\nprint(*sys.modules, file=sys.stderr)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(told.stderr.split())
