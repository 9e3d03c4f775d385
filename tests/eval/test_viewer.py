"""The page of the tree viewer: what it holds, and that hostile text stands nowhere in it as HTML."""

import base64
import json
import re
import zlib

import pytest

from common.files import InputError
from eval.viewer import BLOCK, PAGE, SCRIPTS, read_pairs, read_rewards, write_viewer
from tree.sql.results import FLAGS, OUTCOMES
from tree.tree_node import INITIAL, Question, RevisionTree, tree_to_json

HOSTILE = (
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>\"'`&amp;</script><!-- {{ 7 * 7 }} ${1} "
    "\u202eevil\u2066\u200f\x00 \ud800 שלום العربية 中文 🙂\n\tnext line"
)
SOURCE = HOSTILE.replace("\x00", "")  # the name of a file
INVISIBLE = {"\u202e": "202E", "\u2066": "2066", "\u200f": "200F", "\x00": "0000", "\ud800": "D800", "\r": "000D"}


def shown(text: str) -> str:
    """Text as the page shows it: what cannot be seen is written out."""
    for character, code in INVISIBLE.items():
        text = text.replace(character, f"⟨U+{code}⟩")
    return text


def add(tree: RevisionTree, parent: str, sql: str, outcome: str = "ok", correct: bool = False, **more):
    said = {"execution_feedback": f"about {sql}", "strict_match": correct, "tokens": 9, **more}
    return tree.add(parent, generated_sql=sql, outcome=outcome, is_correct=correct, **said)


def plain_tree(number: int) -> dict:
    """A tree with every outcome, a duplicate, every flag, and a repaired query two levels down."""
    difficulty = ("simple", "moderate", "challenging", "")[number % 4]
    text = f"How many of kind {number}?"
    question = Question(number, f"db_{number % 3}", text, "kinds count", "SELECT 1", difficulty)
    tree = RevisionTree(question, f"the task of {number}", revision="chat")
    for outcome in OUTCOMES:
        add(tree, INITIAL, f"SELECT '{outcome}'" if outcome != "no_sql" else "", outcome)
    add(tree, INITIAL, "SELECT 'ok'", duplicate_of="node_1_0", flags=list(FLAGS))
    child = add(tree, "node_1_0", "SELECT a, b FROM t WHERE a = 'ok' -- why", "empty")
    if number % 2:
        add(tree, child.node_id, 'SELECT a, "b" FROM t\nWHERE a = 1.5', correct=True)
        tree.nodes["node_3_0"].strict_match = False
    for node in tree.nodes.values():
        node.input_seq = f"revise {node.node_id}" if node.children_ids else ""
    return tree_to_json(tree)


def hostile_tree() -> dict:
    tree = RevisionTree(Question(7000, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE), HOSTILE, HOSTILE, HOSTILE)
    add(tree, INITIAL, HOSTILE, HOSTILE, flags=[HOSTILE, "constructor"], execution_feedback=HOSTILE, input_seq=HOSTILE)
    add(tree, "node_1_0", f"SELECT '{HOSTILE}'", "constructor", duplicate_of=HOSTILE, execution_feedback=HOSTILE)
    tree.shortened = [HOSTILE]
    stored = tree_to_json(tree)
    stored["nodes"] |= dict.fromkeys((HOSTILE, "constructor", "__proto__"), stored["nodes"]["node_2_0"])
    return stored


TREES = [plain_tree(number) for number in range(150)]
FINDINGS = [
    {"question_id": 1, "db_id": "db_1", "node": "node_1_0", "what": "is_correct", "stored": False, "found": True},
    {"question_id": 1, "db_id": "db_1", "node": "", "what": "max_depth", "stored": 3, "found": [1, None]},
    {"question_id": 2, "db_id": "db_2", "node": "node_1_4", "what": "outcome", "stored": 1, "found": 2, "limit": True},
    {"question_id": 7000, "db_id": HOSTILE, "node": "node_1_0", "what": HOSTILE, "stored": HOSTILE, "found": [HOSTILE]},
]


