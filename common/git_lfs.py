"""Git LFS leaves a pointer of three lines in the place of each large file that was not fetched."""

from pathlib import Path

from common.files import InputError

# https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md, with the names that it had before
POINTERS = tuple(
    b"version " + address for address in (b"https://git-lfs.", b"https://hawser.github.com/", b"http://git-media.io/")
)


def refuse_pointer(path: Path) -> None:
    """Raise InputError when the file at `path` is only a pointer to what it should hold."""
    with path.open("rb") as file:
        if file.read(64).startswith(POINTERS):
            raise InputError(
                f"{path}: a Git LFS pointer, not the file itself; fetch it with `git lfs pull` in {path.parent}"
            )
