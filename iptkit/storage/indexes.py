"""Download of one file from the package index that the user's pip is configured for; nothing is built or run.

`pip download` builds the metadata of an sdist: it installs whatever build tools the index serves, and runs
them before anyone has checked them. So `downloads` runs this file as a script instead, which uses parts of
pip to find the file and read it. All of pip's configuration applies: index-url, extra-index-url, find-links,
no-index, proxies, certificates, credentials, PIP_* variables. The script imports nothing from the kit.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path
from typing import Any

REACHED = "is the right package index set, and can it be reached? `pip config list` shows it and its proxy"
ANY_FORMAT = ("--only-binary", ":none:", "--no-binary", ":none:")  # nothing is built, so an sdist is fine


def fetch(name: str, filename: str, sha256: str, size: int, folder: Path) -> int:
    """Download a file of a package.

    Args:
      name: name of the package.
      filename: name of the file.
      sha256: checksum of the file; a file with another one is removed.
      size: its size in bytes; a transfer that ends early is resumed where it stopped.
      folder: an existing folder to put the file into.
    Returns: the exit status: 0, or another one after a message on standard error.
    """
    try:
        import pip
    except ImportError:
        return _failed(f"this Python has no pip; `{sys.executable} -m ensurepip` installs it")
    try:
        from pip._internal.commands.download import DownloadCommand
        from pip._internal.exceptions import CommandError
        from pip._vendor.requests import RequestException
        from pip._vendor.urllib3.exceptions import HTTPError
    except ImportError as error:
        return _failed(_unknown_pip(pip, error))

    class Fetch(DownloadCommand):
        """`pip download` with pip's options and network, but without its resolver and builds."""

        def run(self, options: Any, args: list[str]) -> int:
            try:
                session = self.get_default_session(options)
                finder = self._build_package_finder(options, session, ignore_requires_python=True)
                offered = [candidate.link for candidate in finder.find_all_candidates(name)]
                links = [link for link in offered if link.filename == filename]
                if not links:
                    others = ", ".join(sorted({link.filename for link in offered})[-5:])
                    why = f"only: {others}" if offered else f"and no other file of {name}: {REACHED}"
                    raise CommandError(f"the index offers no {filename}, {why}")
                if not any(self._save(session, link) for link in links):
                    raise CommandError(f"every {filename} on the index has another sha256 than {sha256}")
            except (AttributeError, TypeError) as error:
                raise CommandError(_unknown_pip(pip, error)) from error
            return 0

        def _save(self, session: Any, link: Any) -> bool:
            """Download a link into the folder; False if the index or its content gives another hash."""
            if link.hash_name == "sha256" and link.hash != sha256:
                return False
            target, done, before = folder / filename, 0, -1
            while before < done < size:  # as long as every attempt makes progress
                headers = {"Accept-Encoding": "identity"}  # no further compression
                if done:
                    headers["Range"] = f"bytes={done}-"
                before, reason = done, "it ended early"
                try:
                    with session.get(link.url_without_fragment, headers=headers, stream=True) as response:
                        response.raise_for_status()
                        with target.open("ab" if response.status_code == 206 else "wb") as file:
                            shutil.copyfileobj(response.raw, file, 1 << 20)
                except (RequestException, HTTPError) as error:
                    reason = str(error)
                done = target.stat().st_size if target.is_file() else 0
            if done < size:
                raise CommandError(f"{filename}: {done} of {size} bytes arrived ({reason})")
            with target.open("rb") as file:
                is_right = hashlib.file_digest(file, "sha256").hexdigest() == sha256
            if not is_right:
                target.unlink()
            return is_right

    os.environ["_PIP_RUNNING_IN_SUBPROCESS"] = "1"  # so that pip does not restart itself with PIP_PYTHON
    return Fetch("download", "get one file").main(
        [*ANY_FORMAT, "--disable-pip-version-check", "--no-input", "--no-deps", name]
    )


def _failed(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


def _unknown_pip(pip: Any, error: Exception) -> str:
    return (
        f"pip {pip.__version__} has another structure than iptkit expects ({type(error).__name__}: {error})"
    )


if __name__ == "__main__":
    wanted, file_name, its_hash, num_bytes, place = sys.argv[1:]
    sys.exit(fetch(wanted, file_name, its_hash, int(num_bytes), Path(place)))
