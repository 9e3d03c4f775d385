"""Candidates for questions without gold: a list of queries for each, to choose from with a reward model."""

from typing import TYPE_CHECKING

from tree.prompts import chat
from tree.replies import extract_sql
from tree.run.question_log import QuestionLog
from tree.run.settings import RunSettings
from tree.run.work_list import WorkList
from tree.run.workers import run_questions
from tree.tree_builder import node_seed
from tree.tree_node import Question

if TYPE_CHECKING:
    from tree.generator import Generator


async def draw_candidates(
    work: WorkList, settings: RunSettings, generator: "Generator", log: QuestionLog
) -> dict[str, int]:
    """Draw `num_roots` queries for each question, those of a tree's first attempts, into the log; returns counts.

    A row: question_id, db_id, question, evidence, prompt, candidates ("" for a reply without a query).
    """
    from tqdm import tqdm

    count = settings.tree.num_roots

    async def draw(question: Question) -> dict:
        prompt = work.prompt(question)
        seed = node_seed(settings.tree.seed, question.question_id, ())
        replies = await generator.sample(chat(prompt), count, seed)
        bar.update()
        asked = {name: getattr(question, name) for name in ("question_id", "db_id", "question", "evidence")}
        return asked | {"prompt": prompt, "candidates": [extract_sql(reply.text) for reply in replies]}

    with tqdm(total=len(log.unfinished(work.questions)), desc="candidates", unit="question") as bar:
        await run_questions(work.questions, draw, log, at_once=len(work.questions))
    drawn = sum(question.question_id in log for question in work.questions)
    return {"questions": drawn, "candidates": count * drawn, **generator.counts()}
