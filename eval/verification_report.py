"""What a verification leaves: counts and findings, as JSON, as a Markdown page and as lines for the terminal.  Pure."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from common.tables import markdown
from tree.tree_files import Finding
from tree.tree_node import RevisionTree

LONGEST = 2_000  # characters of a value in the report
FIRST = 20  # findings in the Markdown page
FIRST_IN_TERMINAL = 5
NARROW = 100  # characters of a value where it is one of many
COUNTS = ("trees", "good", "bad", "unreadable", "nodes", "correct_nodes", "nodes_executed", "gold_executed", "pairs")
COLUMNS = ("question_id", "db_id", "source", "node", "what", "stored", "found")  # of a finding


def reportable(value: object) -> object:
    """A value as the report can hold it: whatever is long, nested or no number of JSON's becomes text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, list) and all(item is None or isinstance(item, bool | int | str) for item in value):
        return value if len(json.dumps(value)) <= LONGEST else cut(json.dumps(value, ensure_ascii=False), LONGEST)
    return cut(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), LONGEST)


def cut(text: str, longest: int) -> str:
    """At most so many characters of a text, and how many there are; bytes that are not UTF-8 are shown escaped."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= longest else f"{text[:longest]} … ({len(text)} characters)"


@dataclass
class Verification:
    """Counts over everything that was looked at, and every finding; those at limits are no errors."""

    findings: list[dict] = field(default_factory=list)
    limit_differences: list[dict] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)
    outcomes: Counter = field(default_factory=Counter)
    distances: Counter = field(default_factory=Counter)

    def add(self, findings: Iterable[Finding], source: str, question_id: object, db_id: object) -> None:
        """Add what does not hold for a question; `source` is the file and the place in it."""
        for finding in findings:
            part = self.limit_differences if finding.limit else self.findings
            values = question_id, db_id, source, finding.node, finding.what, finding.stored, finding.found
            part.append({column: reportable(value) for column, value in zip(COLUMNS, values, strict=True)})

    def count_tree(self, tree: RevisionTree | None) -> None:
        """Count a tree as it is stored; None for one that cannot be read."""
        self.counts["trees"] += 1
        if tree is None:
            self.counts["unreadable"] += 1
            return
        self.counts["good" if tree.good else "bad"] += 1
        for node in tree.nodes.values():
            self.counts["nodes"] += 1
            self.counts["correct_nodes"] += node.is_correct
            self.outcomes[node.outcome] += 1
            self.distances[node.revision_distance] += 1

    @property
    def errors(self) -> int:
        return len(self.findings)

    def summary(self) -> dict:
        counts, distances = self.counts, self.distances
        read = counts["good"] + counts["bad"]
        return {
            "result": "failed" if self.findings else "passed",
            "errors": self.errors,
            "limit_differences": len(self.limit_differences),
            "errors_by_kind": dict(Counter(finding["what"] for finding in self.findings).most_common()),
            **{name: counts[name] for name in COUNTS},
            "outcomes": dict(sorted(self.outcomes.items())),
            "revision_distances": {
                **{str(distance): distances[distance] for distance in sorted(set(distances) - {None})},
                "null": distances[None],
            },
            "mean_nodes_per_tree": round(counts["nodes"] / read, 2) if read else None,
        }

    def report(self, manifest: dict) -> dict:
        """The whole report."""
        return {
            "manifest": manifest,
            "summary": self.summary(),
            "findings": self.findings,
            "limit_differences": self.limit_differences,
        }


# --- for people -------------------------------------------------------------------------------------------------------


def terminal_lines(verification: Verification, report_file: str) -> list[str]:
    """The result in a line, and the first findings."""
    summary = verification.summary()
    unreadable = f", {summary['unreadable']} unreadable" if summary["unreadable"] else ""
    pairs = f", {summary['pairs']} pairs traced back" if summary["pairs"] else ""
    lines = [
        f"verification {summary['result']}: {summary['trees']} trees ({summary['good']} good, {summary['bad']} bad"
        f"{unreadable}), {summary['nodes_executed']} nodes and {summary['gold_executed']} gold queries executed again"
        f"{pairs}, {summary['errors']} errors, {summary['limit_differences']} differences at limits; "
        f"report: {report_file}"
    ]
    for finding in verification.findings[:FIRST_IN_TERMINAL]:
        stored, found = (cut(one_line(finding[side]), NARROW) for side in ("stored", "found"))
        question = f"question {finding['question_id']} ({finding['db_id']})"
        lines.append(f"  {question} {finding['node']} {finding['what']}: stored {stored}, found {found}")
    if (more := verification.errors - FIRST_IN_TERMINAL) > 0:
        kinds = ", ".join(f"{count} {what}" for what, count in summary["errors_by_kind"].items())
        lines.append(f"  and {more} more; all by kind: {cut(kinds, LONGEST)}")
    return lines


def one_line(value: object) -> str:
    """A value as JSON, in one line; text without quotation marks."""
    return " ".join((value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).split())


def markdown_page(report: dict) -> str:
    """The report as one page: counts, findings by kind, the first of them."""
    manifest, summary = report["manifest"], report["summary"]
    lines = [
        "# Verification",
        "",
        f"`{' '.join(manifest['command'])}`, {manifest['started']}",
        "",
        f"**{summary['result']}**: {summary['errors']} errors, {summary['limit_differences']} differences at limits",
        "",
        *markdown([["", "count"], *([name.replace("_", " "), summary[name]] for name in COUNTS if summary[name])]),
    ]
    for heading, name, head in (
        ("Stored outcomes", "outcomes", ["", "nodes"]),
        ("Stored revision distances", "revision_distances", ["", "nodes"]),
        ("Errors by kind", "errors_by_kind", ["what", "count"]),
    ):
        if counts := summary[name]:
            table = [head, *([_cell(key or "not given"), count] for key, count in counts.items())]
            lines += ["", f"## {heading}", "", *markdown(table)]
    for heading, name in (("Errors", "findings"), ("Differences at limits", "limit_differences")):
        if findings := report[name]:
            which = f"the first {FIRST} of {len(findings)}" if len(findings) > FIRST else f"all {len(findings)}"
            table = [COLUMNS, *([_cell(finding[column]) for column in COLUMNS] for finding in findings[:FIRST])]
            lines += ["", f"## {heading} ({which})", "", *markdown(table)]
    return "\n".join([*lines, ""])


def _cell(value: object) -> str:
    """A value that may be anything, as code but for numbers."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text = cut(one_line(value), NARROW).replace("`", "'")
    return f"`{text}`" if text else ""
