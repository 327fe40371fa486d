from . import (
    archives,
    downloads,
    files,
    indexes,
    installation,
    paths,
    progress,
    revision,
    step_cache,
    versions,
)

__all__ = [
    "archives",
    "downloads",
    "files",
    "indexes",
    "installation",
    "paths",
    "progress",
    "revision",
    "step_cache",
    "versions",
]
