"""The engine: rows of many prompts in one forward of a frozen model."""
