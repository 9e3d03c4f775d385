// The drawing of one tree: depth from left to right below the initial prompt.

const INITIAL = "node_initial";
const BOX = { initial: 72, width: 148, height: 46, across: 32, down: 10, margin: 12 }; // pixels, as in the style

// kinds of nodes: each has a colour of its own and a mark that is told apart without it
const MARKS = { correct: "✓", ok: "≠", empty: "∅", error: "!", limit: "…", refused: "⊘", unknown: "?" };
const KINDS = {
  ok: "ok", empty: "empty", error: "error",
  timeout: "limit", too_large: "limit", crashed: "limit",
  denied: "refused", not_a_query: "refused", no_sql: "refused",
};

function kindOf(node) {
  if (node.is_correct) return "correct";
  return Object.hasOwn(KINDS, node.outcome) ? KINDS[node.outcome] : "unknown";
}

/**
 * Where each node stands: id -> {node, column, row, parent, children (ids), loose}. Nodes that the initial prompt does
 * not reach (their parent is missing, or they are in a circle) are loose: they begin trees of their own.
 */
function layout(nodes) {
  const below = new Map();
  for (const node of nodes) below.set(node.parent_id, [...(below.get(node.parent_id) ?? []), node]);
  const known = new Set(nodes.map((node) => node.node_id));
  const orphans = nodes.filter((node) => node.parent_id !== INITIAL && !known.has(node.parent_id));
  const places = new Map();
  const put = (node, column, parent) =>
    places.set(node.node_id, { node, column, parent, row: 0, children: [], loose: false });
  let rows = 0;
  for (const root of [...(below.get(INITIAL) ?? []), ...orphans, ...nodes]) {
    if (places.has(root.node_id)) continue;
    put(root, 1, INITIAL);
    places.get(root.node_id).loose = root.parent_id !== INITIAL;
    const waiting = [root];
    while (waiting.length) {
      const node = waiting.pop();
      const place = places.get(node.node_id);
      const children = (below.get(node.node_id) ?? []).filter((child) => !places.has(child.node_id));
      for (const child of children) put(child, place.column + 1, node.node_id);
      place.children = children.map((child) => child.node_id);
      if (children.length) waiting.push(...children.toReversed());
      else place.row = rows++;
    }
  }
  for (const place of [...places.values()].sort((one, other) => other.column - one.column)) {
    if (place.children.length) place.row = middle(place.children.map((id) => places.get(id)));
  }
  return places;
}

/** What came of a node, in a word or two. */
function whatOf(node) {
  if (node.is_correct) return t("correct");
  return node.outcome === "ok" ? t("wrong-rows") : outcomeName(node.outcome);
}

function left(place) {
  return BOX.margin + (place.column ? BOX.initial + BOX.across + (place.column - 1) * (BOX.width + BOX.across) : 0);
}

function right(place) {
  return left(place) + (place.column ? BOX.width : BOX.initial);
}

function topOf(place) {
  return BOX.margin + place.row * (BOX.height + BOX.down);
}

function middle(places) {
  const rows = places.map((place) => place.row);
  return rows.length ? (Math.min(...rows) + Math.max(...rows)) / 2 : 0;
}

function shortName(id) {
  return String(id).replace(/^node_/, "");
}

class Drawing {
  /** `choose` is called with the id of a node that gets the focus, `enter` to go to its details. */
  constructor(choose, enter) {
    Object.assign(this, { choose, enter });
    this.box = byId("drawing");
    this.box.addEventListener("keydown", (event) => this.key(event));
  }

  draw(tree, adapters) {
    this.tree = tree;
    this.places = layout(tree.nodes);
    this.initial = { column: 0, row: middle([...this.places.values()].filter((place) => place.column === 1)) };
    const all = [this.initial, ...this.places.values()];
    const furthest = (side) => all.reduce((most, place) => Math.max(most, side(place)), 0);
    const initial = this.button(INITIAL, this.initial, "initial", t("initial"), [el("b", {}, t("initial"))]);
    this.buttons = new Map([[INITIAL, initial]]);
    for (const [id, place] of this.places) this.buttons.set(id, this.node(id, place, adapters));
    fill(this.box, this.edges(), [...this.buttons.values()]);
    this.box.style.width = `${furthest(right) + BOX.margin}px`;
    this.box.style.height = `${furthest(topOf) + BOX.height + BOX.margin}px`;
    this.legend(adapters);
  }

  button(id, place, kind, label, content) {
    const element = el("button", {
      "type": "button", "role": "treeitem", "tabindex": -1, "class": `node ${kind}`,
      "aria-label": label, "aria-level": place.column + 1, "title": label, "onclick": () => this.select(id, true),
    }, content);
    element.style.left = `${left(place)}px`;
    element.style.top = `${topOf(place)}px`;
    return element;
  }

