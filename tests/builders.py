"""Builders of trees, databases and runs of scripts that several tests use."""

import json
from contextlib import closing
from pathlib import Path

from hypothesis import strategies as st

from common.model_folder import model_fingerprint
from common.trained_on import write_trained_on
from tests.conftest import run_main
from tree.run.prompt_settings import PromptSettings
from tree.sql.canonical import canonical_sql
from tree.sql.database_file import connect
from tree.sql.guarded import Limits
from tree.sql.perturbed import INSTANCES, build, instance_files
from tree.sql.results import Verdict
from tree.sql.verdict import JudgeSettings, is_fragile, judge, marked_fragile
from tree.tree_builder import feedback_text
from tree.tree_node import INITIAL, Question, RevisionTree, tree_to_json

QUESTION = Question(7, "shop", "How many?", "", "SELECT 1", "simple")
SHOP_GOLD = "SELECT COUNT(*) FROM product"


def verdict_here(path: Path, sql: str, gold: str, instances: Path | None = None) -> Verdict:
    """The verdict of this process, without a worker; `instances` is the folder of the perturbed instances."""
    settings = JudgeSettings(Limits(30.0, 10**9), perturbed=instances)
    verdict = judge(str(path), sql, gold, settings)
    if verdict.ex and instances and is_fragile(str(path), sql, gold, verdict, settings):
        return marked_fragile(verdict)
    return verdict


def rows_of(path: Path, query: str) -> list[tuple]:
    """What SQLite gives for a query, outside the sandbox."""
    with closing(connect(path)) as connection:
        return connection.execute(query).fetchall()


def make_instances(path: Path, folder: Path) -> dict[str, Path]:
    """Build the perturbed instances of the database at `path`: name -> file."""
    files = instance_files(folder, str(path))
    with closing(connect(path)) as connection:
        build(connection, files, lambda: True)
    return dict(zip(INSTANCES, files, strict=True))


# --- trees ------------------------------------------------------------------------------------------------------------


@st.composite
def trees(draw) -> RevisionTree:
    """Trees grown breadth first with random verdicts; correct nodes and duplicates (if marked) have no children."""
    tree, marked, first = RevisionTree(QUESTION, "the task"), draw(st.booleans()), {}
    parents = [INITIAL]
    for _ in range(draw(st.integers(1, 4))):
        level = []
        for parent in parents:
            for _ in range(draw(st.integers(1, 3))):
                correct, own = draw(st.booleans()), f"SELECT {len(tree.nodes)} FROM t"
                sql = draw(st.sampled_from(["SELECT 1", "SELECT 2", "select  1", "SELECT a FROM t", "", own, own]))
                node = tree.add(
                    parent,
                    generated_sql=sql,
                    execution_feedback="feedback",
                    outcome="ok" if sql else "no_sql",
                    is_correct=correct,
                    strict_match=correct and draw(st.booleans()),
                    duplicate_of=first.get(canonical_sql(sql)) if marked else None,
                )
                first.setdefault(canonical_sql(sql), node.node_id)
                if not correct and not node.duplicate_of and draw(st.booleans()):
                    node.input_seq = "revise"
                    level.append(node.node_id)
        parents = level
    return tree


def tree_of(*nodes: tuple[str, str, bool]) -> RevisionTree:
    """A tree from (parent, SQL, correct); a node with children was revised."""
    tree = RevisionTree(QUESTION, "the task")
    for parent, sql, correct in nodes:
        content = {"execution_feedback": "", "outcome": "ok", "is_correct": correct, "strict_match": correct}
        tree.add(parent, generated_sql=sql, **content)
        if parent != INITIAL:
            tree.nodes[parent].input_seq = "revise"
    return tree


@st.composite
def trees_in_doubt(draw) -> RevisionTree:
    """Trees with any outcomes, some of whose correct nodes are fragile; few queries that repeat, or all different."""
    tree, different = draw(trees()), draw(st.booleans())
    for number, node in enumerate(tree.nodes.values()):
        if node.generated_sql:
            node.outcome = draw(st.sampled_from(["ok", "empty", "error"]))
            node.generated_sql += f" WHERE {number}" if different else ""
        if node.is_correct and draw(st.booleans()):
            node.flags = ["constant", "fragile"]
    return tree


