"""The architecture files follow their schema, and the schema says what each of their keys means."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from neuroscope.project import ROOT

FILES = sorted((ROOT / "js_bridge/architectures").glob("*.json"))
SCHEMA: dict[str, Any] = json.loads((ROOT / "js_bridge/schemas/architecture.schema.json").read_text())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_file_follows_the_schema(file: Path) -> None:
    errors = jsonschema.Draft7Validator(SCHEMA).iter_errors(json.loads(file.read_text()))
    assert [f"{list(error.path)}: {error.message}" for error in errors] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_letter_of_a_shape_is_a_dimension(file: Path) -> None:
    declaration = json.loads(file.read_text())
    known = set(declaration["dimensions"])
    for row in declaration["tensors"]:
        terms = [*row["stored"], *row.get("split", {}).get("sizes", [])]
        assert set(re.findall(r"[A-Z]+", " ".join(terms))) <= known, row["source"]
    for row in declaration["hooks"]:
        assert set(re.findall(r"[A-Z]+", row["shape"])) <= known | {"B", "T"}, row["name"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_aliases_are_hook_points(file: Path) -> None:
    declaration = json.loads(file.read_text())
    names = {row["name"].replace("blocks.{layer}.", "") for row in declaration["hooks"]}
    assert set(declaration["aliases"].values()) <= names


def test_every_model_type_belongs_to_one_file() -> None:
    types = [each for file in FILES for each in json.loads(file.read_text())["modelTypes"]]
    assert len(types) == len(set(types)) == 13
    assert all(json.loads(file.read_text())["architecture"] == file.stem for file in FILES)


def test_schema_says_what_each_key_means() -> None:
    """A key of the files is described, itself or by what it refers to."""

    def described(schema: dict[str, Any]) -> bool:
        name = schema.get("$ref", "").removeprefix("#/definitions/")
        meant = [*schema.get("oneOf", []), *([SCHEMA["definitions"][name]] if name else [])]
        return "description" in schema or any(described(each) for each in meant)

    sections = [SCHEMA["properties"], SCHEMA["properties"]["decoder"]["properties"]]
    sections += [SCHEMA["definitions"][name]["properties"] for name in ("rotary", "window", "tensor")]
    unsaid = [key for section in sections for key, schema in section.items() if not described(schema)]
    assert set(unsaid) <= {"format", "hooks", "tensors"}
