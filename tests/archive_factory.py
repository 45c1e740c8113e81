"""Archives made in memory, hostile ones too."""

import io
import tarfile
import zipfile
from collections.abc import Iterable


def tar_of(members: Iterable[tuple[str, bytes | tarfile.TarInfo]], kind: str = "gz") -> bytes:
    """A tar archive of files, (name, content), and of other members, (name, header).

    Args:
        members: in order.
        kind: compression: "gz", "bz2", "xz" or "".
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{kind}") as tar:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
            else:
                header = tarfile.TarInfo(name)
                header.size = len(content)
                tar.addfile(header, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(members: Iterable[tuple[str | zipfile.ZipInfo, bytes]], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive of files, (name or header, content)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()
