"""Candidates for questions without gold: a list of queries for each, to choose from with a reward model."""

import argparse

from tree.prompts import chat, extract_sql
from tree.run.attempts import Attempts, work_off
from tree.run.journal import Journal
from tree.run.preflight import Work
from tree.tree_builder import node_seed
from tree.tree_node import Question


async def draw_candidates(
    work: Work, args: argparse.Namespace, generator, journal: Journal, attempts: Attempts
) -> dict[str, int]:
    """Draw `num_roots` queries for each question, those of a tree's first attempts, into the journal; returns counts.

    A row of the journal: question_id, db_id, question, evidence, prompt, candidates ("" for a reply without a query).
    """
    from tqdm import tqdm

    left = sum(question.question_id not in journal for question in work.questions)

    async def draw(question: Question) -> dict:
        prompt = work.prompt(question)
        seed = node_seed(args.seed, question.question_id, ())
        replies = await generator.sample(chat(prompt), args.num_roots, seed)
        bar.update()
        return {
            "question_id": question.question_id,
            "db_id": question.db_id,
            "question": question.question,
            "evidence": question.evidence,
            "prompt": prompt,
            "candidates": [extract_sql(reply.text) for reply in replies],
        }

    with tqdm(total=left, desc="candidates", unit="question") as bar:
        await work_off(work.questions, len(work.questions), draw, journal, attempts)
    drawn = sum(question.question_id in journal for question in work.questions)
    return {"questions": drawn, "candidates": args.num_roots * drawn, **generator.counts()}
