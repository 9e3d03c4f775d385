"""The tree viewer in a real browser: what its user sees and does. Hostile text stays text."""

import json
import os
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.viewer import TIMES, chromium, missing_browser
from eval.verification_report import Verification
from eval.viewer import write_viewer
from tests.conftest import run_main
from tests.viewer_page import Page
from tests.viewer_trees import (
    FINDINGS,
    HOSTILE,
    PAIRS,
    REWARDS,
    SOURCE,
    TREES,
    add,
    hostile_tree,
    plain_tree,
    shown,
)
from tree.prompts import REVISIONS, Attempt, revision_chat, revision_text
from tree.sql.results import OUTCOMES
from tree.tree_node import INITIAL, Question, RevisionTree, tree_from_json, tree_to_json


@pytest.fixture(scope="module")
def driver():
    if lacking := missing_browser():
        if os.environ.get("CI"):
            pytest.fail(f"CI must try the viewer in a browser: {lacking}")
        pytest.skip(lacking)
    with chromium("--lang=en-US", "--window-size=1400,900") as driver:
        driver.set_script_timeout(60)
        yield driver


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("viewer") / "report.html"
    write_viewer(path, [*TREES, hostile_tree()], FINDINGS, PAIRS, REWARDS, SOURCE)
    return path


@pytest.fixture
def page(driver, report):
    page = Page(driver, report)
    yield page
    page.check_quiet()


def test_the_overview_has_the_figures_of_the_verification(driver, tmp_path):
    write_viewer(tmp_path / "report.html", TREES, FINDINGS, PAIRS)
    page = Page(driver, tmp_path / "report.html")
    verification = Verification()
    for tree in TREES:
        verification.count_tree(tree_from_json(tree))
    expected = verification.summary()
    cards = page.texts(".card b")
    correct = f"{100 * expected['correct_nodes'] / expected['nodes']:.1f} %"
    assert cards == ["150", "50.0 %", f"{expected['nodes']:,}", correct, "2", "2"]
    figures = [page.texts(f".figure:nth-child({number}) tbody tr") for number in range(1, 7)]
    words = ["rows", "empty", "error", "denied", "timeout", "too large", "not a query", "no SQL", "crashed"]
    names = dict(zip(OUTCOMES, words, strict=True))
    for outcome, count in expected["outcomes"].items():
        assert any(line.startswith(f"{names[outcome]}{count:,}") for line in figures[0]), outcome
    for line, (distance, count) in zip(figures[1], expected["revision_distances"].items(), strict=True):
        assert line.startswith(f"{distance.replace('null', 'none')}{count:,}")
    assert [line.split(".")[0] for line in figures[2]] == ["27550", "37550"]  # 75 trees of depth 2, 75 of depth 3
    assert sorted(figures[3]) == ["is_correct1", "max_depth1"]
    assert [re.sub(r"\d.*", "", line) for line in figures[4]] == ["(none)", "simple", "moderate", "challenging"]
    assert figures[5] == ["db_05050.0 %", "db_15050.0 %", "db_25050.0 %"]


def test_filters(page):
    numbers = range(150)
    assert len(page.found()) == 151
    page.choose("db", "db_1")
    assert page.found() == [n for n in numbers if n % 3 == 1]
    page.choose("difficulty", "moderate")
    assert page.found() == [n for n in numbers if n % 3 == 1 and n % 4 == 1]
    page.type("KIND 13")
    assert page.found() == [13, 133] and page.text("#count") == "2 of 151 questions"
    assert "of the 2 questions" in page.text("#overview h2")
    page.type("nothing like it")
    assert page.found() == [] and page.text("#count") == "No question matches."
    page.driver.find_element("id", "reset").click()
    assert len(page.found()) == 151 and page.focused() == "text"
    for status, expected in {
        "good": [n for n in numbers if n % 2],
        "bad": [*(n for n in numbers if not n % 2), 7000],
        "with findings": [1, 2, 7000],
        "with pairs": [1],
    }.items():
        page.choose("status", status)
        assert page.found() == expected
    page.choose("status", "Any status")
    page.choose("outcome", "timeout")
    assert page.found() == list(numbers)
    page.choose("outcome", shown(HOSTILE).replace("\n\t", " "))
    assert page.found() == [7000]


