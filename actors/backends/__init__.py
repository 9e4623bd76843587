"""Devices that compute: one interface, one module per kind of device."""

from actors.backends.choice import NAMES, BackendName, choose

__all__ = ["NAMES", "BackendName", "choose"]
