"""Measurements that are no tests: they take minutes and depend on the machine."""
