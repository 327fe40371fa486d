"""Metrics, intervals, and tables of results."""