def test_an_opened_tree_shows_every_query_exactly(page):
    for number in (1, 2, 149):
        page.open(number)
        tree = TREES[number]
        assert page.text("#question h2") == tree["question"] and page.text("#question .gold pre") == "SELECT 1"
        assert page.do("return page.tree.nodes.length") == len(page.texts("#drawing button")) - 1 == len(tree["nodes"])
        for name, node in tree["nodes"].items():
            page.do("page.drawing.select(arguments[0], true)", name)
            assert page.text("#details h2") == name
            assert page.text("#details pre.sql") == node["generated_sql"]
            assert page.text("#details pre.plain") == node["execution_feedback"]
            button = page.do("return document.activeElement.textContent")
            distance = node["revision_distance"]
            assert ("–" if distance is None else str(distance)) in button
            kind = "correct" if node["is_correct"] else None
            assert kind is None or kind in page.do("return document.activeElement.className")


def test_marks_differ_without_colour(page):
    page.open(1)
    marks = page.do("""
        const marks = new Map();
        for (const button of document.querySelectorAll("#drawing button:not(.initial)")) {
            marks.set(button.classList[1], button.querySelector(".mark").textContent);
        }
        return [...marks]
    """)
    assert len(marks) == len({mark for _, mark in marks}) == 6
    assert page.do("return document.querySelectorAll('#drawing .duplicate').length") == 1
    assert "same query as node_1_0" in page.do(
        "return document.querySelector('#drawing .duplicate').getAttribute('aria-label')"
    )


def test_pairs_rewards_and_findings_of_a_node(page):
    page.open(1, "node_1_0")
    assert page.texts("#details table")[1] == "worse than node_2_0parent1 < 2"
    assert page.texts("#details table")[0] == f"none-0.25{shown(HOSTILE)}1.5"
    assert page.texts("#details .findings li") == ["is_correct: stored false, found true"]
    assert page.texts("#question .findings li") == ["max_depth: stored 3, found [1,null]"]
    assert page.do("return document.querySelector('.node.preferred').title").startswith("node_2_0, ")
    page.driver.find_element("css selector", "#details button.link").click()
    assert page.text("#details h2") == "node_2_0"
    assert page.texts("#details ins") == ["a, b FROM t WHERE a =", "-- why"] and not page.texts("#details del")
    page.open(1, "node_3_0")
    assert page.texts("#details del") == ["b", "'ok' -- why"] and page.texts("#details ins") == ['"b"', "1.5"]
    page.open(2, "node_1_4")
    assert page.texts("#details .findings li") == ["outcome: stored 1, found 2 (at a limit)"]


TASK = "task\nQuestion: which?"


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_prompt_of_a_node_is_the_one_that_was_sent(driver, tmp_path, revision):
    tree, attempts, parent = RevisionTree(Question(0, "d", "q", "", "s"), TASK, revision=revision), [], INITIAL
    for sql in ("SELECT 1", "SELECT 2", "SELECT 3"):
        node = add(tree, parent, sql)
        if attempts:
            tree.nodes[parent].input_seq = revision_text(revision, attempts)
        attempts.append(Attempt(sql, node.execution_feedback))
        parent = node.node_id
    write_viewer(tmp_path / "report.html", [tree_to_json(tree)], [])
    page = Page(driver, tmp_path / "report.html")
    for depth, name in enumerate(tree.nodes):
        page.open(0, name)
        page.driver.find_element("css selector", "#details .prompt summary").click()
        page.wait("return document.querySelector('#details .prompt pre')")
        asked = revision_chat(revision, TASK, attempts[:depth])
        assert page.texts("#details .prompt pre") == [message["content"] for message in asked]
        assert page.texts("#details .prompt h4") == [message["role"] for message in asked]
    page.check_quiet()


