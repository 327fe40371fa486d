"""Files, downloads and the cache of finished steps. Import its modules by name: it has no face of its own."""
