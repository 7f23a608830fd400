"""What an expression's code does with its value; see generator.py, section 1."""

from __future__ import annotations

from enum import Enum


class Mode(Enum):
    VALUE = "value"
    EFFECT = "effect"
    RETURN = "return"
    BLOCK = "block"
