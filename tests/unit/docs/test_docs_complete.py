"""What the program can say stands in the docs: error numbers, metrics, pin reasons, layers. Links lead somewhere."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from shardproxy.admin.metrics import FAMILIES
from shardproxy.planner.plan import PinReason

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "shardproxy"
SQL = (ROOT / "docs/sql.md").read_text()
OPERATIONS = (ROOT / "docs/operations.md").read_text()
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "compose").glob("*.md")])
OWN = range(9100, 9200)


def section(text: str, heading: str) -> str:
    """The text below a heading, up to the next one of the same level or above."""
    level = heading.split()[0]
    found = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no heading {heading!r}"
    return found.group(1)


def numbers_in_tables(text: str) -> set[int]:
    """Numbers of the first columns of tables."""
    return {int(n) for cell in re.findall(r"^\| ([\d, ]+) \|", text, re.MULTILINE) for n in cell.split(", ")}


def error_numbers(tree: ast.AST) -> Iterator[int]:
    """Numbers that a module gives to errors: arguments of …Error(…) and refuse(…), `code` and ER_… constants."""
    for node in ast.walk(tree):
        values: list[ast.expr] = []
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name.endswith("Error") or name == "refuse":
                values = [*node.args, *(keyword.value for keyword in node.keywords)]
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            target = node.targets[0].id
            values = [node.value] if target in ("code", "error_code") or target.startswith("ER_") else []
        for value in values:
            if isinstance(value, ast.Constant) and type(value.value) is int:
                yield value.value


@cache
def numbers_in_code() -> set[int]:
    """All error numbers that the package's sources give, the demo's expectations and the like not counted."""
    found: set[int] = set()
    for path in PACKAGE.rglob("*.py"):
        if path.parts[len(PACKAGE.parts)] != "local":
            found.update(error_numbers(ast.parse(path.read_text())))
    return found


def test_numbers_are_found_in_code() -> None:
    assert {1045, 1047, 1064, 1105, 1251, 9100, 9103, 9113} <= numbers_in_code()


def test_every_error_number_stands_in_the_docs_and_no_other() -> None:
    documented = numbers_in_tables(section(SQL, "## Errors"))
    assert documented == numbers_in_code()


def test_numbers_of_our_own_in_texts_are_documented() -> None:
    documented = numbers_in_tables(section(SQL, "## Errors"))
    for path in [*PACKAGE.rglob("*.py"), *PAGES]:
        named = {int(n) for n in re.findall(r"(?<![\d.:])91\d\d(?!\d)", path.read_text())}
        unknown = named & set(OWN) - documented - {9100, 9199}  # the ends of the range of our own
        assert not unknown, f"{path.relative_to(ROOT)} names {unknown}, which docs/sql.md does not"


def test_every_metric_stands_in_the_docs_with_its_labels_and_no_other() -> None:
    rows = re.findall(r"^\| `(shardproxy_\w+)` \| (\w+) \| ([^|]*) \|", section(OPERATIONS, "## Metrics"), re.MULTILINE)
    documented = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert documented == {f.name: (f.kind.name.lower(), f.labels) for f in FAMILIES.values()}


def test_metrics_named_anywhere_exist() -> None:
    for page in PAGES:
        named = set(re.findall(r"\bshardproxy_[a-z_]+", page.read_text())) - {"shardproxy_"}
        assert named <= FAMILIES.keys(), page.name


def test_every_pin_reason_stands_in_the_docs_and_no_other() -> None:
    documented = re.findall(r"^\| `([^`]+)` \|", section(SQL, "## Pinning"), re.MULTILINE)
    assert sorted(documented) == sorted(reason.value for reason in PinReason)


def test_layers_are_those_that_the_linter_holds() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = pyproject["tool"]["importlinter"]["contracts"]
    layers, pure = (next(c for c in contracts if c["type"] == kind) for kind in ("layers", "forbidden"))
    wanted = [set(re.findall(r"shardproxy\.(\w+)", layer)) for layer in layers["layers"]]
    wanted = [{name for name in layer if _exists(name)} for layer in wanted]
    table = section(ARCHITECTURE, "## Layers")
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| .* \| (pure)? ?\|$", table, re.MULTILINE)
    documented = [(set(re.findall(r"\w+", names)), mark) for names, mark in rows]
    flat = [name for layer in wanted for name in sorted(layer)]
    assert sorted(name for names, _ in documented for name in names) == sorted(flat)
    place = {name: at for at, layer in enumerate(wanted) for name in layer}
    order = [max(place[name] for name in names) for names, _ in documented]
    assert order == sorted(order)
    marked = {name for names, mark in documented if mark for name in names}
    assert marked == {module.rpartition(".")[2] for module in pure["source_modules"]}


def _exists(name: str) -> bool:
    return (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in _anchors(file), f"{page.name} links to {target}"


def _anchors(file: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_paths_named_in_the_readme_exist() -> None:
    named = re.findall(r"`((?:shardproxy|migrations|tests|bench|compose|docs)/)`", (ROOT / "README.md").read_text())
    assert named
    for name in named:
        assert (ROOT / name).is_dir(), name
