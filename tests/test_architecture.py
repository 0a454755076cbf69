# SPDX-License-Identifier: Apache-2.0
"""Rules for the sources: who may import whom, how long a file is, how it starts."""

import ast
from pathlib import Path

import pytest

from tests import counts
from tests.helpers import ROOT

PACKAGES = (
    *("augment", "data", "evaluation", "models", "native", "photos", "pretrained"),
    *("system", "training"),
)
PROGRAMS = ("train", "eval")

# What a package may import besides itself and `system`: downwards only.
MAY_IMPORT = {
    "system": set(),
    "native": set(),
    "data": set(),
    "models": {"native"},
    "augment": {"data", "native"},
    "training": {"augment", "data", "models", "native"},
    "pretrained": set(),
    "evaluation": {"config", "data", "models", "pretrained", "training"},
    "photos": {"data", "evaluation", "pretrained"},
    "config": {"augment", "data", "models", "native", "training"},
    "train": {*PACKAGES, "config"} - {"photos"},
    "eval": set(PACKAGES),
    # A program that needs to know every setting: it stands above `config`, and nothing
    # imports it.
    "training/search.py": {"config"},
}

# The same within `system`.
IN_SYSTEM = {
    "settings": {"cli", "errors"},
    "cli": {"console", "errors", "flagfiles"},
    "console": {"errors"},
    "files": {"errors"},
    "flagfiles": {"untrusted"},
}


LIBRARY = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.py", *(f"{package}/**/*.py" for package in PACKAGES))
    for path in ROOT.glob(pattern)
)
ALL_SOURCES = LIBRARY + sorted(
    path.relative_to(ROOT)
    for folder in ("tests", "benchmarks")
    for path in ROOT.glob(f"{folder}/**/*.py")
)


def tree(path):
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def imports(path):
    """Dotted names of all modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module and node.level == 0, f"{path}: relative import"
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def words(path):
    """All names in a file: variables, attributes, keywords, parts of modules."""
    found = {part for name in imports(path) for part in name.split(".")}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.keyword):
            found.add(node.arg or "")  # None is **
    return found


def test_the_sources_are_found():
    assert {"train.py", "system/cli.py", "models/lenet.py"} <= {
        p.as_posix() for p in LIBRARY
    }
    assert "lenet" in words("models/__init__.py")


@pytest.mark.parametrize("path", LIBRARY, ids=str)
def test_who_imports_whom(path):
    part = path.parts[0].removesuffix(".py")
    allowed = MAY_IMPORT.get(path.as_posix(), MAY_IMPORT[part])
    ours = {*PACKAGES, *PROGRAMS, "benchmarks", "tests"}
    imported = {name.partition(".")[0] for name in imports(path)} & ours
    assert imported <= allowed | {part, "system"}


@pytest.mark.parametrize(
    "path", [p for p in LIBRARY if p.parts[0] == "system"], ids=str
)
def test_who_imports_whom_in_system(path):
    imported = {name.split(".")[1] for name in imports(path) if "system." in name}
    assert imported <= IN_SYSTEM.get(path.stem, set())


def test_no_source_is_too_long():
    assert not [n for _, n in counts.long_files() if not n.startswith("tests/")]


def test_lines_and_lookups_are_counted():
    path = Path("tests/helpers.py")
    assert counts.count_lines(path) > counts.count_code(path) > 10
    assert counts.is_test(path) and path in counts.sources()
    assert counts.LOOKUP.findall("config['a'], run[\"config\"]['b']") == [
        "config",
        'run["config"]',
    ]


@pytest.mark.parametrize("path", LIBRARY, ids=str)
def test_no_keras(path):
    assert not words(path) & {"keras", "tf_keras"}


# Names of functions that run code from a file, or do so by default.
PICKLES = {
    *("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal"),
    *("shelve", "jsonpickle", "allow_pickle", "read_pickle", "to_pickle", "read_hdf"),
    *("load_model", "saved_model_cli", "unsafe_load", "full_load", "extractall"),
}
LOADERS = {("np", "load"), ("numpy", "load"), ("torch", "load"), ("yaml", "load")}
EXECUTORS = {"eval", "exec", "compile", "__import__"}


def unsafe(source):
    """Names in a source that execute code from a file or listen on all addresses."""
    found = set()
    for node in ast.walk(source):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if (node.value.id, node.attr) in LOADERS:
                found.add(f"{node.value.id}.{node.attr}")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found |= {node.func.id} & EXECUTORS
        if isinstance(node, ast.keyword) and node.arg == "shell":
            found.add("shell")
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {w for w in ("0.0.0.0", "--bind_all") if node.value.startswith(w)}
    return found


@pytest.mark.parametrize("path", ALL_SOURCES, ids=str)
def test_no_file_is_executed_as_code(path):
    if path.as_posix() == "tests/test_architecture.py":
        return  # it names them
    assert not words(path) & PICKLES
    assert not unsafe(tree(path))


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("np.load(path)", "np.load"),
        ("read = torch.load", "torch.load"),
        ("exec(file.read())", "exec"),
        ("subprocess.run(line, shell=True)", "shell"),
        ("server.bind(('0.0.0.0', 0))", "0.0.0.0"),
        ("model.eval(); re.compile('a')", ""),
    ],
)
def test_unsafe_code_is_found(source, found):
    assert unsafe(ast.parse(source)) == ({found} if found else set())


def test_tensorboard_listens_on_this_machine_only():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "-m evaluation.dashboard" in makefile and "/tensorboard" not in makefile
    source = (ROOT / "evaluation" / "dashboard.py").read_text(encoding="utf-8")
    assert '"--host=localhost"' in source and "bind_all" not in source


@pytest.mark.parametrize("path", ALL_SOURCES, ids=str)
def test_every_file_starts_with_licence_and_docstring(path):
    first = (ROOT / path).read_text(encoding="utf-8").partition("\n")[0]
    assert first == "# SPDX-License-Identifier: Apache-2.0"
    assert ast.get_docstring(tree(path))


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_load_tensorflow_through_device(program):
    first = next(
        node
        for node in tree(f"{program}.py").body
        if isinstance(node, (ast.Import, ast.ImportFrom))
    )
    assert ast.unparse(first) == "from system import device"
