"""One file from the package index that the user's own pip is set up for, as bytes: nothing is built or run.

`pip download` builds the metadata of an sdist. For that it installs whatever build tools the index serves,
and runs them before anyone has checked them. So `downloads` runs this file as a script, which asks parts of
pip where the file lies and reads it. pip's configuration holds: index-url, extra-index-url, find-links,
no-index, proxies, certificates, credentials, PIP_* variables. The script imports nothing of the kit.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path
from typing import Any

REACHED = "is the right package index set, and reached? `pip config list` shows it, and its proxy"
ANY_FORMAT = ("--only-binary", ":none:", "--no-binary", ":none:")  # what is never built may be an sdist


def fetch(name: str, filename: str, sha256: str, size: int, folder: Path) -> int:
    """Put the file `filename` of the package `name` into `folder`, which is there.

    Args:
      sha256: of the file; one with another hash is removed again.
      size: of the file in bytes; a transfer that ends early is taken up where it stopped.
    Returns: 0, or another exit status after a message on standard error.
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
        """`pip download` with its options and its network, without its resolver and its builds."""

        def run(self, options: Any, args: list[str]) -> int:
            try:
                session = self.get_default_session(options)
                finder = self._build_package_finder(options, session, ignore_requires_python=True)
                offered = [candidate.link for candidate in finder.find_all_candidates(name)]
                links = [link for link in offered if link.filename == filename]
                if not links:
                    others = ", ".join(sorted({link.filename for link in offered})[-5:])
                    why = f"of {name} there is: {others}" if offered else f"nothing of {name} is: {REACHED}"
                    raise CommandError(f"no {filename} is offered, {why}")
                if not any(self._save(session, link) for link in links):
                    raise CommandError(f"every {filename} that is offered has another sha256 than {sha256}")
            except (AttributeError, TypeError) as error:
                raise CommandError(_unknown_pip(pip, error)) from error
            return 0

        def _save(self, session: Any, link: Any) -> bool:
            """Read a link into the folder; False if it has, or is said to have, another hash."""
            if link.hash_name == "sha256" and link.hash != sha256:
                return False
            target, done, before = folder / filename, 0, -1
            while before < done < size:  # as long as every try brings something
                headers = {"Accept-Encoding": "identity"}  # the file itself, not compressed once more
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

    os.environ["_PIP_RUNNING_IN_SUBPROCESS"] = "1"  # a PIP_PYTHON is for installing: nothing is to start it
    return Fetch("download", "get one file").main(
        [*ANY_FORMAT, "--disable-pip-version-check", "--no-input", "--no-deps", name]
    )


def _failed(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


def _unknown_pip(pip: Any, error: Exception) -> str:
    return f"pip {pip.__version__} is made otherwise than iptkit knows ({type(error).__name__}: {error})"


if __name__ == "__main__":
    wanted, file_name, its_hash, num_bytes, place = sys.argv[1:]
    sys.exit(fetch(wanted, file_name, its_hash, int(num_bytes), Path(place)))
