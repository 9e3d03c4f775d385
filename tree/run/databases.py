"""What the databases of a run hold, in a few digits, so that no run is made of two states of one of them."""

import os
import random
from collections.abc import Iterable, Mapping
from hashlib import sha256

from common.files import InputError
from tree.schema.descriptions import description_files
from tree.sql.cache import content_digest
from tree.sql_utils import database_path

# the fix where the questions that are finished stand in a journal
RESUME = "what is finished is kept: put them back to resume with the same command, or begin anew with --fresh"


def database_fingerprint(db_root: str | os.PathLike, db_id: str) -> str:
    """16 hex digits that change with any byte of a database, or of its descriptions, which are in the prompts too.

    They are the same wherever the database lies. Raises InputError when a file cannot be read.
    """
    path = database_path(db_root, db_id)
    described = description_files(path.parent / "database_description")
    held = [content_digest(path), *(f"{ascii(file.name)} {content_digest(file)}" for file in described)]
    return sha256("\n".join(held).encode()).hexdigest()[:16]


def database_fingerprints(db_root: str | os.PathLike, db_ids: Iterable[str]) -> dict[str, str]:
    """`database_fingerprint` of each, by name; what has never been read is read whole, with a progress bar."""
    from tqdm import tqdm

    names = sorted(set(db_ids))
    # processes that start together read them in different orders, and find the digests that others have made
    drawn = random.sample(names, len(names))
    bar = tqdm(drawn, desc="databases", unit="database", disable=not names)
    found = {db_id: database_fingerprint(db_root, db_id) for db_id in bar}
    return {db_id: found[db_id] for db_id in names}


def check_unchanged(db_root: str | os.PathLike, fingerprints: Mapping[str, str], fix: str) -> None:
    """Raise InputError, with the fix, for databases that do not hold any more what their fingerprints say."""
    changed = [db_id for db_id, before in fingerprints.items() if database_fingerprint(db_root, db_id) != before]
    if changed:
        more = f" (and {len(changed) - 1} more databases)" if len(changed) > 1 else ""
        path = database_path(db_root, changed[0])
        raise InputError(f"{path}{more}: it or its descriptions changed while they were in use; {fix}")
