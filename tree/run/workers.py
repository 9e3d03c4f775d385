"""Work on many questions at a time; one that fails, or kills its worker, is tried again and then quarantined."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence

from common.files import InputError
from tree.replies import EngineDied
from tree.run.question_log import QuestionLog
from tree.run.work_list import WorkList
from tree.tree_node import Question

Answer = Callable[[Question], Awaitable[dict]]  # what comes of a question, as its line of the log


def run_whole(run: Coroutine) -> None:
    """A run to its end. Where its engine dies, the process ends with one line and exit code 1."""
    try:
        asyncio.run(run)
    except EngineDied as death:
        sys.exit(f"error: {death}; what is finished is kept, the same command resumes with the rest")


def leave_out_quarantined(work: WorkList, log: QuestionLog) -> None:
    """Skip the questions that failed or killed their worker again and again, loudly."""
    quarantined = log.quarantined()
    work.skip(quarantined)
    if quarantined:
        print(f"warning: {len(quarantined)} questions are quarantined:")
    work.report("every question failed; the reasons are above, --fresh tries again")


async def run_questions(questions: Sequence[Question], answer: Answer, log: QuestionLog, at_once: int) -> None:
    """`await answer(question)` for every question that is neither finished nor quarantined, into the log.

    At most `at_once` are in flight, each next one when one is done. A question that raises is tried once more after all
    others, one that was in flight when a worker died comes last and alone. Raises EngineDied, InputError and OSError,
    which are not a question's fault.
    """
    try:
        trusted = [question for question in log.unfinished(questions) if not log.is_suspect(question)]
        await _side_by_side([question for question in trusted if not log.has_failed(question)], answer, log, at_once)
        failed_once = [question for question in log.unfinished(trusted) if log.has_failed(question)]
        await _side_by_side(failed_once, answer, log, at_once)
        while suspects := log.unfinished(questions):
            await _worker(iter(suspects), answer, log)
    except EngineDied as death:
        log.died(str(death))
        raise


async def _side_by_side(questions: Sequence[Question], answer: Answer, log: QuestionLog, at_once: int) -> None:
    """The questions, by as many workers at a time; when one of them raises, the others are stopped."""
    waiting = iter(questions)
    workers = [asyncio.create_task(_worker(waiting, answer, log)) for _ in range(min(at_once, len(questions)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def _worker(waiting: Iterator[Question], answer: Answer, log: QuestionLog) -> None:
    """Take one question after the other."""
    for question in waiting:
        number = question.question_id
        log.begun(number)
        try:
            content = await answer(question)
        except (EngineDied, InputError, OSError):
            raise
        except Exception as error:  # whatever it is, the other questions are worked on
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            log.failed(number, reason)
            print(f"warning: question {number} ({question.db_id}) failed: {reason}", flush=True)
        else:
            log.finished(content)
