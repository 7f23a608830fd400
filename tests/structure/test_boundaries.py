"""Who may import whom. The table is the README's; a change of one is a change of both."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from neuroscope import project

# Folder of TypeScript ► the folders that it may import besides itself.
TYPESCRIPT = {
    "squeakjs": set(),
    "js_bridge": {"squeakjs"},
    "hosts": {"squeakjs", "js_bridge"},
    "web": {"squeakjs", "js_bridge", "hosts"},
}

# Smalltalk package ► the packages whose classes it may name.
SMALLTALK = {
    "Kernel": {"Collections"},
    "Collections": {"Kernel"},
    "System": {"Kernel", "Collections"},
    "Bridge": {"Kernel", "Collections", "System"},
    "NeuroScope": {"Kernel", "Collections", "System", "Bridge"},
    "Tools": {"Kernel", "Collections", "System", "Bridge", "NeuroScope"},
}

# Sub-package of neuroscope ► the parts of neuroscope that it may import besides itself.
FOUNDATION = {"errors", "project", "kernels"}
PYTHON = {
    "errors": set(),
    "project": {"errors"},
    "kernels": {"errors", "project"},
    "image": FOUNDATION,
    "export": FOUNDATION,
    "site": FOUNDATION,
    "demo": FOUNDATION,
    "bench": FOUNDATION,
    "lab": FOUNDATION,
    "cli": FOUNDATION | {"image", "export", "site", "demo", "bench", "lab"},
}

_IMPORT = re.compile(r"""(?:\bfrom|\bimport)\s*\(?\s*["'](\.[^"']+)["']""")


def typescript_arrows(folder: str) -> set[tuple[Path, str]]:
    """(file, folder it imports from) for every relative import that leaves the folder."""
    found = set()
    for file in (project.ROOT / folder).rglob("*.ts"):
        for target in _IMPORT.findall(file.read_text(encoding="utf-8")):
            path = (file.parent / target).resolve().relative_to(project.ROOT)
            if path.parts[0] != folder:
                found.add((file.relative_to(project.ROOT), path.parts[0]))
    return found


@pytest.mark.parametrize("folder", TYPESCRIPT)
def test_typescript_imports_only_along_the_arrows(folder: str) -> None:
    files = list((project.ROOT / folder).rglob("*.ts"))
    assert files, f"{folder} has no TypeScript, so the table of arrows is out of date"
    wrong = {arrow for arrow in typescript_arrows(folder) if arrow[1] not in TYPESCRIPT[folder]}
    assert not wrong


def test_the_virtual_machine_touches_neither_document_nor_network_nor_node() -> None:
    forbidden = re.compile(
        r"\b(document\.|window\.|fetch\(|XMLHttpRequest|WebSocket|localStorage|indexedDB|from \"node:)"
    )
    wrong = [
        f"{file.name}: {line.strip()}"
        for file in (project.ROOT / "squeakjs").rglob("*.ts")
        for line in file.read_text(encoding="utf-8").splitlines()
        if forbidden.search(line) and not line.lstrip().startswith(("//", "*", "/*"))
    ]
    assert not wrong


def python_arrows(part: str) -> set[tuple[Path, str]]:
    package = project.ROOT / "python_tools" / "neuroscope"
    files = [package / f"{part}.py"] if (package / f"{part}.py").exists() else list((package / part).rglob("*.py"))
    found = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            for name in _imported(node):
                if name[:1] == ["neuroscope"] and len(name) > 1 and name[1] != part:
                    found.add((file.relative_to(package), name[1]))
    return found


def _imported(node: ast.AST) -> list[list[str]]:
    if isinstance(node, ast.Import):
        return [alias.name.split(".") for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
        module = node.module.split(".")
        return [[*module, alias.name] for alias in node.names] if len(module) == 1 else [module]
    return []


@pytest.mark.parametrize("part", PYTHON)
def test_python_imports_only_along_the_arrows(part: str) -> None:
    wrong = {arrow for arrow in python_arrows(part) if arrow[1] not in PYTHON[part]}
    assert not wrong


def test_every_python_sub_package_is_in_the_table() -> None:
    package = project.ROOT / "python_tools" / "neuroscope"
    assert {path.parent.name for path in package.glob("*/__init__.py")} <= set(PYTHON)


def test_no_source_imports_the_tests() -> None:
    for folder in TYPESCRIPT:
        assert not any(target == "tests" for _, target in typescript_arrows(folder))
    for part in PYTHON:
        assert not any(target == "tests" for _, target in python_arrows(part))


def smalltalk_classes() -> dict[str, str]:
    """Class name ► the package whose folder defines it."""
    return {file.name.removesuffix(".class.st"): file.parent.name for file in project.SMALLTALK.rglob("*.class.st")}


_COMMENT_OR_TEXT = re.compile(r"\"[^\"]*\"|'[^']*'|#'[^']*'|\$.", re.DOTALL)
_GLOBAL = re.compile(r"(?<![#\w:])([A-Z]\w*)(?!\w*:)|#superclass\s*:\s*#(\w+)")


@pytest.mark.parametrize("package", SMALLTALK)
def test_smalltalk_names_only_classes_along_the_arrows(package: str) -> None:
    home = smalltalk_classes()
    allowed = SMALLTALK[package] | {package}
    wrong = set()
    for file in (project.SMALLTALK / package).glob("*.st"):
        for found in _GLOBAL.findall(_COMMENT_OR_TEXT.sub(" ", file.read_text(encoding="utf-8"))):
            name = found[0] or found[1]
            if name in home and home[name] not in allowed:
                wrong.add((file.name, name, home[name]))
    assert not wrong


def test_every_smalltalk_package_is_in_the_table() -> None:
    folders = {path.parent.name for path in project.SMALLTALK.glob("*/package.st")}
    assert {name for name in folders if not name.endswith("-Tests")} == set(SMALLTALK)
