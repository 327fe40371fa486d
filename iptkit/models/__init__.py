"""Frozen models: loading, devices and number types."""
