"""The log of a run's questions: torn lines, full disks, and what counts when it is opened again."""

import contextlib
import errno
import json
import os

import pytest

from common.files import InputError
from tree.run.question_log import QuestionLog
from tree.tree_node import Question


def asked(*numbers: int) -> list[Question]:
    return [Question(number, "shop", "?", "", "SELECT 1") for number in numbers]


def test_a_journal_cut_anywhere_holds_what_was_whole(tmp_path):
    path = tmp_path / "trees.jsonl"
    rows = [{"question_id": number, "text": "Säge\n" * number} for number in range(3)]
    log = QuestionLog(path)
    for row in rows:
        log.finished(row)
    whole = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(whole) if byte == ord("\n")]
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        opened = QuestionLog(path)
        count = sum(end - 1 <= size for end in ends)  # one that lacks only its line end is whole
        assert list(opened.read(asked(*range(count)))) == rows[:count] and len(opened) == count
        for row in rows[count:]:
            opened.finished(row)
        assert path.read_bytes() == whole
        opened.close()


@pytest.mark.parametrize("torn", [b"\0\0\0\0", b"\xff\n", b'{"question_id": 7, "q": "\xe4\xbd', b"7", b"[]\n"])
def test_a_last_line_that_is_torn_is_cut_before_the_next(tmp_path, torn):
    path, line = tmp_path / "trees.jsonl", b'{"question_id": 5}\n'
    path.write_bytes(line + torn)
    log = QuestionLog(path)
    assert len(log) == 1
    log.finished({"question_id": 6})
    assert path.read_bytes() == line + b'{"question_id": 6}\n'


@pytest.mark.parametrize("broken", ['{"question', "{}", '{"question_id": "7"}'])
def test_a_broken_line_further_up_is_named(tmp_path, broken):
    path = tmp_path / "trees.jsonl"
    path.write_text(f'{{"question_id": 5}}\n{broken}\n{{"question_id": 6}}\n')
    with pytest.raises(InputError, match=r"trees.jsonl: line 2 is broken"):
        QuestionLog(path)
    assert path.read_text().count("\n") == 3


@contextlib.contextmanager
def failing(call: str, after: int):
    """os.write writes `after` bytes, or another call is made `after` times; from then on it fails as on a full disk."""
    true = getattr(os, call)
    left = after

    def fails(file, *data):
        nonlocal left
        if left and call == "write":
            count = true(file, data[0][:left])
            left -= count
            return count
        if left:
            left -= 1
            return true(file, *data)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, call, fails)
        yield


@pytest.mark.parametrize("can_cut", [True, False], ids=["", "cannot cut"])
@pytest.mark.parametrize(("call", "after"), [("write", 0), ("write", 1), ("write", 25), ("fsync", 0)])
def test_what_a_failed_append_left_is_cut_off_before_the_next(tmp_path, call, after, can_cut):
    """In the same process, and in the next one; also when the half line could not be cut at once."""
    path = tmp_path / "trees.jsonl"
    first, lost, again = ({"question_id": number, "question": "你好" * 9} for number in (1, 2, 3))
    log = QuestionLog(path)
    log.finished(first)
    before = path.read_bytes()
    refused = pytest.raises(InputError, match="trees.jsonl: cannot be written .No space left on device")
    with failing(call, after), failing("ftruncate", 9 if can_cut else 1), refused:
        log.finished(lost)
    left = after or 999 * (call == "fsync")
    assert len(log) == 1 and (path.read_bytes() == before) == (can_cut or not left)
    log.finished(again)
    assert list(log.read(asked(1, 3))) == [first, again]
    reopened = QuestionLog(path)
    assert 2 not in reopened and list(reopened.read(asked(1, 3))) == [first, again]


def test_what_is_torn_in_the_attempts_is_not_joined_to_the_next(tmp_path):
    log = QuestionLog(tmp_path / "trees.jsonl")
    log.start()
    log.failed(4, "not text: \udc80")
    with failing("write", 9), pytest.raises(InputError, match="attempts.jsonl: cannot be written"):
        log.failed(5, "lost")
    log.failed(4, "again")
    log.close()
    path = tmp_path / "attempts.jsonl"
    lines = path.read_bytes()
    assert [json.loads(line) for line in lines.splitlines()][1:] == [
        {"failed": 4, "reason": "not text: \udc80"},
        {"failed": 4, "reason": "again"},
    ]
    for tail in (b"", b'{"failed": 6, "reason": "\xe4\xbd', b"\0" * 9, b"[]"):
        path.write_bytes(lines + tail)
        opened = QuestionLog(tmp_path / "trees.jsonl")
        opened.start()
        assert opened.quarantined() == {4: "failed 2 times: again"}
        opened.close()
        assert path.read_bytes() == lines + b'{"start": 0}\n'
    path.write_bytes(lines[:-1])  # lacks only its line end
    assert QuestionLog(tmp_path / "trees.jsonl").quarantined() == {4: "failed 2 times: again"}
