"""The JSON Schema of the messages, from the types of js_bridge/protocol.ts and the files that it exports.

Reads the subset of TypeScript that such files need: interfaces, unions, intersections, literals, lists, records.
`python tests/structure/protocol_schema.py` prints what js_bridge/schemas/messages.schema.json has to hold.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from neuroscope.project import ROOT

PROTOCOL = ROOT / "js_bridge/protocol.ts"
SCHEMA = ROOT / "js_bridge/schemas/messages.schema.json"

Node = dict[str, Any]

_TOKEN = re.compile(r'\s+|//[^\n]*|/\*.*?\*/|("[^"]*"|-?\d+(?:\.\d+)?|\w+(?:\.\w+)?|[{}()\[\]<>:;,|&?=])', re.DOTALL)
_IMPORT = re.compile(r'^import type [^"]*"[^"]+";\n', re.MULTILINE)
_EXPORT = re.compile(r'^export type \* from "([^"]+)";\n', re.MULTILINE)
_PRIMITIVES: dict[str, Node] = {
    "string": {"type": "string"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "null": {"type": "null"},
    "unknown": {},
    "true": {"const": True},
    "false": {"const": False},
}


class Reader:
    """A recursive descent through the tokens; a type becomes a schema."""

    def __init__(self, text: str) -> None:
        self.tokens: list[str] = []
        at = 0
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                raise ValueError(f"no token at {text[at : at + 40]!r}")
            if found[1] is not None:
                self.tokens.append(found[1])
            at = found.end()
        self.at = 0
        self.definitions: dict[str, Node] = {}

    def next(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1]

    def has(self, token: str) -> bool:
        """Whether it comes next; it is read then."""
        if self.at < len(self.tokens) and self.tokens[self.at] == token:
            self.at += 1
            return True
        return False

    def expect(self, token: str) -> None:
        found = self.next()
        if found != token:
            raise ValueError(f"{found!r} where {token!r} should be, after {self.tokens[: self.at][-8:]}")

    def read(self) -> dict[str, Node]:
        while self.at < len(self.tokens):
            self.expect("export")
            kind, name = self.next(), self.next()
            if name in self.definitions:
                raise ValueError(f"{name} is exported twice; a name means one thing in all files of the protocol")
            if kind == "type":
                self.expect("=")
                self.definitions[name] = self.type()
                self.expect(";")
            else:
                bases = []
                if self.has("extends"):
                    bases.append(self.next())
                    while self.has(","):
                        bases.append(self.next())
                self.expect("{")
                parts = [*[{"$ref": f"#/definitions/{base}"} for base in bases], self.object()]
                self.definitions[name] = {"merge": parts}  # a base may stand further down
        for name, node in self.definitions.items():
            if "merge" in node:
                self.definitions[name] = self.merged(node["merge"])
        return self.definitions

    def type(self) -> Node:
        self.has("|")
        options = [self.intersection()]
        while self.has("|"):
            options.append(self.intersection())
        if len(options) == 1:
            return options[0]
        if all(set(option) == {"const"} for option in options):
            return {"enum": [option["const"] for option in options]}
        return {"anyOf": options}

    def intersection(self) -> Node:
        parts = [self.postfix()]
        while self.has("&"):
            parts.append(self.postfix())
        return parts[0] if len(parts) == 1 else self.merged(parts)

    def postfix(self) -> Node:
        node = self.primary()
        while self.has("["):
            self.expect("]")
            node = {"type": "array", "items": node}
        return node

    def primary(self) -> Node:
        token = self.next()
        if token == "readonly":
            return self.postfix()
        if token == "{":
            return self.object()
        if token == "(":
            node = self.type()
            self.expect(")")
            return node
        if token.startswith('"'):
            return {"const": token.strip('"')}
        if token in _PRIMITIVES:
            return dict(_PRIMITIVES[token])
        if token in ("Record", "Partial"):
            return self.generic(token)
        return {"$ref": f"#/definitions/{token.split('.')[-1]}"}

    def generic(self, name: str) -> Node:
        self.expect("<")
        node = self.type()
        if name == "Record":  # which keys it has, the schema does not say
            self.expect(",")
            node = {"type": "object", "additionalProperties": self.type()}
        self.expect(">")
        return node

    def object(self) -> Node:
        properties: dict[str, Node] = {}
        required: list[str] = []
        is_open = False
        while not self.has("}"):
            if self.has("["):
                while not self.has("]"):
                    self.next()
                self.expect(":")
                self.type()
                is_open = True
            else:
                if self.tokens[self.at] == "readonly":
                    self.next()
                name = self.next()
                if not self.has("?"):
                    required.append(name)
                self.expect(":")
                properties[name] = self.type()
            if not self.has(";"):
                self.has(",")
        node: Node = {"type": "object", "required": required, "properties": properties}
        return node if is_open else {**node, "additionalProperties": False}

    def merged(self, parts: list[Node]) -> Node:
        """Objects joined to one; with a union among them, a union of what is joined with each."""
        nodes = [self.definitions[part["$ref"].split("/")[-1]] if "$ref" in part else part for part in parts]
        nodes = [self.merged(node["merge"]) if "merge" in node else node for node in nodes]
        unions = [at for at, node in enumerate(nodes) if "anyOf" in node]
        if unions:
            at = unions[0]
            options = [self.merged([*nodes[:at], option, *nodes[at + 1 :]]) for option in nodes[at]["anyOf"]]
            return {"anyOf": options}
        joined: Node = {"type": "object", "required": [], "properties": {}}
        if all("additionalProperties" in node for node in nodes):
            joined["additionalProperties"] = False
        for node in nodes:
            joined["required"] = joined["required"] + node["required"]
            joined["properties"] = {**joined["properties"], **node["properties"]}
        return joined


def text_of(file: Path) -> str:
    """Its types, and those of the files that it exports; a name means the same in all of them."""
    text = file.read_text()
    parts = [text_of(file.parent / name) for name in _EXPORT.findall(text)]
    return "\n".join([_IMPORT.sub("", _EXPORT.sub("", text)), *parts])


def schema_of(protocol: Path) -> Node:
    definitions = dict(sorted(Reader(text_of(protocol)).read().items()))
    definitions.pop("Attachment", None)  # what travels beside a message is no JSON
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A message between the image and the engine",
        "description": "Made from js_bridge/protocol.ts, which says what each field means: "
        "python tests/structure/protocol_schema.py. Numbers that JSON lacks are null.",
        "anyOf": [{"$ref": "#/definitions/Request"}, {"$ref": "#/definitions/Answer"}],
        "definitions": definitions,
    }


def written(schema: Node) -> str:
    """One definition a line, so that a change of the protocol is a change of its lines."""
    head = {key: value for key, value in schema.items() if key != "definitions"}
    lines = [f"    {json.dumps(name)}: {json.dumps(node)}" for name, node in schema["definitions"].items()]
    opening = json.dumps(head, indent=2).removesuffix("\n}")
    return f'{opening},\n  "definitions": {{\n' + ",\n".join(lines) + "\n  }\n}\n"


if __name__ == "__main__":
    print(written(schema_of(PROTOCOL)), end="")
