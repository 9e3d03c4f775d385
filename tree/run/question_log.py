"""What became of each question of a run, on disk before it counts; memory holds no trees, only where they are.

What came of a finished question is a line of `trees.jsonl` (or `candidates.jsonl`), which outlasts a power cut.
`attempts.jsonl` beside it says which were begun, which failed, and which were in flight when the worker died.
"""

import contextlib
import faulthandler
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from common.files import InputError
from tree.tree_node import Question

TRIES = 2  # failures, or deaths of the worker, after which a question is quarantined


class LineFile:
    """A file to which JSON objects are added, one on each line, whole or not at all.

    What a kill, a power cut or a full disk left of a line is cut off, when the file is opened and before the next line.
    With `synced` a line is on disk when it counts, otherwise it is handed to the kernel.
    """

    def __init__(self, path: Path, synced: bool):
        self.path, self._synced = path, synced
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        self._end = 0  # of what is whole

    def stored(self) -> Iterator[tuple[int, dict | None]]:
        """(offset, content) of every line, None for one that holds no object; read it to its end before `append`.

        The last line is torn when it holds no object: an object's closing brace is written last. One that lacks only
        its line end is whole.
        """
        offset, line = 0, b"\n"
        with self.path.open("rb") as file:
            for line in file:
                content = _object(line)
                if content is None and not file.peek(1):
                    line = b"\n"
                    break
                yield offset, content
                offset += len(line)
        self._end = offset
        if not line.endswith(b"\n"):
            self._write(b"\n")

    def append(self, content: dict) -> int:
        """Add a line; returns its offset. Raises InputError when that fails, for example on a full disk."""
        offset = self._end
        text = json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n"
        # bytes that were no text, as in an error's message, become what JSON writes for them
        self._write(text.encode("utf-8", "backslashreplace"))
        return offset

    def read(self, offsets: Sequence[int]) -> Iterator[dict]:
        """The lines that begin there, one at a time."""
        with self.path.open("rb") as file:
            for offset in offsets:
                file.seek(offset)
                yield json.loads(file.readline())

    def _write(self, text: bytes) -> None:
        left = memoryview(text)
        try:
            os.ftruncate(self._file, self._end)
            while left:
                left = left[os.write(self._file, left) :]
            if self._synced:
                os.fsync(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._end)
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror}); what is finished is kept, make room and run the "
                f"same command again"
            ) from None
        self._end += len(text)

    def close(self) -> None:
        os.close(self._file)


