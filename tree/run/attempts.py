"""Work on many questions at a time; one that fails, or kills its worker, is tried again and then set aside."""

import asyncio
import contextlib
import faulthandler
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

from common.files import InputError
from tree.generator import EngineDied
from tree.run.journal import Journal, LineFile
from tree.tree_node import Question

TRIES = 2  # failures, or deaths of the worker, after which a question is set aside


class Attempts:
    """`attempts.jsonl` of a run: what was begun, what failed, and what was in flight when the worker died.

    A death that a signal from outside brought about (SIGKILL, SIGTERM, Ctrl-C) blames nobody. A crash of the process
    blames all questions in flight, until one was alone: `crash.txt` beside the file holds what `recording_crashes`
    caught, and is taken in when the run is opened again.
    """

    def __init__(self, folder: Path, journal: Journal):
        self._journal = journal
        self._failures: dict[int, list[str]] = defaultdict(list)
        self._deaths: dict[int, list[tuple[str, bool]]] = defaultdict(list)  # reason; whether it was alone in flight
        self._in_flight: set[int] = set()
        # handed to the kernel and no more: a power cut blames nobody
        self._lines, self._crash = LineFile(folder / "attempts.jsonl", synced=False), folder / "crash.txt"
        died = self._replay()
        crash = self._crash.read_text(errors="replace") if self._crash.exists() else ""
        if crash and not died:
            self.died(crash.splitlines()[0])
        self._crash.unlink(missing_ok=True)
        self._lines.append({"start": len(journal)})
        self._in_flight.clear()

    def _replay(self) -> bool:
        """Take in what the file says; whether its last start recorded its own death."""
        died = True
        for _, entry in self._lines.stored():
            if entry is None:
                continue
            if "start" in entry:
                self._in_flight, died = set(), False
            elif "begun" in entry:
                self._in_flight.add(entry["begun"])
            elif "failed" in entry:
                self._note_failure(entry["failed"], entry["reason"])
            elif "died" in entry:
                self._note_death(entry["died"], entry["reason"])
                died = True
        self._in_flight = {number for number in self._in_flight if number not in self._journal}
        return died

    def _note_failure(self, question_id: int, reason: str) -> None:
        self._in_flight.discard(question_id)
        self._failures[question_id].append(reason)

    def _note_death(self, question_ids: Sequence[int], reason: str) -> None:
        for question_id in question_ids:
            self._deaths[question_id].append((reason, len(question_ids) == 1))

    def begun(self, question_id: int) -> None:
        self._in_flight.add(question_id)
        self._lines.append({"begun": question_id})

    def done(self, question_id: int) -> None:
        self._in_flight.discard(question_id)

    def failed(self, question_id: int, reason: str) -> None:
        self._lines.append({"failed": question_id, "reason": reason})
        self._note_failure(question_id, reason)

    def died(self, reason: str) -> None:
        """The worker dies, or died, with what is in flight."""
        in_flight = sorted(self._in_flight)
        self._lines.append({"died": in_flight, "reason": reason})
        self._note_death(in_flight, reason)

    def has_failed(self, question_id: int) -> bool:
        return question_id in self._failures

    def is_suspect(self, question_id: int) -> bool:
        """Whether a worker died while the question was in flight."""
        return question_id in self._deaths

    def set_aside(self) -> dict[int, str]:
        """The questions that are given up, with the reason."""
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
        return {number: why for number, why in (failed | killed).items() if number not in self._journal}

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

    def close(self) -> None:
        self._lines.close()


async def work_off(
    questions: Sequence[Question],
    at_once: int,
    make: Callable[[Question], Awaitable[dict]],
    journal: Journal,
    attempts: Attempts,
) -> None:
    """`await make(question)` for every question that is neither in the journal nor set aside, into the journal.

    At most `at_once` are in flight, each next one when one is done. A question that raises is tried once more after all
    others, one that was in flight when a worker died comes last and alone. Raises EngineDied, InputError and OSError,
    which are not a question's fault.
    """

    async def one(question: Question) -> None:
        number = question.question_id
        attempts.begun(number)
        try:
            content = await make(question)
        except (EngineDied, InputError, OSError):
            raise
        except Exception as error:  # whatever it is, the others go on
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            attempts.failed(number, reason)
            print(f"warning: question {number} ({question.db_id}) failed: {reason}", flush=True)
            return
        journal.append(content)
        attempts.done(number)

    async def gardener(waiting: Iterator[Question]) -> None:
        for question in waiting:
            await one(question)

    async def together(some: list[Question]) -> None:
        waiting = iter(some)
        tasks = [asyncio.create_task(gardener(waiting)) for _ in range(min(at_once, len(some)))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def left() -> list[Question]:
        given_up = attempts.set_aside()
        return [
            question
            for question in questions
            if question.question_id not in journal and question.question_id not in given_up
        ]

    def trusted() -> list[Question]:
        return [question for question in left() if not attempts.is_suspect(question.question_id)]

    try:
        await together([question for question in trusted() if not attempts.has_failed(question.question_id)])
        await together(trusted())
        while suspects := left():
            for question in suspects:
                await one(question)
    except EngineDied as death:
        attempts.died(str(death))
        raise