  node(id, place, adapters) {
    const { node } = place;
    const kind = kindOf(node);
    const reward = this.tree.rewards.get(id)?.at(-1);
    const found = this.tree.findings.some((finding) => finding.node === id);
    const distance = node.revision_distance;
    const facts = [
      id, node.is_correct && t("correct"), outcomeName(node.outcome),
      distance === null ? t("distance-none") : t("distance", distance),
      node.duplicate_of && t("duplicate", node.duplicate_of),
      node.flags.length > 0 && `${t("flags")}: ${node.flags.join(", ")}`,
      found && t("finding-mark"), place.loose && t("loose"),
      reward !== undefined && reward !== null && `${t("reward-of", adapters.at(-1))}: ${reward}`,
    ];
    return this.button(id, place, `${kind}${node.duplicate_of ? " duplicate" : ""}`, facts.filter(Boolean).join(", "), [
      el("span", { class: "mark" }, MARKS[kind]),
      el("b", {}, shortName(id)),
      el("span", { class: "signs" }, node.flags.length ? "⚑" : "", found ? el("b", { class: "warn" }, "!") : ""),
      el("span", { class: "distance" }, distance ?? "–"),
      el("span", { class: "what" }, node.duplicate_of ? `= ${shortName(node.duplicate_of)}` : whatOf(node)),
      el("span", { class: "reward" }, typeof reward === "number" ? reward.toFixed(2) : ""),
    ]);
  }

  edges() {
    const make = (tag, attributes) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
      return element;
    };
    const svg = make("svg", { "class": "edges", "aria-hidden": "true" });
    for (const place of this.places.values()) {
      if (place.loose) continue;
      const parent = this.places.get(place.parent) ?? this.initial;
      const [x, y] = [right(parent), topOf(parent) + BOX.height / 2];
      const [u, v] = [left(place), topOf(place) + BOX.height / 2];
      const half = (x + u) / 2;
      const curve = `M${x} ${y} C${half} ${y} ${half} ${v} ${u} ${v}`;
      svg.append(make("path", { d: curve, class: place.node.is_correct ? "fixed" : "" }));
    }
    return svg;
  }

  legend(adapters) {
    const kinds = new Map();
    for (const node of this.tree.nodes) {
      const kind = kindOf(node);
      kinds.set(kind, (kinds.get(kind) ?? new Set()).add(whatOf(node)));
    }
    const mark = (kind) => el("span", { class: `mark ${kind}` }, MARKS[kind]);
    const items = [...kinds].map(([kind, names]) => [mark(kind), [...names].join(", ")]);
    items.push([el("span", { class: "distance" }, "0"), t("distance-mark")]);
    if (this.tree.nodes.some((node) => node.duplicate_of)) items.push([t("duplicate-mark")]);
    if (this.tree.nodes.some((node) => node.flags.length)) items.push(["⚑ ", t("flag-mark")]);
    if (this.tree.pairs.length) items.push(["▲ ", t("preferred-mark")], ["▼ ", t("lesser-mark")]);
    if (this.tree.rewards.size) items.push([`0.00 ${t("reward-of", adapters.at(-1))}`]);
    fill(byId("legend"), items.map((item) => el("span", {}, item)));
  }

  select(id, focus) {
    this.selected = this.buttons.has(id) ? id : this.buttons.keys().next().value;
    const marks = new Map();
    for (const pair of this.tree.pairs) {
      if (pair.chosen_node === this.selected) marks.set(pair.rejected_node, "lesser");
      if (pair.rejected_node === this.selected) marks.set(pair.chosen_node, "preferred");
    }
    for (const [other, button] of this.buttons) {
      button.classList.remove("lesser", "preferred");
      if (marks.has(other)) button.classList.add(marks.get(other));
      button.setAttribute("aria-selected", String(other === this.selected));
      button.tabIndex = other === this.selected ? 0 : -1;
    }
    this.choose(this.selected);
    const button = this.buttons.get(this.selected);
    if (focus) button.focus();
    button.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  key(event) {
    if (event.key === "Enter") this.enter();
    else {
      const to = this.neighbour(event.key);
      if (to === undefined) return;
      if (to !== null) this.select(to, true);
    }
    event.preventDefault();
  }

  /** The node that a key leads to; null when there is none, undefined when the key means nothing here. */
  neighbour(key) {
    const place = this.places.get(this.selected);
    const inColumn = (column) => [...this.places].filter(([, other]) => other.column === column)
      .sort(([, one], [, other]) => one.row - other.row).map(([id]) => id);
    const column = inColumn(place?.column);
    const step = (by) => (place && column[column.indexOf(this.selected) + by]) ?? null;
    switch (key) {
      case "ArrowLeft": return place?.parent ?? null;
      case "ArrowRight": return (place ? place.children : inColumn(1))[0] ?? null;
      case "ArrowUp": return step(-1);
      case "ArrowDown": return step(1);
      default: return undefined;
    }
  }
}
