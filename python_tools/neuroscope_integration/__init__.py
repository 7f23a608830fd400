"""The lab's client: a chat with activations in a few lines, and the Smalltalk class that does the same from the image.

    from neuroscope_integration import LMStudioNeuroScopeClient

    client = LMStudioNeuroScopeClient()
    client.load_model("/path/to/your/model")
    result = client.generate_with_activations(messages=[…], activation_hooks=[…])
"""

from __future__ import annotations

from neuroscope_integration.bridge import NeuroScopeActivationBridge
from neuroscope_integration.client import LMStudioNeuroScopeClient, NeuroScopeLabError

__all__ = [
    "LMStudioNeuroScopeClient",
    "NeuroScopeActivationBridge",
    "NeuroScopeLabError",
]