def test_hostile_text_is_shown_and_does_nothing(page):
    assert page.text("#source") == shown(SOURCE.replace("\ud800", "\\ud800"))
    page.open(150, "node_1_0")
    assert page.text("#question h2") == shown(HOSTILE)
    assert page.text("#details pre.sql") == page.text("#details pre.plain") == shown(HOSTILE)
    # what was found is a list, so it is shown as JSON, which escapes some characters itself
    assert page.text("#details .findings").count("window.hacked") == 6 and "⟨U+202E⟩" in page.text("#details .findings")
    for place, name in enumerate(("node_2_0", HOSTILE, "constructor", "__proto__"), start=1):
        page.do("page.drawing.select(page.tree.nodes[arguments[0]].node_id, true)", place)
        assert page.text("#details h2") == shown(name)
        assert page.text("#details pre.sql") == shown(f"SELECT '{HOSTILE}'")
        page.do("document.querySelector('#details details').open = true")
        page.wait("return document.querySelector('#details .prompt pre')")
        assert page.texts("#details .prompt pre") == [shown(HOSTILE * 2)]  # the task, and what its parent added
    for child in ("#question h2", "#source", "#question .data"):
        assert page.do("return getComputedStyle(document.querySelector(arguments[0])).unicodeBidi", child) == "isolate"


def test_text_of_the_data_cannot_run(driver, report):
    page = Page(driver, report)
    page.do("""
        const script = document.createElement("script");
        script.textContent = "window.hacked = 1";
        document.body.append(script);
        const image = document.createElement("img");
        image.setAttribute("onerror", "window.hacked = 1");
        image.src = "http://localhost:9/x.png";
        document.body.append(image);
    """)
    messages = [entry["message"] for entry in driver.get_log("browser")]
    assert page.do("return typeof window.hacked") == "undefined"
    assert len(messages) >= 2 and all("Content Security Policy" in message for message in messages)


def test_keyboard(page):
    page.press("/")
    assert page.focused() == "text"
    page.press(*"kind 149")
    assert page.found() == [149]
    page.press("ESCAPE")
    assert page.focused() == "list"
    page.press("ENTER")
    page.wait("return page.tree !== null")
    assert page.focused().startswith("node_1_0, rows, distance 2")
    page.press("ARROW_RIGHT", "ARROW_RIGHT")
    assert page.text("#details h2") == "node_3_0"
    page.press("ENTER")
    assert page.focused() == "details"
    page.press("ESCAPE")
    assert page.focused().startswith("node_3_0, correct")
    page.press("ARROW_LEFT", "ARROW_LEFT", "ARROW_DOWN")
    assert page.text("#details h2") == "node_1_1"
    page.press("ARROW_UP", "ARROW_LEFT")
    assert page.focused() == "Prompt"
    page.press("ESCAPE")
    assert page.focused() == "list"
    page.press("ESCAPE")
    assert page.do("return document.body.dataset.view") == "overview"
    page.driver.find_element("id", "reset").click()
    page.do("byId('list').focus()")
    page.press("END")
    assert page.do("return page.list.active") == 150
    assert page.do("return document.querySelector('.row.active').ariaPosInSet") == "151"
    assert page.do("return byId('list').getAttribute('aria-activedescendant')") == "row-150"
    page.press("HOME", "ARROW_DOWN", "ARROW_DOWN", "ENTER")
    page.wait("return page.row?.id === 2 && page.tree !== null")


def test_links(driver, report):
    page = Page(driver, report, "#tree=db_1/1/node_3_0")
    page.wait("return page.tree !== null")
    assert page.text("#details h2") == "node_3_0"
    page.open(150, "constructor")
    link = page.do("return location.hash")
    page.check_quiet()
    page = Page(driver, report, link)
    page.wait("return page.tree !== null")
    assert page.text("#question h2") == shown(HOSTILE) and page.text("#details h2") == "constructor"
    page.do("location.hash = '#tree=db_2/2/node_1_1'")
    page.wait("return document.querySelector('#details h2')?.textContent === 'node_1_1'")
    page.do("location.hash = '#tree=%E0%A4/<img src=x onerror=alert(1)>'")
    page.wait("return document.querySelector('#question').textContent.startsWith('No such question')")
    page.check_quiet()


