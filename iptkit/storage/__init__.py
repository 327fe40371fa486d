"""Files, downloads and the cache of finished steps."""
