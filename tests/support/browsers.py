"""The browser that tests open pages in."""

import shutil

# its path, or None; tests that need it are skipped then
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