def pair(number: int, chosen: str, rejected: str, sql: tuple[str, str] | None = None, **more) -> dict:
    nodes = TREES[number]["nodes"]
    texts = sql or [nodes[node]["generated_sql"] for node in (chosen, rejected)]
    messages = [[{"role": "assistant", "content": text}] for text in texts]
    return {
        "prompt": [{"role": "user", "content": "the task"}],
        **dict(zip(("chosen", "rejected"), messages, strict=True)),
        **{"question_id": number, "db_id": f"db_{number % 3}", "chosen_node": chosen, "rejected_node": rejected},
        **{"chosen_dist": 0, "rejected_dist": None, "relation": "sibling", **more},
    }


PAIRS = [
    pair(1, "node_3_0", "node_1_1", relation="baseline"),
    pair(1, "node_2_0", "node_1_0", chosen_dist=1, rejected_dist=2, relation="parent"),
]
REWARDS = [
    {"question_id": 1, "db_id": "db_1", "candidates": [
        {"SQL": "SELECT 'ok'", "outcome": "ok", "is_correct": False, "rewards": {"none": -0.25, HOSTILE: 1.5}},
        {"SQL": "", "outcome": "no_sql", "is_correct": None, "rewards": {}},
    ]},
]  # fmt: skip


# --- what is written --------------------------------------------------------------------------------------------------


def unpacked(page: str, name: str):
    text = re.search(rf'<script type="application/octet-stream" id="{name}">([^<]*)</script>', page).group(1)
    return json.loads(zlib.decompress(base64.b64decode(text)))


