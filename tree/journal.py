"""Finished questions on disk, one JSON line each, before they count; memory holds their places only."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tree.tree_node import Question


class Journal:
    """`trees.jsonl` or `candidates.jsonl` of a run: append in any order, read back in the questions' order."""

    def __init__(self, path: Path):
        self._file = path.open("x+b")
        self._places: dict[int, int] = {}

    def append(self, content: dict) -> None:
        """Write what came of the question `content["question_id"]`, and wait until it is on disk."""
        self._places[content["question_id"]] = self._file.seek(0, os.SEEK_END)
        self._file.write(json.dumps(content, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def read(self, questions: Sequence[Question]) -> Iterator[dict]:
        """What was appended for `questions`, one at a time."""
        for question in questions:
            self._file.seek(self._places[question.question_id])
            yield json.loads(self._file.readline())
