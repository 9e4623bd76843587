"""Devices that multiply: one interface, one module per kind of device."""
