"""The lab's client: a chat with activations in a few lines, and the Smalltalk class that does the same from the image.

from neuroscope_integration import LMStudioNeuroScopeClient

client = LMStudioNeuroScopeClient()
client.load_model("/path/to/your/model")
result = client.generate_with_activations(messages=[…], activation_hooks=[…])
"""

from __future__ import annotations

from neuroscope_integration.bridge import NeuroScopeActivationBridge
from neuroscope_integration.client import LMStudioNeuroScopeClient, NeuroScopeLabError
from neuroscope_integration.smalltalk import generate_neuroscope_smalltalk_interface

__all__ = [
    "LMStudioNeuroScopeClient",
    "NeuroScopeActivationBridge",
    "NeuroScopeLabError",
    "generate_neuroscope_smalltalk_interface",
]
