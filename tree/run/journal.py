"""Finished questions on disk, one JSON line each, before they count; memory holds their places only."""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from common.files import InputError
from tree.tree_node import Question


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
        """(place, content) of every line, None for one that holds no object; to be read to its end before `append`.

        The last line is torn when it holds no object: an object's closing brace is written last. One that lacks only
        its line end is whole.
        """
        place, line = 0, b"\n"
        with self.path.open("rb") as file:
            for line in file:
                content = _object(line)
                if content is None and not file.peek(1):
                    line = b"\n"
                    break
                yield place, content
                place += len(line)
        self._end = place
        if not line.endswith(b"\n"):
            self._write(b"\n")

    def append(self, content: dict) -> int:
        """Add a line; returns its place. Raises InputError when that fails, for example on a full disk."""
        place = self._end
        text = json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n"
        # bytes that were no text, as in an error's message, become what JSON writes for them
        self._write(text.encode("utf-8", "backslashreplace"))
        return place

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
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):  # not JSON, not UTF-8
        return None
    return content if isinstance(content, dict) else None


class Journal:
    """`trees.jsonl` or `candidates.jsonl` of a run: append in any order, read back in the questions' order.

    What is there when it is opened counts. A last line that was torn is cut off; one that is broken further up was not
    torn, so it raises InputError.
    """

    def __init__(self, path: Path):
        self._lines = LineFile(path, synced=True)
        self._places: dict[int, int] = {}
        for number, (place, content) in enumerate(self._lines.stored(), 1):
            question_id = content.get("question_id") if content else None
            if not isinstance(question_id, int):
                raise InputError(f"{path}: line {number} is broken; delete it, its question is worked on again")
            self._places[question_id] = place

    def __contains__(self, question_id: int) -> bool:
        return question_id in self._places

    def __len__(self) -> int:
        return len(self._places)

    def append(self, content: dict) -> None:
        """Write what came of the question `content["question_id"]`, and wait until it is on disk.

        Raises InputError when that fails, for example on a full disk.
        """
        self._places[content["question_id"]] = self._lines.append(content)

    def read(self, questions: Sequence[Question]) -> Iterator[dict]:
        """What was appended for `questions`, one at a time."""
        with self._lines.path.open("rb") as file:
            for question in questions:
                file.seek(self._places[question.question_id])
                yield json.loads(file.readline())

    def close(self) -> None:
        self._lines.close()
