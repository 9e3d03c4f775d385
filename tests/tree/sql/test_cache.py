"""What a file holds is known by all of its bytes, and read again only when it may have changed."""

import hashlib
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.files import InputError
from tests.conftest import make_database
from tree.run.databases import check_unchanged, database_fingerprint, database_fingerprints
from tree.sql import cache
from tree.sql.cache import content_digest, file_state, fingerprint

SIZE = 300_000


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RESQLVER_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "file"
    path.write_bytes(bytes(SIZE))
    return path


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """The names of the files that are digested from now on, ten seconds after they were written."""
    read, digest, now = [], hashlib.file_digest, time.time_ns

    def recording(file, name: str):
        read.append(file.name)
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", recording)
    monkeypatch.setattr(cache.time, "time_ns", lambda: now() + 10_000_000_000)
    return read


def as_another_process() -> None:
    cache._digests.clear()


def true_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_is_read_once_for_all_processes(place, reads):
    assert content_digest(place) == true_digest(place) == content_digest(str(place))
    as_another_process()
    assert content_digest(place) == true_digest(place) and len(reads) == 1
    # by another way to the same file
    link = place.with_name("link")
    link.symlink_to(place)
    assert content_digest(link) == true_digest(place) and len(reads) == 1


def keeping_times(path: Path, change) -> None:
    """A change after which size and time of the content are those before."""
    status = path.stat()
    time.sleep(cache.TICK / 1e9)
    change()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(SIZE // 2 + 777)
        file.write(b"x")


def rename_over(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(bytes(SIZE - 1) + b"x")
    os.replace(other, path)


def retarget(path: Path) -> None:
    for name, byte in (("one", b"\0"), ("two", b"x")):
        path.with_name(name).write_bytes(bytes(SIZE - 1) + byte)
    path.unlink()
    path.symlink_to("two")


@pytest.mark.parametrize("process", ["the same process", "another"])
@pytest.mark.parametrize("change", [overwrite, rename_over, retarget])
def test_a_change_that_hides_is_seen(place, reads, change, process):
    old, name = content_digest(place), fingerprint(place)
    keeping_times(place, lambda: change(place))
    if process == "another":
        as_another_process()
    assert content_digest(place) == true_digest(place) != old
    assert fingerprint(place) != name and len(reads) == 2


def test_what_has_just_changed_is_not_remembered(place):
    """Within one tick of the clock a second change gives the same times."""
    status = place.stat()
    for byte in range(20):
        with place.open("r+b") as file:
            file.write(bytes([byte]))
        os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert content_digest(place) == true_digest(place)


def test_a_file_that_changes_while_it_is_read_is_not_remembered(place, reads, monkeypatch):
    digest = hashlib.file_digest

    def slow(file, name: str):
        time.sleep(cache.TICK / 1e9)
        found = digest(file, name)
        overwrite(place)
        return found

    monkeypatch.setattr(hashlib, "file_digest", slow)
    content_digest(place)
    monkeypatch.setattr(hashlib, "file_digest", digest)
    assert content_digest(place) == true_digest(place)


@given(st.binary(max_size=120))
def test_a_damaged_memo_is_no_answer(damage):
    memo = cache.cache_folder("digests") / "0123"
    memo.parent.mkdir(parents=True, exist_ok=True)
    memo.write_bytes(damage)
    assert cache._recall(memo) is None


@pytest.mark.parametrize("damage", ["cut", "one digit", "of another file", "a folder"])
def test_memos_that_look_right(place, reads, damage):
    content_digest(place)
    (memo,) = cache.cache_folder("digests").iterdir()
    text = memo.read_text()
    place.with_name("other").write_text("other")
    content_digest(place.with_name("other"))
    (other,) = set(cache.cache_folder("digests").iterdir()) - {memo}
    if damage == "cut":
        memo.write_text(text[:40])
    elif damage == "one digit":
        memo.write_text(("0" if text[0] != "0" else "1") + text[1:])
    elif damage == "of another file":
        memo.write_bytes(other.read_bytes())
    else:
        memo.unlink()
        memo.mkdir()
    as_another_process()
    assert content_digest(place) == true_digest(place)


def test_without_a_cache_it_only_takes_longer(place, reads, monkeypatch):
    place.with_name("no folder").write_text("")
    monkeypatch.setenv("RESQLVER_CACHE", str(place.with_name("no folder")))
    for _ in range(2):
        as_another_process()
        assert content_digest(place) == true_digest(place)
    assert len(reads) == 2


def test_a_file_that_is_not_there_is_named(tmp_path):
    for known in (content_digest, fingerprint, file_state):
        with pytest.raises(InputError, match=r"nowhere: cannot be read \(No such file"):
            known(tmp_path / "nowhere")


# --- databases ------------------------------------------------------------------------------------------------------


def described(root: Path) -> Path:
    """The folder of a database with descriptions."""
    folder = make_database(root / "shop" / "shop.sqlite").parent
    (folder / "database_description").mkdir()
    (folder / "database_description" / "product.csv").write_text("original_column_name\nid\n")
    return folder


CHANGES = {
    "a row": lambda folder: make_database(folder / "shop.sqlite", "UPDATE product SET name = 'axe' WHERE id = 1"),
    "a description": lambda folder: (folder / "database_description" / "product.csv").write_text(
        "original_column_name\nxd\n"
    ),
    "a further description": lambda folder: (folder / "database_description" / "Order.CSV").write_text("x"),
    "a renamed description": lambda folder: (folder / "database_description" / "product.csv").rename(
        folder / "database_description" / "order.csv"
    ),
    "no description": lambda folder: (folder / "database_description" / "product.csv").unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_database_is_its_bytes_and_its_descriptions(tmp_path, change):
    folders = [described(tmp_path / name) for name in ("one", "other")]
    same = {database_fingerprint(folder.parent, "shop") for folder in folders}
    assert len(same) == 1
    (folders[0] / "database_description" / "._product.csv").write_bytes(b"\0")  # what macOS leaves is never read
    before = database_fingerprints(tmp_path / "one", ["shop", "shop"])
    assert before == {"shop": same.pop()}
    check_unchanged(tmp_path / "one", before, "do something")
    CHANGES[change](folders[0])
    assert database_fingerprints(tmp_path / "one", ["shop"]) != before
    with pytest.raises(InputError, match=r"shop\.sqlite: it or its descriptions changed .*; do something"):
        check_unchanged(tmp_path / "one", before, "do something")
