"""Finished trees on disk, one JSON line each, before they count; memory holds their places only."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tree.tree_node import Question, RevisionTree, tree_to_json


class Journal:
    """`trees.jsonl` of a run: append finished trees in any order, read them back in the questions' order."""

    def __init__(self, path: Path):
        self._file = path.open("x+b")
        self._places: dict[int, int] = {}

    def append(self, tree: RevisionTree) -> None:
        """Write a tree and wait until it is on disk."""
        self._places[tree.question.question_id] = self._file.seek(0, os.SEEK_END)
        self._file.write(json.dumps(tree_to_json(tree), ensure_ascii=False, allow_nan=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def trees(self, questions: Sequence[Question]) -> Iterator[dict]:
        """The trees of `questions` as JSON objects, read one at a time."""
        for question in questions:
            self._file.seek(self._places[question.question_id])
            yield json.loads(self._file.readline())
