"""Candidates for questions without gold: a list of queries for each, to choose from with a reward model."""

import argparse
import asyncio

from tree.journal import Journal
from tree.preflight import Work
from tree.prompts import chat, extract_sql
from tree.tree_builder import node_seed
from tree.tree_node import Question


async def draw_candidates(work: Work, args: argparse.Namespace, generator, journal: Journal) -> dict:
    """Draw `num_roots` queries for each question, those of a tree's first attempts, into the journal; returns counts.

    A row of the journal: question_id, db_id, question, evidence, prompt, candidates ("" for a reply without a query).
    """
    from tqdm.asyncio import tqdm

    async def one(question: Question) -> None:
        prompt = work.prompt(question)
        seed = node_seed(args.seed, question.question_id, ())
        replies = await generator.sample(chat(prompt), args.num_roots, seed)
        journal.append(
            {
                "question_id": question.question_id,
                "db_id": question.db_id,
                "question": question.question,
                "evidence": question.evidence,
                "prompt": prompt,
                "candidates": [extract_sql(reply.text) for reply in replies],
            }
        )

    async with asyncio.TaskGroup() as tasks:
        drawn = [tasks.create_task(one(question)) for question in work.questions]
        for finished in tqdm.as_completed(drawn, desc="candidates", unit="question"):
            await finished
    return {"questions": len(work.questions), "candidates": args.num_roots * len(work.questions), **generator.counts()}
