"""The document and the starter file say what the models say."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from shardproxy.config import load, parse
from shardproxy.config.reference import TABLES, reference, starter

ROOT = Path(__file__).parents[3]


def test_the_committed_document_is_what_the_models_give() -> None:
    committed = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    assert committed == reference(), "run `python -m shardproxy.config.reference > docs/configuration.md`"


def test_every_field_of_every_table_is_described_in_both() -> None:
    document, start = reference(), starter()
    for title, model in TABLES:
        for name, field in model.model_fields.items():
            if f"{title} {name}" in ("[keyspaces.NAME] ranges", "[keyspaces.NAME] tables", "[cache] queries"):
                continue
            assert field.description, f"{title} {name} has no description"
            assert f"| `{field.alias or name}` |" in document
            if title not in ("[[keyspaces.NAME.ranges]]", "[keyspaces.NAME.tables]"):
                assert re.search(rf"^(# )?{name} = ", start, re.MULTILINE), f"{title} {name} is not in the starter file"


def test_the_starter_file_loads(tmp_path: Path) -> None:
    path = tmp_path / "shardproxy.toml"
    path.write_text(starter(), "utf-8")
    config = load(path, {})
    assert list(config.shards) == ["a", "b"]
    assert config.keyspaces["main"].tables["users"].key == "uid"


def test_the_comments_of_the_starter_file_are_the_defaults() -> None:
    """With every commented default switched on, the file means the same. Examples of other sources stay off."""
    examples = re.compile(r"# (password\w*|keyspaces|replicas|endpoints) = ")
    lines = [
        line.removeprefix("# ") if re.match(r"# [a-z_]+ = ", line) and not examples.match(line) else line
        for line in starter().split('# With map = "range"')[0].splitlines()
    ]
    active = "\n".join(lines)
    assert active.count("\npool_size = 32") == 1
    assert parse(tomllib.loads(active)) == parse(tomllib.loads(starter()))


@pytest.mark.parametrize("block", re.findall(r"```toml\n(.*?)```", reference(), re.DOTALL))
def test_the_examples_of_the_document_are_valid(block: str) -> None:
    example = re.search(r"```toml\n(.*?)```", reference(), re.DOTALL)
    assert example
    data = tomllib.loads(example[1])
    if block != example[1]:
        data["keyspaces"] = tomllib.loads(block)["keyspaces"]
    parse(data)
