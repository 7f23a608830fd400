"""A class library as small as an image allows, written from the table of shapes, for tests of the builder itself."""

from __future__ import annotations

from pathlib import Path

from neuroscope.image.layout import SHAPES

SUPERCLASSES = {
    "Behavior": ("Object", "superclass methodDictionary format"),
    "ClassDescription": ("Behavior", "instanceVariables organization"),
    "Class": ("ClassDescription", "subclasses name classPool sharedPools environment category"),
    "Metaclass": ("ClassDescription", "thisClass"),
    "IdentityDictionary": ("Object", "tally array"),
    "SystemDictionary": ("IdentityDictionary", ""),
    "LinkedList": ("Object", "firstLink lastLink"),
    "Semaphore": ("LinkedList", "excessSignals"),
}

METHODS = {
    "Object": """
{ #category : #'error handling' }
Object >> doesNotUnderstand: aMessage [
	^ nil
]

{ #category : #printing }
Object >> log: aString level: anotherString [
	<primitive: 'primitiveLog:level:' module: 'ConsolePlugin'>
]

{ #category : #primitives }
Object >> class [
	<primitive: 111>
]
""",
    "BlockClosure": """
{ #category : #evaluating }
BlockClosure >> value [
	<primitive: 201>
]

{ #category : #evaluating }
BlockClosure >> value: anObject [
	<primitive: 202>
]
""",
    "Array": """
{ #category : #accessing }
Array >> at: anInteger [
	<primitive: 60>
]

{ #category : #accessing }
Array >> at: anInteger put: anObject [
	<primitive: 61>
]
""",
    "ByteString": """
{ #category : #accessing }
ByteString >> at: anInteger put: aCharacter [
	<primitive: 64>
]
""",
    "Metaclass": "",
    "Class": """
{ #category : #'instance creation' }
Class >> new: anInteger [
	<primitive: 71>
]
""",
    "Character": """
{ #category : #'instance creation' }
Character class >> value: anInteger [
	<primitive: 170>
]
""",
    "SmallInteger": """
{ #category : #printing }
SmallInteger >> printString [
	"Up to three digits."

	| string |
	self < 10 ifTrue: [
		string := ByteString new: 1.
		string at: 1 put: (Character value: self + 48).
		^ string ].
	string := ByteString new: (self < 100 ifTrue: [ 2 ] ifFalse: [ 3 ]).
	(self < 100) ifFalse: [ string at: 1 put: (Character value: self // 100 + 48) ].
	string at: (self < 100 ifTrue: [ 1 ] ifFalse: [ 2 ]) put: (Character value: self \\\\ 100 // 10 + 48).
	string at: (self < 100 ifTrue: [ 2 ] ifFalse: [ 3 ]) put: (Character value: self \\\\ 10 + 48).
	^ string
]
""",
}


def class_text(
    name: str,
    superclass: str = "Object",
    variables: str = "",
    *,
    kind: str = "normal",
    class_variables: str = "",
    methods: str = "",
) -> str:
    """A Tonel file."""

    def names(text: str) -> str:
        return ", ".join(f"'{each}'" for each in text.split())

    return (
        f'"\nI am {name}.\n"\nClass {{\n\t#name : #{name},\n\t#superclass : #{superclass},\n'
        f"\t#instVars : [ {names(variables)} ],\n\t#classVars : [ {names(class_variables)} ],\n"
        f"\t#type : #{kind},\n\t#category : #'Minimal-Core'\n}}\n{methods}"
    )


def write_minimal(folder: Path, extra: dict[str, str] | None = None) -> Path:
    """Writes package Minimal into `folder`; `extra` are further files, name ► text. Answers the folder."""
    package = folder / "Minimal"
    package.mkdir(parents=True, exist_ok=True)
    (package / "package.st").write_text("Package { #name : #Minimal }\n")
    texts = {"ProtoObject": class_text("ProtoObject", "nil"), "Object": class_text("Object", "ProtoObject")}
    for name, (superclass, variables) in SUPERCLASSES.items():
        texts[name] = class_text(name, superclass, variables, methods=METHODS.get(name, ""))
    for name, shape in SHAPES.items():
        if name == "Object":
            texts[name] = class_text(name, "ProtoObject", methods=METHODS[name])
        elif name not in SUPERCLASSES:
            texts[name] = class_text(
                name,
                variables=" ".join(shape.variables),
                kind=shape.type,
                class_variables=" ".join(shape.class_variables),
                methods=METHODS.get(name, ""),
            )
    for name, text in texts.items():
        (package / f"{name}.class.st").write_text(text)
    for name, text in (extra or {}).items():
        (package / name).write_text(text, encoding="utf-8")
    return folder
