"""`wsgi.file_wrapper` (PEP 3333): a file as the body of a reply, sent by the kernel where it is a real one."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator

from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import IO

_FILES = (io.FileIO, io.BufferedReader, io.BufferedRandom)


class FileWrapper:
    """A file that the kernel sends where `span` tells of one, and that is sent block by block elsewhere.

    What has a file's descriptor may read otherwise than the file (gzip's objects): only the io module's own
    are what they seem.
    """

    def __init__(self, filelike: IO[bytes], block_size: int = 65536) -> None:
        self.filelike = filelike
        self.block_size = block_size
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self) -> Iterator[bytes]:
        while data := self.filelike.read(self.block_size):
            yield data

    def span(self) -> tuple[int, int, int] | None:
        """Descriptor, offset and length of what is left of a regular file; None for anything else."""
        if type(self.filelike) not in _FILES or type(getattr(self.filelike, "raw", self.filelike)) is not io.FileIO:
            return None
        try:
            fd = self.filelike.fileno()
            size = os.fstat(fd).st_size
            offset = self.filelike.tell()
        except OSError:
            return None
        # Devices have none, and a size of 0 may be wrong: of what is made as it is read (/proc) the system tells none
        return (fd, offset, max(0, size - offset)) if size else None


class BlockWrapper(FileWrapper):
    """A file wrapper that sends block by block always (--no-sendfile)."""

    def span(self) -> None:
        return None