def test_the_page_holds_everything_and_names_what_is_foreign(tmp_path):
    path = tmp_path / "deep" / "report.html"
    foreign = [
        pair(1, "node_9_9", "node_1_0", ("a", "b")),  # no such node
        pair(1, "node_2_0", "node_1_0", ("SELECT 7", "SELECT 8")),  # of another run
        {**PAIRS[0], "db_id": "elsewhere"},
    ]
    counts = write_viewer(path, iter(TREES), iter(FINDINGS), iter(PAIRS + foreign), iter(REWARDS), "trees.json")
    assert vars(counts) == {"trees": 150, "pairs": 2, "foreign_pairs": 3, "rewarded_nodes": 2}
    page = path.read_text(encoding="utf-8")
    assert page.count('id="block-') == -(-150 // BLOCK)
    index = unpacked(page, "index")
    assert index["adapters"] == ["none", HOSTILE] and [row["id"] for row in index["rows"]] == list(range(150))
    assert index["rows"][1]["findings"] == {"is_correct": 1, "max_depth": 1} and index["rows"][2]["limits"] == 1
    for number in (0, 1, 149):
        block, place = unpacked(page, f"block-{number // BLOCK}"), number % BLOCK
        assert block["prompts"][place] == f"the task of {number}"
        nodes = {node["node_id"]: node for node in block["trees"][place]["nodes"]}
        assert {name: node["generated_sql"] for name, node in nodes.items()} == {
            name: node["generated_sql"] for name, node in TREES[number]["nodes"].items()
        }
    assert "http" not in page.lower().replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")


def test_hostile_text_stands_nowhere_as_html(tmp_path):
    path = tmp_path / "report.html"
    write_viewer(path, [hostile_tree()], FINDINGS, [], REWARDS, source="<script>window.hacked = 1</script>")
    page = path.read_text(encoding="utf-8")
    assert "<script>window" not in page and "onerror" not in page
    assert page.count("<script") == page.count("</script>") == 3  # index, the page's own, one block


def test_old_files_are_read(tmp_path):
    old = json.loads(json.dumps(TREES[1]))
    old["gold_sql"] = old.pop("SQL")
    for node in old["nodes"].values():
        node["revision_distance"] = 999 if node["revision_distance"] is None else node["revision_distance"]
        del node["outcome"], node["strict_match"], node["flags"], node["tokens"]
    path = tmp_path / "report.html"
    write_viewer(path, [old], [])
    page = path.read_text(encoding="utf-8")
    assert "999" not in unpacked(page, "index")["rows"][0]["distances"]
    assert unpacked(page, "block-0")["trees"][0]["sql"] == "SELECT 1"


@pytest.mark.parametrize("bad", [{"no": "tree"}, {**TREES[0], "question_id": float("nan")}])
def test_a_page_is_whole_or_absent(tmp_path, bad):
    path = tmp_path / "report.html"
    for before in (None, "the page before"):
        if before:
            path.write_text(before)
        with pytest.raises(ValueError):
            write_viewer(path, iter([*TREES, bad]), [])
        assert [file.read_text() for file in tmp_path.iterdir()] == ([before] if before else [])


def test_pairs_and_rewards_are_read(tmp_path):
    path = tmp_path / "file.json"
    path.write_text(json.dumps(PAIRS))
    assert read_pairs(path) == [{name: value for name, value in row.items() if name != "prompt"} for row in PAIRS]
    path.write_text(json.dumps({"manifest": {}, "candidates": REWARDS}))
    assert read_rewards(path) == REWARDS


@pytest.mark.parametrize(
    ("read", "content", "words"),
    [
        (read_pairs, {}, "row 0 has no 'question_id'"),
        (read_pairs, [PAIRS[0], {**PAIRS[1], "chosen": []}], "row 1: 'chosen'"),
        (read_pairs, [{**PAIRS[0], "rejected": [{"role": "assistant"}]}], "row 0: 'rejected'"),
        (read_pairs, [{**PAIRS[0], "rejected": "SELECT 1"}], "'rejected' is str"),
        (read_pairs, [{"chosen": [], "rejected": []}], "row 0 has no 'question_id'"),
        (read_rewards, [], "expected a JSON object"),
        (read_rewards, {"pairs": {}}, "evaluate.py --candidates"),
        (read_rewards, {"candidates": [{**REWARDS[0], "candidates": ["SELECT 1"]}]}, "row 0 is str"),
        (read_rewards, {"candidates": [{**REWARDS[0], "candidates": [{"SQL": "SELECT 1"}]}]}, "no 'rewards'"),
    ],
)
def test_other_files_are_refused(tmp_path, read, content, words):
    path = tmp_path / "file.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=words):
        read(path)


def test_every_label_is_used_and_has_both_languages():
    script = "\n".join((PAGE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    page = (PAGE / "page.html").read_text(encoding="utf-8")
    labels, code = script.split("const LANGUAGES")
    text = r'\s*("(?:[^"\\]|\\.)*"),?\s*'
    entries = re.findall(rf'^  "([\w-]+)": \[{text}{text}\],$', labels, re.MULTILINE)
    assert len(entries) == labels.count("],\n") > 80
    assert all(set(re.findall(r"{\d}", one)) == set(re.findall(r"{\d}", other)) for _, one, other in entries)
    names = {name for name, *_ in entries}
    used = set(re.findall(r'data-(?:t|label|placeholder)="([\w-]+)"', page)) | set(re.findall(r'"([\w-]+)"', code))
    closed = {f"outcome-{name}" for name in (*OUTCOMES, "unknown")} | {f"flag-{name}" for name in FLAGS}
    closed |= {f"relation-{name}" for name in ("parent", "child", "sibling", "baseline")}
    closed |= {"feedback-own", "feedback-oracle", "role-user", "role-assistant"}
    assert closed <= names
    assert names <= used | closed
    assert set(re.findall(r'\bt\("([\w-]+)"', code)) <= names


def test_the_page_makes_no_html_of_data():
    script = "\n".join((PAGE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", script)