def shop_tree(database: Path, question_id: int = 5) -> dict:
    """A tree whose verdicts are true: wrong, revised to right; an error; a duplicate; a reply without SQL."""
    tree = RevisionTree(Question(question_id, "shop", "How many products?", "", SHOP_GOLD), "the task")
    nodes = [
        (INITIAL, "SELECT COUNT(*) FROM product WHERE id > 1", None),
        (INITIAL, "SELECT nme FROM product", None),
        (INITIAL, "select nme from PRODUCT", "node_1_1"),
        (INITIAL, "", None),
        ("node_1_0", "SELECT 3", None),
        ("node_1_0", "SELECT COUNT(id) FROM product", None),
    ]
    for parent, sql, duplicate in nodes:
        verdict = verdict_here(database, sql, SHOP_GOLD)
        tree.add(
            parent,
            generated_sql=sql,
            execution_feedback=feedback_text(verdict, "own"),
            outcome=verdict.execution.outcome,
            is_correct=verdict.ex,
            strict_match=verdict.strict,
            flags=[*verdict.execution.flags, *(["fragile"] if sql == "SELECT 3" else [])],
            tokens=9,
            duplicate_of=duplicate,
        )
    tree.nodes["node_1_0"].input_seq = "revise"
    return tree_to_json(tree)


def verify(folder: Path, content: object, *flags: object):
    """Run `python -m eval` on trees (or the text of their file) against `folder`/databases; see `report_of`."""
    path = folder / "all_trees.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    places = ("--tree_file", path, "--db_root", folder / "databases", "--output", folder / "report.json")
    return run_main("eval.__main__", *places, *flags)


def report_of(folder: Path) -> dict:
    """The report that `verify` left."""
    return json.loads((folder / "report.json").read_text())


# --- runs of train.py and evaluate.py ---------------------------------------------------------------------------------


def training(folder: Path, base: Path, *flags: object) -> tuple:
    """The flags of train.py for four steps on `folder`/pairs.json, into `folder`/adapter; later flags win.

    Results are read, so that what reads them is tested.
    """
    data = ("--data_path", folder / "pairs.json", "--output_dir", folder / "adapter", "--model_id", base)
    steps = ("--max_steps", "4", "--batch_size", "2", "--logging_steps", "1", "--learning_rate", "1e-2")
    return *data, *steps, "--validation_fraction", "0.3", "--result_length", "300", *flags


def random_adapter(folder: Path, base: Path, result_length: int = 300, seed: int = 0) -> Path:
    """A reward adapter with random weights, as train.py leaves it, that says what its prompts were made with."""
    import torch
    from peft import LoraConfig, get_peft_model

    from reward.model import load_base

    torch.manual_seed(seed)
    settings = {"target_modules": "all-linear", "modules_to_save": ["score"], "init_lora_weights": False}
    model = load_base(base, 0, torch.float32)
    get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=4, **settings)).save_pretrained(folder)
    write_trained_on(folder, [], {}, vars(PromptSettings()), result_length)
    return folder


def train(folder: Path, base: Path, *flags: object):
    return run_main("train", *training(folder, base, *flags))


def evaluation(folder: Path, base: Path, *adapters: object) -> tuple:
    """The flags of evaluate.py for adapters on `folder`/pairs.json, in float32, with `folder`/report.json."""
    data = ("--test_data", folder / "pairs.json", "--output_file", folder / "report.json")
    return "--base_model", base, *data, "--batch_size", "3", "--dtype", "float32", "--adapters", *adapters


def evaluate(folder: Path, base: Path, *adapters: object):
    return run_main("evaluate", "--allow_overlap", *evaluation(folder, base, *adapters))


# --- revisers ---------------------------------------------------------------------------------------------------------


def make_reviser(folder: Path, model: Path, revision: str = "facts", weights: bytes = b"one") -> Path:
    """What `tree.train_reviser` leaves, as far as it is read before the engine reads it."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(
        json.dumps({"r": 12, "target_modules": ["model.layers.0.q_proj", "o_proj", "layers.1.q_proj"]})
    )
    (folder / "adapter_model.safetensors").write_bytes(weights)
    made = {"arguments": {"revision": revision}, "model_fingerprint": model_fingerprint(model), "model": "tiny"}
    (folder / "manifest.json").write_text(json.dumps(made))
    write_trained_on(folder, [], {})
    return folder
