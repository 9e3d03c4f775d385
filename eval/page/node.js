// What is known about a question, and about one node of its tree.

function block(title, ...content) {
  return el("section", {}, el("h3", {}, title), content);
}

function chip(text, kind = "") {
  return el("span", { class: `chip ${kind}` }, text);
}

/** Text as it is, or a remark that there is none. */
function plain(text, missing) {
  return text ? el("pre", { class: "plain", dir: "auto" }, text) : quiet(t(missing));
}

function findingLine(finding) {
  const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  return el("li", {},
    data(t("stored-found", finding.what, text(finding.stored), text(finding.found))),
    finding.limit ? ` (${t("limit-difference")})` : null);
}

function findingList(findings) {
  return findings.length ? block(t("findings"), el("ul", { class: "findings" }, findings.map(findingLine))) : null;
}

function drawQuestion(row, tree) {
  fill(byId("question"),
    el("p", { class: "chips" },
      data(row.db), ` · ${row.id} `,
      chip(`${row.good ? "✓" : "✗"} ${t(row.good ? "good" : "bad")}`, row.good ? "correct" : "none"),
      row.difficulty ? chip(data(row.difficulty)) : null,
      chip(t("depth", row.depth)), chip(t("revision", tree.revision)), chip(named("feedback", tree.feedback))),
    data(row.question, "h2"),
    tree.evidence ? el("p", {}, el("b", {}, `${t("evidence")}: `), data(tree.evidence)) : null,
    tree.shortened.length ? el("p", {}, el("b", {}, `${t("shortened")}: `), data(tree.shortened.join(", "))) : null,
    tree.sql ? el("details", { class: "gold" }, el("summary", {}, t("gold")), highlighted(tree.sql)) : null,
    findingList(tree.findings.filter((finding) => !tree.nodes.some((node) => node.node_id === finding.node))));
}

/** A task with what a request for revisions added: before its question, in older files below it. */
function withRevision(tree, added) {
  const place = ["facts", "query"].includes(tree.revision) ? tree.prompt.lastIndexOf("\nQuestion: ") : tree.prompt.length;
  return tree.prompt.slice(0, place) + added + tree.prompt.slice(place);
}

/** The messages that asked for a node: the task, and what its revision added; see docs/formats.md. */
function messages(tree, node) {
  const path = [];
  const known = new Map(tree.nodes.map((other) => [other.node_id, other]));
  let parent = known.get(node?.parent_id);
  while (parent && !path.includes(parent)) {
    path.unshift(parent);
    parent = known.get(parent.parent_id);
  }
  if (!path.length) return [["user", tree.prompt]];
  if (tree.revision !== "chat") return [["user", withRevision(tree, path.at(-1).input_seq)]];
  const turns = path.map((before) => [
    ["assistant", `\`\`\`sql\n${before.generated_sql}\n\`\`\``],
    ["user", before.input_seq],
  ]);
  return [["user", tree.prompt], ...turns.flat()];
}

/** The prompt, written out when it is opened. */
function promptBlock(tree, node, open) {
  const inner = el("div", {});
  const show = () => fill(inner, messages(tree, node).map(([role, text]) => [
    el("h4", {}, named("role", role)),
    plain(text, "no-prompt"),
  ]));
  const element = el("details", { class: "prompt", ontoggle: () => element.open && !inner.hasChildNodes() && show() },
    el("summary", {}, t(node ? "prompt" : "initial")), inner);
  element.open = open;
  return element;
}

function pairsBlock(tree, node, select) {
  const pairs = tree.pairs.filter((pair) => [pair.chosen_node, pair.rejected_node].includes(node.node_id));
  const dist = (distance) => distance ?? "–";
  const lines = pairs.map((pair) => {
    const better = pair.chosen_node === node.node_id;
    const other = better ? pair.rejected_node : pair.chosen_node;
    const text = t(better ? "better-than" : "worse-than", other);
    return line(
      el("button", { type: "button", class: "link", onclick: () => select(other) }, text),
      el("td", {}, named("relation", pair.relation)),
      `${dist(pair.chosen_dist)} < ${dist(pair.rejected_dist)}`);
  });
  return block(t("node-pairs", pairs.length), pairs.length ? table(lines) : quiet(t("no-pairs")));
}

function rewardsBlock(rewards, adapters) {
  return block(t("reward"), table(adapters.map((name, place) => line(data(name), rewards[place] ?? "–"))));
}

function factChips(node) {
  const distance = node.revision_distance;
  return [
    chip(`${MARKS[kindOf(node)]} ${node.is_correct ? t("correct") : t("wrong")}`, kindOf(node)),
    chip(outcomeName(node.outcome)),
    chip(distance === null ? t("distance-none") : t("distance", distance)),
    node.is_correct && node.strict_match === false ? chip(t("not-strict")) : null,
    node.duplicate_of ? chip(t("duplicate", node.duplicate_of)) : null,
    node.flags.map((flag) => chip(`⚑ ${named("flag", flag)}`)),
    node.tokens === null ? null : chip(t("tokens", node.tokens)),
  ];
}

/** Draw what is known about a node; `select` is called with the id of another one. */
function drawDetails(tree, id, adapters, select) {
  const node = tree.nodes.find((other) => other.node_id === id);
  if (!node) return fill(byId("details"), promptBlock(tree, null, true));
  const parent = tree.nodes.find((other) => other.node_id === node.parent_id);
  const changes = () => (parent.generated_sql === node.generated_sql
    ? quiet(t("no-difference"))
    : markedDifference(parent.generated_sql, node.generated_sql));
  fill(byId("details"),
    el("h2", {}, id),
    el("p", { class: "chips" }, factChips(node)),
    findingList(tree.findings.filter((finding) => finding.node === id)),
    block(t("sql"), node.generated_sql ? highlighted(node.generated_sql) : quiet(t("no-sql"))),
    block(t("feedback"), plain(node.execution_feedback, "no-feedback")),
    parent ? block(t("difference", parent.node_id), changes()) : null,
    tree.rewards.has(id) ? rewardsBlock(tree.rewards.get(id), adapters) : null,
    pairsBlock(tree, node, select),
    promptBlock(tree, node, false));
}
