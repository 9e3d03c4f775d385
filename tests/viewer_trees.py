"""Trees, findings, pairs and rewards for the pages of the tree viewer, hostile texts among them."""

from common.preference import PreferencePair, user_prompt
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


def pair(number: int, chosen: str, rejected: str, sql: tuple[str, str] | None = None, **more) -> PreferencePair:
    nodes = TREES[number]["nodes"]
    queries = sql or [nodes[node]["generated_sql"] for node in (chosen, rejected)]
    columns = {"chosen_dist": 0, "relation": "sibling", **more}
    return PreferencePair(user_prompt("the task"), *queries, number, f"db_{number % 3}", chosen, rejected, **columns)


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
