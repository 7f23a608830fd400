"""A class for compiler tests: instance variables a to c, class variable Shared, some globals."""

from __future__ import annotations

from neuroscope.image.classes import Behavior, ClassModel, GlobalScope


def behavior(variables: str = "a b c") -> Behavior:
    model = ClassModel(
        "Foo", None, tuple(variables.split()), ("Shared",), (), "normal", "Tests", "Tests", "I am Foo.", None
    )
    array = ClassModel("Array", None, (), (), (), "variable", "Tests", "Tests", "I am Array.", None)
    return Behavior(model, False, GlobalScope({"Foo": model, "Array": array}, {"Transcript"}))
