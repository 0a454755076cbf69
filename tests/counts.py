# SPDX-License-Identifier: Apache-2.0
"""Counts how much there is to read: lines per package, long files and functions.

    python -m tests.counts

It also counts look-ups of settings by string, and the lines of the files that README.md
links in its section "The hour". Lines are counted as `wc -l` does; code lines are those
that are not blank, a comment or a docstring.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILE_LINES, FUNCTION_LINES = 350, 45  # the most that reads well
LOOKUP = re.compile(r"""(config|values|flags|run\["config"\])\[["']""")

Function = ast.FunctionDef | ast.AsyncFunctionDef
Long = list[tuple[int, str]]  # lines, and of what


def sources() -> list[Path]:
    """Paths of all Python and C++ files, relative to the project."""
    packages = [path.parent for path in ROOT.glob("*/__init__.py")]
    found = [*ROOT.glob("*.py"), *(p for folder in packages for p in folder.rglob("*"))]
    return sorted(
        path.relative_to(ROOT) for path in found if path.suffix in (".py", ".cc", ".h")
    )


def is_test(path: Path) -> bool:
    """Whether a source belongs to the tests."""
    return path.parts[0] == "tests"


def read(path: Path) -> str:
    """Text of a source."""
    return (ROOT / path).read_text(encoding="utf-8")


def count_lines(path: Path) -> int:
    """Lines of a source."""
    return len(read(path).splitlines())


def count_code(path: Path) -> int:
    """Lines of a source that are not blank, a comment or a docstring."""
    lines = [line.strip() for line in read(path).splitlines()]
    code = sum(bool(line) and not line.startswith(("#", "//")) for line in lines)
    return code - sum(_docstring_lines(node) for node in _nodes(path))


def _docstring_lines(node: ast.AST) -> int:
    if not isinstance(node, Function | ast.ClassDef | ast.Module):
        return 0
    docstring = ast.get_docstring(node, clean=False)
    return sum(bool(line.strip()) for line in (docstring or "").splitlines())


def _nodes(path: Path) -> Iterator[ast.AST]:
    if path.suffix == ".py":
        yield from ast.walk(ast.parse(read(path)))


def long_files() -> Long:
    """Sources of more than `FILE_LINES` lines, the longest first."""
    counted = [(count_lines(path), str(path)) for path in sources()]
    return sorted((c for c in counted if c[0] > FILE_LINES), reverse=True)


def long_functions() -> Long:
    """Python functions of more than `FUNCTION_LINES` lines, the longest first."""
    found = []
    for path in sources():
        for node in _nodes(path):
            if isinstance(node, Function) and node.end_lineno:
                lines = node.end_lineno - node.lineno + 1
                found.append((lines, f"{path}:{node.lineno} {node.name}"))
    return sorted((f for f in found if f[0] > FUNCTION_LINES), reverse=True)


def hour() -> Long:
    """Files that README.md links in its section on the hour, in its order."""
    readme = read(Path("README.md"))
    section = re.search(r"^#+ .*\bhour\b.*\n((?:(?!#).*\n)*)", readme, re.M | re.I)
    links = re.findall(r"\]\(([^)#]+)\)", section[1]) if section else []
    files = [Path(link) for link in dict.fromkeys(links) if (ROOT / link).is_file()]
    return [(count_lines(path), str(path)) for path in files]


def _show_packages() -> None:
    rows: dict[str, list[int]] = {}
    for path in sources():
        name = path.parts[0] if len(path.parts) > 1 else "train, eval"
        counts = [
            1,
            count_lines(path),
            count_code(path),
            len(LOOKUP.findall(read(path))),
        ]
        for key in {name, "tests" if is_test(path) else "all but tests"}:
            rows[key] = [a + b for a, b in zip(rows.get(key, [0] * 4), counts)]
    order = sorted(rows, key=lambda key: (key in ("all but tests", "tests"), key))
    print(f"{'':16}{'files':>8}{'lines':>8}{'code':>8}  look-ups by string")
    for key in order:
        print(f"{key:16}" + "".join(f"{count:8,}" for count in rows[key]))


def _show(title: str, found: Long) -> None:
    print(f"\n{title}: {len(found)}")
    for lines, name in found:
        print(f"{lines:8,}  {name}")


def main() -> None:
    """Prints all tables."""
    _show_packages()
    for title, found in (
        (f"files over {FILE_LINES} lines", long_files()),
        (f"functions over {FUNCTION_LINES} lines", long_functions()),
    ):
        for kind, tests in (("source", False), ("test", True)):
            chosen = [entry for entry in found if tests == is_test(Path(entry[1]))]
            _show(f"{kind} {title}", chosen)
    files = hour()
    _show("the hour", files)
    print(f"{sum(lines for lines, _ in files):8,}  in all")


if __name__ == "__main__":
    main()
