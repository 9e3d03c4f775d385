"""Finished questions on disk, one JSON line each, before they count; memory holds their places only."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tree.files import InputError
from tree.tree_node import Question


class Journal:
    """`trees.jsonl` or `candidates.jsonl` of a run: append in any order, read back in the questions' order.

    What is there when it is opened counts. A last line that a kill or a power cut tore is cut off; one that is broken
    further up was not torn, so it raises InputError.
    """

    def __init__(self, path: Path):
        self.path = path
        self._writing = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        self._reading = path.open("rb")
        self._places: dict[int, int] = {}
        self._find_places()

    def _find_places(self) -> None:
        end = 0
        for number, line in enumerate(self._reading, 1):
            try:
                question_id = json.loads(line)["question_id"] if line.endswith(b"\n") else None
            except (ValueError, TypeError, KeyError):  # not JSON, not UTF-8, no object, another object
                question_id = None
            if not isinstance(question_id, int):
                if self._reading.read(1):
                    raise InputError(
                        f"{self.path}: line {number} is broken; delete it, its question is worked on again"
                    )
                os.ftruncate(self._writing, end)
                return
            self._places[question_id] = end
            end += len(line)

    def __contains__(self, question_id: int) -> bool:
        return question_id in self._places

    def __len__(self) -> int:
        return len(self._places)

    def append(self, content: dict) -> None:
        """Write what came of the question `content["question_id"]`, and wait until it is on disk.

        Raises InputError when that fails, for example on a full disk.
        """
        place = os.fstat(self._writing).st_size
        left = memoryview(json.dumps(content, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        try:
            while left:
                left = left[os.write(self._writing, left) :]
            os.fsync(self._writing)
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror}); the {len(self)} finished questions in it are "
                f"kept, make room and run the same command again"
            ) from None
        self._places[content["question_id"]] = place

    def read(self, questions: Sequence[Question]) -> Iterator[dict]:
        """What was appended for `questions`, one at a time."""
        for question in questions:
            self._reading.seek(self._places[question.question_id])
            yield json.loads(self._reading.readline())

    def close(self) -> None:
        os.close(self._writing)
        self._reading.close()
