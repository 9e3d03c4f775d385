"""data/download_bird.sh on small archives of BIRD's structure, from a server that breaks off and from a file."""

import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.conftest import ROOT, assert_one_line_error, run_script

QUESTIONS = [{"db_id": name, "question": "How many?", "evidence": "", "SQL": "SELECT 1"} for name in ("shop", "store")]
DATABASE = bytes(range(256)) * 64
FILES = {
    "train_databases/shop/shop.sqlite": DATABASE,
    "train_databases/shop/database_description/product.csv": "columns é".encode("cp1252"),
    "train_databases/store/store.sqlite": DATABASE[::-1],
    "__MACOSX/train_databases/shop/._shop.sqlite": b"rubbish",
}


def zipped(files: dict[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return archive.getvalue()


def bird(databases: dict[str, bytes] = FILES) -> bytes:
    """An archive as BIRD's training set is one: the databases are an archive in it."""
    questions = json.dumps(QUESTIONS).encode()
    inner = {"train/train_databases.zip": zipped(databases)}
    return zipped(inner | {"train/train.json": questions, "__MACOSX/train/._train.json": b"rubbish"})


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the script, so that it writes nowhere else."""
    (tmp_path / "data").mkdir()
    shutil.copy(ROOT / "data" / "download_bird.sh", tmp_path / "data")
    return tmp_path


def download(project: Path, url: str, *flags: str):
    return run_script(project / "data" / "download_bird.sh", *flags, cwd=project, BIRD_URL=url)


def assert_complete(project: Path) -> None:
    """The set is there, and nothing else is left."""
    train = project / "data" / "train"
    assert json.loads((train / "train.json").read_text()) == QUESTIONS
    wanted = {name: content for name, content in FILES.items() if not name.startswith("__MACOSX")}
    assert {str(path.relative_to(train)): path.read_bytes() for path in train.rglob("*.*") if path.is_file()} == (
        wanted | {"train.json": (train / "train.json").read_bytes()}
    )
    assert {path.name for path in (project / "data").iterdir()} == {"download_bird.sh", "train"}


class BreakingHandler(BaseHTTPRequestHandler):
    """Gives `content` from where it is asked for, at most `most` bytes of it before the connection breaks."""

    def __init__(self, *arguments, content: bytes, most: int, asked: list[str]):
        self.content, self.most, self.asked = content, most, asked
        super().__init__(*arguments)

    def do_HEAD(self) -> int:
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        length = len(self.content)
        if start >= length:
            self.send_error(416)
            return length
        self.send_response(206 if start else 200)
        self.send_header("Content-Range", f"bytes {start}-{length - 1}/{length}")
        self.send_header("Content-Length", str(length - start))
        self.end_headers()
        return start

    def do_GET(self) -> None:
        self.asked.append(self.headers.get("Range", ""))
        start = self.do_HEAD()
        self.wfile.write(self.content[start : start + self.most])

    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture
def serve() -> Iterator:
    """Starts a server of some bytes; gives its address and the list of ranges that are asked for."""
    servers = []

    def start(content: bytes, most: int = 10**9) -> tuple[str, list[str]]:
        asked: list[str] = []
        handler = partial(BreakingHandler, content=content, most=most, asked=asked)
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/train.zip", asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_transfer_that_breaks_off_is_resumed_where_it_stopped(project, serve):
    archive = bird()
    third = len(archive) // 3 + 1
    url, asked = serve(archive, most=third)
    (project / "data" / "train.zip").write_bytes(archive[:10])  # of a run that was killed, or begun by hand
    run = download(project, url)
    assert run.returncode == 0, run.stderr
    assert asked == [f"bytes={10 + number * third}-" for number in range(3)]
    assert "of room needed" in run.stdout
    assert_complete(project)
    run = download(project, url)
    assert run.returncode == 0 and run.stdout == "data/train: complete\n" and len(asked) == 3


def test_what_a_killed_run_left_is_replaced_and_a_whole_archive_is_not_fetched_again(project, serve):
    url, asked = serve(b"")
    (project / "data" / "train.zip").write_bytes(bird())
    (project / "data" / ".train" / "train_databases").mkdir(parents=True)
    run = download(project, url)
    assert run.returncode == 0, run.stderr
    assert not asked
    assert_complete(project)


def test_a_database_that_is_not_in_the_archive_is_told(project):
    (project / "mirror.zip").write_bytes(bird({name: FILES[name] for name in FILES if "store" not in name}))
    run = download(project, (project / "mirror.zip").as_uri())
    assert run.returncode == 0 and "warning: data/train.zip holds no database store;" in run.stderr


def test_the_dev_set_from_a_file(project):
    inner = zipped({"dev_databases/shop/shop.sqlite": DATABASE})
    files = {"dev_20240627/dev.json": json.dumps(QUESTIONS[:1]).encode(), "dev_20240627/dev_databases.zip": inner}
    (project / "mirror.zip").write_bytes(zipped(files))
    run = download(project, (project / "mirror.zip").as_uri(), "--dev")
    assert run.returncode == 0, run.stderr
    assert (project / "data/dev/dev_databases/shop/shop.sqlite").read_bytes() == DATABASE
    assert json.loads((project / "data/dev/dev.json").read_text()) == QUESTIONS[:1]


def cut_inside(archive: bytes) -> bytes:
    """An archive with a byte turned over in the middle."""
    middle = len(archive) // 2
    return archive[:middle] + bytes([archive[middle] ^ 255]) + archive[middle + 1 :]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (cut_inside(bird()), ("data/train.zip: damaged", "delete it and run again")),
        (bird({"train_databases/other/other.sqlite": DATABASE}), ("data/train.zip: no train_databases/NAME",)),
        (zipped({"train/train.json": b"[]"}), ("data/train.zip: no train_databases.zip in it",)),
        (zipped({"train/train_databases.zip": zipped(FILES)}), ("data/train.zip: no train.json in it",)),
    ],
)
def test_what_is_no_archive_of_bird_leaves_nothing_unpacked(project, content, words):
    (project / "mirror.zip").write_bytes(content)
    run = download(project, (project / "mirror.zip").as_uri())
    assert_one_line_error(run, *words)
    assert {path.name for path in (project / "data").iterdir()} == {"download_bird.sh", "train.zip"}


def test_a_server_that_gives_no_more_is_one_clear_line(project, serve):
    url, asked = serve(b"no archive")
    run = download(project, url)
    assert run.returncode == 1 and "Traceback" not in run.stderr
    (line,) = [line for line in run.stderr.splitlines() if line.startswith("error:")]
    assert url in line and "stopped after 10 bytes of data/train.zip" in line and "BIRD_URL" in line
    run = download(project, "http://127.0.0.1:9/train.zip")
    assert run.returncode == 1 and "error: http://127.0.0.1:9/train.zip: stopped" in run.stderr


def test_a_folder_in_the_way_an_unknown_flag_and_too_little_room(project, serve, tmp_path):
    (project / "data" / "train").mkdir()
    (project / "data" / "train" / "train.json").write_text("[]")
    url, asked = serve(bird())
    assert_one_line_error(download(project, url), "data/train: is there", "move it away")
    assert_one_line_error(download(project, url, "--test"), "unknown argument '--test'")
    shutil.rmtree(project / "data" / "train")
    df = tmp_path / "bin" / "df"
    df.parent.mkdir()
    df.write_text("#!/bin/sh\necho Avail\necho 1000\n")
    df.chmod(0o755)
    script = f'export PATH={df.parent}:$PATH; exec bash data/download_bird.sh "$@"'
    (project / "poor.sh").write_text(script)
    run = run_script(project / "poor.sh", cwd=project, BIRD_URL=url)
    assert_one_line_error(run, "data/: too little room")
    assert not asked and not (project / "data" / "train.zip").exists()
