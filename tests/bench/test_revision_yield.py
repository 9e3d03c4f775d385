"""A trained reviser beside the generator that it was trained on, both of them fakes."""

import re
from types import SimpleNamespace

import pytest

from bench import revision_yield
from common.trained_on import write_trained_on
from tests.bench.conftest import promises
from tests.builders import make_reviser
from tests.conftest import assert_one_line_error, run_main
from tests.fake_worker import FakeGenerator, encode
from tests.shop import QUESTIONS
from tree.replies import Reply


class Taught(FakeGenerator):
    """Of its two replies to a request for revisions the reviser has both right, in twice the tokens; of two samples
    none. The generator revises one of them right, and has both samples right, but for the first attempts."""

    def __init__(self, model, tokenizer, sampling, engine):
        self.reviser = engine.reviser

    async def sample(self, messages, n, seed, revises=False):
        shown = "An earlier query was wrong:" in messages[0]["content"]
        gold = next(sql for question, sql in QUESTIONS if question in messages[0]["content"])
        right = 0 if n > 2 else {(True, True): 2, (False, True): 1, (True, False): 0, (False, False): 2}[revises, shown]
        queries = [gold] * right + [f"SELECT {number} FROM product" for number in range(right, n)]
        return [Reply(f"```sql\n{sql}\n```", 20 if revises else 10) for sql in queries]


@pytest.fixture
def measure_reviser(dataset, tiny_model, tmp_path, monkeypatch):
    """Compares a reviser for REVISION=query with a fake generator; `trained_on` are databases."""
    monkeypatch.setattr(revision_yield, "Generator", Taught)
    monkeypatch.setattr(revision_yield, "encode", encode)
    monkeypatch.setattr(revision_yield, "load_tokenizer", lambda model: None)
    folder = make_reviser(tmp_path / "reviser", tiny_model, "query")

    def run(*flags: object, trained_on: tuple[str, ...] = ()):
        write_trained_on(folder, [SimpleNamespace(db_id=db_id, prompt=()) for db_id in trained_on], {})
        places = ("--data", dataset, "--db_root", dataset.parent / "databases", "--model", tiny_model)
        few = ("--per_database", "3", "--nodes", "9", "--reviser", folder)
        return run_main("bench.revision_yield", *places, *few, *flags)

    return run


def test_reviser_beside_the_generator_that_it_was_trained_on(measure_reviser):
    """Asked in its own way, and both with the task alone."""
    run = measure_reviser()
    assert promises(run) == {"reviser_yield_of_generator": 1.0, "reviser_yield_of_samples": 0.5}
    shares = dict(re.findall(r"^(samples|query|reviser|reviser's samples)  +([\d.]+) \[", run.stdout, re.M))
    assert shares == {"samples": "100.0", "query": "50.0", "reviser's samples": "0.0", "reviser": "100.0"}
    assert re.search(r"^beside query +50\.0 \[.* +1\.00 ", run.stdout, re.M)
    assert re.search(r"^beside reviser's samples +100\.0 \[", run.stdout, re.M)


def test_a_reviser_is_not_measured_on_what_it_was_trained_on(measure_reviser):
    run = measure_reviser(trained_on=("store",))
    assert_one_line_error(run, "was trained on database 'store'", "--allow_overlap")
    assert "first attempts" not in run.stderr
    assert promises(measure_reviser("--allow_overlap", trained_on=("store",)))
    assert measure_reviser("--revisions", "facts").returncode == 2  # it has its own
