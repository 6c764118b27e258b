"""Published files of a model, from an installed distribution or the Hugging Face Hub, verified by their SHA-256."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import metadata
from pathlib import Path

PATIENCE = 5.0  # seconds in which the Hub must answer


class NotFound(Exception):
    """The reason why a file is not in a place."""


def installed(distribution: str, folder: str, name: str) -> tuple[Path, str]:
    """The path of `folder/name` in an installed distribution, and a phrase that says so; else NotFound."""
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        raise NotFound(f"{distribution} is not installed") from None
    for file in files:
        if file.name == name and file.parent.name == folder:
            path = Path(file.locate())
            if path.is_file():
                return path, f"the installed distribution {distribution}"
    raise NotFound(f"{distribution} is installed, but its {folder}/{name} is missing")


def on_hub(repository: str, revision: str, name: str) -> tuple[Path, str]:
    """The path of a file of the Hub, downloaded once, and a phrase that says where it is from; else NotFound."""
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
    except ImportError:
        raise NotFound("huggingface_hub is not installed") from None
    try:
        path = try_to_load_from_cache(repository, name, revision=revision)
        if not isinstance(path, str):
            # One request first: hf_hub_download would retry seven times, and a lab would wait for half a minute.
            get_hf_file_metadata(hf_hub_url(repository, name, revision=revision), timeout=PATIENCE)
            path = hf_hub_download(repository, name, revision=revision)
    except Exception as error:  # no network, a full disk, a proxy's page: in any case the file is not here
        first = str(error).strip().partition("\n")[0]
        raise NotFound(f"the Hugging Face Hub gave {type(error).__name__}: {first}") from None
    return Path(path), f"the Hugging Face Hub, {repository} at {revision[:7]}"


def require_published(path: Path, size: int, sha256: str, model: str) -> None:
    """ValueError unless the file has the published size in bytes and SHA-256; `model` names it in the error."""
    stat = path.stat()
    if stat.st_size != size:
        raise ValueError(f"{path.name} has {stat.st_size} bytes, where {model}'s file has {size}")
    found = digest(path, stat.st_mtime_ns, stat.st_size)
    if found != sha256:
        raise ValueError(f"{path.name} is not {model}'s file: its SHA-256 is {found[:12]}..., not {sha256[:12]}...")


@cache
def digest(path: Path, mtime_ns: int, size: int) -> str:
    """The SHA-256 of a file, computed once for each path, time of modification and size."""
    sha256 = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(2**20):
            sha256.update(piece)
    return sha256.hexdigest()
