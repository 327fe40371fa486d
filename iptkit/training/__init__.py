"""One trainer for every prompt method."""
