"""Measurements of speed, memory and accuracy. They take minutes and depend on the machine."""