def _object(line: bytes) -> dict | None:
    """The JSON object of a line; None for anything else."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):  # not JSON, not UTF-8
        return None
    return content if isinstance(content, dict) else None


class QuestionLog:
    """The questions that are begun, finished, failed, or were in flight when the worker died, in two files.

    Opening it takes in what is there. A last line that was torn is cut off; a line of `trees.jsonl` that is broken
    further up was not torn, so it raises InputError. Call `start` before anything is recorded.
    A death that a signal from outside brought about (SIGKILL, SIGTERM, Ctrl-C) blames nobody. A crash of the process
    blames all questions in flight, until one was alone: `crash.txt` holds what `recording_crashes` caught.
    """

    def __init__(self, path: Path):
        """`path` is the file of the finished questions; the others lie beside it."""
        self._offsets: dict[int, int] = {}  # of finished questions
        self._failures: dict[int, list[str]] = defaultdict(list)
        self._deaths: dict[int, list[tuple[str, bool]]] = defaultdict(list)  # reason; whether it was alone in flight
        self._in_flight: set[int] = set()
        self._death_is_known = True  # of the worker that recorded last
        self._crash = path.with_name("crash.txt")
        self._finished = LineFile(path, synced=True)
        for number, (offset, content) in enumerate(self._finished.stored(), 1):
            question_id = content.get("question_id") if content else None
            if not isinstance(question_id, int):
                raise InputError(f"{path}: line {number} is broken; delete it, its question is worked on again")
            self._offsets[question_id] = offset
        # handed to the kernel and no more: a power cut blames nobody
        self._events = LineFile(path.with_name("attempts.jsonl"), synced=False)
        for _, event in self._events.stored():
            self._apply(event)
        self._in_flight.difference_update(self._offsets)

    # --- recording ---

    def start(self) -> None:
        """A worker begins; what the one before it left in `crash.txt` is recorded first."""
        crash = self._crash.read_text(errors="replace") if self._crash.exists() else ""
        if crash and not self._death_is_known:
            self.died(crash.splitlines()[0])
        self._crash.unlink(missing_ok=True)
        self._record({"start": len(self)})

    def begun(self, question_id: int) -> None:
        self._record({"begun": question_id})

    def finished(self, content: dict) -> None:
        """Keep what came of the question `content["question_id"]`, and wait until it is on disk.

        Raises InputError when that fails, for example on a full disk.
        """
        question_id = content["question_id"]
        self._offsets[question_id] = self._finished.append(content)
        self._in_flight.discard(question_id)

    def failed(self, question_id: int, reason: str) -> None:
        self._record({"failed": question_id, "reason": reason})

    def died(self, reason: str) -> None:
        """The worker dies, or died, with what is in flight."""
        self._record({"died": sorted(self._in_flight), "reason": reason})

    def _record(self, event: dict) -> None:
        self._events.append(event)
        self._apply(event)

    def _apply(self, event: dict | None) -> None:
        match event:
            case {"start": _}:
                self._in_flight.clear()
                self._death_is_known = False
            case {"begun": question_id}:
                self._in_flight.add(question_id)
            case {"failed": question_id, "reason": reason}:
                self._in_flight.discard(question_id)
                self._failures[question_id].append(reason)
            case {"died": question_ids, "reason": reason}:
                for question_id in question_ids:
                    self._deaths[question_id].append((reason, len(question_ids) == 1))
                self._death_is_known = True

    @contextlib.contextmanager
    def recording_crashes(self) -> Iterator[None]:
        """While the block runs, a signal that the process brings upon itself (SIGSEGV, SIGABRT, SIGBUS, …) is noted.

        Children that are forked inside would share the note, so start an engine before.
        """
        with self._crash.open("w") as file:
            faulthandler.enable(file)
            try:
                yield
            finally:
                faulthandler.disable()
                self._crash.unlink()

    # --- what it says ---

    def __contains__(self, question_id: int) -> bool:
        """Whether the question is finished."""
        return question_id in self._offsets

    def __len__(self) -> int:
        return len(self._offsets)

    def read(self, questions: Sequence[Question]) -> Iterator[dict]:
        """What came of the questions that are finished, one at a time, in their order."""
        numbers = [question.question_id for question in questions]
        return self._finished.read([self._offsets[number] for number in numbers if number in self])

    def has_failed(self, question: Question) -> bool:
        return question.question_id in self._failures

    def is_suspect(self, question: Question) -> bool:
        """Whether a worker died while the question was in flight."""
        return question.question_id in self._deaths

    def unfinished(self, questions: Sequence[Question]) -> list[Question]:
        """Those that are neither finished nor quarantined."""
        done = self._offsets.keys() | self.quarantined().keys()
        return [question for question in questions if question.question_id not in done]

    def quarantined(self) -> dict[int, str]:
        """The questions that are given up, by id, with the reason."""
        failed = {
            number: f"failed {len(reasons)} times: {reasons[-1]}"
            for number, reasons in self._failures.items()
            if len(reasons) >= TRIES
        }
        killed = {
            number: f"killed its worker {len(deaths)} times: {deaths[-1][0]}"
            for number, deaths in self._deaths.items()
            if len(deaths) >= TRIES and deaths[-1][1]
        }
        return {number: reason for number, reason in (failed | killed).items() if number not in self}

    def close(self) -> None:
        self._finished.close()
        self._events.close()
