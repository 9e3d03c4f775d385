"""The page of the tree viewer: what it holds, and that hostile text stands nowhere in it as HTML."""

import base64
import json
import re
import zlib
from dataclasses import replace

import pytest

from common.files import InputError
from eval.viewer import BLOCK, PAGE, SCRIPTS, read_rewards, write_viewer
from tests.viewer_trees import FINDINGS, HOSTILE, PAIRS, REWARDS, TREES, add, hostile_tree, pair
from tree.sql.results import FLAGS, OUTCOMES
from tree.tree_node import INITIAL, Question, RevisionTree, tree_to_json

# --- what is written --------------------------------------------------------------------------------------------------


def unpacked(page: str, name: str):
    text = re.search(rf'<script type="application/octet-stream" id="{name}">([^<]*)</script>', page).group(1)
    return json.loads(zlib.decompress(base64.b64decode(text)))


def test_the_page_holds_everything_and_names_what_is_foreign(tmp_path):
    path = tmp_path / "deep" / "report.html"
    foreign = [
        pair(1, "node_9_9", "node_1_0", ("a", "b")),  # no such node
        pair(1, "node_2_0", "node_1_0", ("SELECT 7", "SELECT 8")),  # of another run
        replace(PAIRS[0], db_id="elsewhere"),
    ]
    counts = write_viewer(path, iter(TREES), iter(FINDINGS), iter(PAIRS + foreign), iter(REWARDS), "trees.json")
    figures = {"trees": 150, "pairs": 2, "foreign_pairs": 3, "rewarded_nodes": 2}
    assert vars(counts) == figures | {"example": ""}  # what is revised right in them is not strictly so
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


def revised(number: int, db_id: str, *attempts: bool, **more) -> dict:
    """A tree with these first attempts, right or wrong, the first of which is revised into a right query."""
    tree = RevisionTree(Question(number, db_id, "?", "", "SELECT 1", ""), "task")
    for place, correct in enumerate(attempts):
        add(tree, INITIAL, f"SELECT {place}", correct=correct)
    add(tree, "node_1_0", "SELECT 'new'", correct=True, **more)
    return tree_to_json(tree)


def test_the_example_is_the_smallest_tree_with_a_new_right_revision_of_a_wrong_query(tmp_path):
    of_right = revised(1, "db", True)
    repeats = revised(2, "db", False, duplicate_of="node_1_0")
    in_doubt = [revised(6, "db", False, strict_match=False), revised(7, "db", False, flags=["fragile"])]
    larger = revised(3, "db", False, False)
    trees = [of_right, repeats, *in_doubt, larger, revised(4, "a/b c's", False), revised(5, "db", False)]
    for shown, link in ((trees[:4], ""), (trees[:5], "#tree=db/3/node_2_0"), (trees, "#tree=a%2Fb%20c's/4/node_2_0")):
        assert write_viewer(tmp_path / "report.html", shown, []).example == link


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


def test_rewards_are_read(tmp_path):
    path = tmp_path / "file.json"
    path.write_text(json.dumps({"manifest": {}, "candidates": REWARDS}))
    assert read_rewards(path) == REWARDS


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "expected a JSON object"),
        ({"pairs": {}}, "evaluate.py --candidates"),
        ({"candidates": [{**REWARDS[0], "candidates": ["SELECT 1"]}]}, "row 0 is str"),
        ({"candidates": [{**REWARDS[0], "candidates": [{"SQL": "SELECT 1"}]}]}, "no 'rewards'"),
    ],
)
def test_other_files_are_refused(tmp_path, content, words):
    path = tmp_path / "file.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=words):
        read_rewards(path)


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
