"""Candidates for questions without gold: a list of queries for each, to choose from with a reward model."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tree.prompts import chat, extract_sql
from tree.run.question_log import QuestionLog
from tree.run.settings import RunSettings
from tree.run.work_list import WorkList
from tree.run.workers import run_questions
from tree.tree_builder import node_seed
from tree.tree_node import Question

if TYPE_CHECKING:
    from tqdm import tqdm

    from tree.generator import Generator


@dataclass(frozen=True)
class Drawer:
    """Draws `num_roots` queries for a question, those of a tree's first attempts."""

    work: WorkList
    settings: RunSettings
    generator: "Generator"
    bar: "tqdm"

    async def candidates_of(self, question: Question) -> dict:
        """The question's row of candidates.json; "" stands for a reply without a query."""
        prompt, tree = self.work.prompt(question), self.settings.tree
        seed = node_seed(tree.seed, question.question_id, ())
        replies = await self.generator.sample(chat(prompt), tree.num_roots, seed)
        self.bar.update()
        return {
            "question_id": question.question_id,
            "db_id": question.db_id,
            "question": question.question,
            "evidence": question.evidence,
            "prompt": prompt,
            "candidates": [extract_sql(reply.text) for reply in replies],
        }


async def draw_candidates(
    work: WorkList, settings: RunSettings, generator: "Generator", log: QuestionLog
) -> dict[str, int]:
    """Draw candidates for every question of the shard, all at a time, into the log; returns counts."""
    from tqdm import tqdm

    with tqdm(total=len(log.unfinished(work.questions)), desc="candidates", unit="question") as bar:
        drawer = Drawer(work, settings, generator, bar)
        await run_questions(work.questions, drawer.candidates_of, log, at_once=len(work.questions))
    drawn = sum(question.question_id in log for question in work.questions)
    return {"questions": drawn, "candidates": settings.tree.num_roots * drawn, **generator.counts()}
