"""Files that appear under their names only when they are whole."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_files(*paths: str | os.PathLike[str]) -> Iterator[list[Path]]:
    """Temporary files beside `paths`, to be written in the block; at its end they take the names of `paths`, in order.

    >>> with whole_files("model.gguf") as [temporary]:  # doctest: +SKIP
    ...     temporary.write_bytes(b"GGUF")

    If the block raises, or the disk is full, the temporary files are removed and whatever `paths` name stays as it was.
    A process that is killed leaves at most files whose names begin with ".partial-". Folders are made where they are
    missing, and removed again. ValueError where a path is a folder.
    """
    paths = [Path(path) for path in paths]
    for path in paths:
        if path.is_dir():
            raise ValueError(f"{path} is a folder, and a file is to be written there")
    made = _make_folders(path.parent for path in paths)
    temporary = [path.with_name(f".partial-{uuid.uuid4().hex[:8]}-{path.name}") for path in paths]
    try:
        yield temporary
        for file in temporary:
            _flush_to_disk(file)
        if len(paths) > 1:  # the last one is what others look for: an old one must not describe new files
            paths[-1].unlink(missing_ok=True)
        for file, path in zip(temporary, paths):
            os.replace(file, path)
    except BaseException:
        for file in temporary:
            file.unlink(missing_ok=True)
        for folder in reversed(made):
            with suppress(OSError):  # another process has put something there
                folder.rmdir()
        raise


def _make_folders(folders: Iterator[Path]) -> list[Path]:
    """Make missing folders; those that were made, the outermost first."""
    made = []
    for folder in folders:
        for parent in (*reversed(folder.parents), folder):
            if not parent.exists():
                parent.mkdir(exist_ok=True)
                made.append(parent)
    return made


def _flush_to_disk(file: Path) -> None:
    """Without this, a power failure after the renaming could leave an empty file under the final name."""
    with open(file, "rb+") as opened:
        os.fsync(opened.fileno())
