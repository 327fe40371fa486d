"""Small archives of the layout that package indexes have."""

import io
import tarfile


def write_sdist(archive, top, files):
    """Write a .tar.gz with texts by name, all under the folder `top`."""
    with tarfile.open(archive, "w:gz") as sdist:
        for name, text in files.items():
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size = len(text.encode())
            sdist.addfile(member, io.BytesIO(text.encode()))