def test_language_and_theme(page):
    english = page.texts("[data-t]")
    page.choose("language", "中文")
    assert page.do("return document.documentElement.lang") == "zh-CN"
    chinese = page.texts("[data-t]")
    assert all(one != other for one, other in zip(english, chinese, strict=True))
    assert page.text("#count") == "151 个问题中的 151 个" and "按难度" in page.texts("#overview h3")
    page.open(1, "node_3_0")
    assert "与父节点 node_2_0 的差异" in page.texts("#details h3")
    page.choose("language", "English")
    assert "Difference to the parent, node_2_0" in page.texts("#details h3")
    colours = {}
    for theme in ("Light", "Dark"):
        page.choose("theme", theme)
        style = "const style = getComputedStyle(document.body); return [style.backgroundColor, style.color]"
        colours[theme] = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in page.do(style)]
    (light_page, light_text), (dark_page, dark_text) = colours["Light"], colours["Dark"]
    assert light_page > 600 > 200 > light_text and dark_page < 200 < 600 < dark_text


def test_broken_structures_are_drawn(driver, tmp_path):
    broken = json.loads(json.dumps(TREES[1]))
    for name, parent in (("node_1_0", "node_2_0"), ("node_1_1", "node_1_1"), ("node_1_2", "node_9_9")):
        broken["nodes"][name]["parent_id"] = parent
    empty = {**TREES[0], "question_id": 8, "nodes": {}}
    write_viewer(tmp_path / "report.html", [broken, empty], [])
    page = Page(driver, tmp_path / "report.html")
    page.open(0)
    assert len(page.texts("#drawing button")) == 1 + len(broken["nodes"])
    places = page.do("return [...document.querySelectorAll('#drawing button')].map((b) => b.style.left + b.style.top)")
    assert len(set(places)) == len(places)
    page.do("page.drawing.select('node_3_0', true); document.querySelector('#details details').open = true")
    page.wait("return document.querySelector('#details .prompt pre')")
    page.open(1)
    assert page.texts("#drawing button") == ["Prompt"]
    page.check_quiet()


sql_texts = st.text(st.sampled_from(list("ab1 \n'\"`[]-/*(),.=<>é中\\")) | st.characters(codec="utf-8"), max_size=40)


@settings(max_examples=25)
@given(st.lists(st.tuples(sql_texts, sql_texts), min_size=1, max_size=20))
def test_tokens_and_differences_lose_nothing(driver, cases):
    """Tokens are the whole text; a difference holds both queries, but for white space, and equal ones have none."""
    found = driver.execute_script(
        "return arguments[0].map(([a, b]) => [tokens(a).map(([, text]) => text).join(''), difference(a, b)])", cases
    )
    for (before, after), (joined, steps) in zip(cases, found, strict=True):
        assert joined == before
        for query, ops in ((before, "=-"), (after, "=+")):
            assert squeezed("".join(text for op, text in steps if op in ops)) == squeezed(query)
        assert before != after or {op for op, _ in steps} <= {"="}


def squeezed(text: str) -> str:
    return re.sub(r"[\s\ufeff]+", "", text)


def test_a_thousand_trees(driver, tmp_path, capsys):
    write_viewer(tmp_path / "report.html", map(plain_tree, range(1000)), [])
    page = Page(driver, tmp_path / "report.html")
    page.wait("return performance.getEntriesByName('first-contentful-paint').length")
    painted, drawn = page.do(TIMES)
    with capsys.disabled():
        print(f"\n1,000 trees: first paint after {painted:.2f} s, list and overview drawn after {drawn:.2f} s")
    page.do("byId('list').scrollTop = 20000")
    page.wait("return byId('row-380')")
    assert len(page.texts(".row")) < 60
    page.open(999)
    assert page.text("#question h2") == "How many of kind 999?"
    page.check_quiet()


def test_the_bench(driver, tmp_path):
    (tmp_path / "all_trees.json").write_text(json.dumps(TREES))
    few = ("--tree_file", tmp_path / "all_trees.json", "--trees", "40", "--rounds", "1")
    run = run_main("bench.viewer", *few)
    assert re.search(r"^PROMISE viewer_first_paint_40_trees [\d.]+ GOAL <= 3$", run.stdout, re.MULTILINE), run
