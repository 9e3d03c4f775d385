// What is open, and what keys, links and switches do.

const page = { index: null, list: null, drawing: null, row: null, tree: null, node: null, view: "list" };
const KEPT_BLOCKS = 4;
const blocks = new Map(); // number -> promise of an inflated block, the last used ones
const parsed = new Promise((resolve) => document.addEventListener("DOMContentLoaded", resolve));

async function treeOf(row) {
  const place = page.index.rows.indexOf(row);
  const number = Math.floor(place / page.index.block);
  await parsed; // the blocks stand behind the script
  const opened = blocks.get(number) ?? unpacked(`block-${number}`);
  blocks.delete(number);
  blocks.set(number, opened);
  if (blocks.size > KEPT_BLOCKS) blocks.delete(blocks.keys().next().value);
  const { trees, prompts } = await opened;
  const tree = trees[place % page.index.block];
  return { ...tree, prompt: prompts[place % page.index.block], rewards: new Map(Object.entries(tree.rewards)) };
}

// --- views -----------------------------------------------------------------------------------------------------------

function show(view) {
  page.view = view;
  document.body.dataset.view = view;
  if (view !== "tree") drawOverview(page.list.found, page.index.rows);
}

/** The tree view with a line of text and no tree. */
function showLine(text) {
  page.tree = null;
  show("tree");
  for (const part of ["drawing", "legend", "details"]) fill(byId(part));
  fill(byId("question"), quiet(text));
}

/** Open a question's tree, and of it a node. */
async function openTree(row, node = null, focus = true) {
  page.row = row;
  page.list.select(row);
  showLine(t("opening"));
  const tree = await treeOf(row);
  if (page.row !== row) return; // another one was opened meanwhile
  page.tree = tree;
  page.node = node ?? tree.nodes[0]?.node_id ?? INITIAL;
  drawTree(focus);
}

function drawTree(focus) {
  drawQuestion(page.row, page.tree);
  byId("tree").scrollTop = byId("drawing-box").scrollTop = 0;
  page.drawing.draw(page.tree, page.index.adapters);
  page.drawing.select(page.node, focus);
}

function choose(node) {
  page.node = node;
  drawDetails(page.tree, node, page.index.adapters, (other) => page.drawing.select(other, true));
  byId("details").scrollTop = 0;
  const link = linkTo(page.row, node);
  if (location.hash !== link) history.replaceState(null, "", link);
}

// --- links: #tree=database/question/node -----------------------------------------------------------------------------

/** A part of a link; half of a surrogate pair, which a link cannot hold, becomes a replacement character. */
function linkPart(text) {
  return encodeURIComponent(String(text).toWellFormed());
}

function linkTo(row, node) {
  return `#tree=${[row.db, row.id, node].map(linkPart).join("/")}`;
}

function openLink() {
  if (!location.hash.startsWith("#tree=") || (page.row && location.hash === linkTo(page.row, page.node))) return;
  const [db, id, node] = location.hash.slice("#tree=".length).split("/");
  const row = page.index.rows.find((one) => linkPart(one.db) === db && linkPart(one.id) === id);
  if (row) openTree(row, decoded(node));
  else {
    page.row = null;
    showLine(t("no-such-tree", decoded(location.hash)));
  }
}

function decoded(text) {
  try {
    return text ? decodeURIComponent(text) : null;
  } catch {
    return text; // not an encoded text
  }
}

// --- keys ------------------------------------------------------------------------------------------------------------

function back() {
  const inside = (id) => byId(id).contains(document.activeElement);
  if (page.tree && inside("details")) page.drawing.select(page.node, true);
  else if (inside("list")) show("overview");
  else {
    if (page.view === "tree" && matchMedia("(max-width: 800px)").matches) show("list");
    byId("list").focus();
  }
}

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches?.("input, select");
  if (event.key === "/" && !typing) {
    if (page.view === "tree" && matchMedia("(max-width: 800px)").matches) show("list");
    byId("text").focus();
    byId("text").select();
  } else if (event.key === "Escape") back();
  else if (event.key === "ArrowDown" && event.target === byId("text")) byId("list").focus();
  else return;
  event.preventDefault();
}

// --- language and theme ----------------------------------------------------------------------------------------------

/** A setting that outlives the page where the browser allows it. */
const settings = {
  get: (name) => {
    try {
      return localStorage.getItem(`resqlver-${name}`);
    } catch {
      return null;
    }
  },
  set: (name, value) => {
    try {
      localStorage.setItem(`resqlver-${name}`, value);
    } catch {
      // a file page may have no storage; the switch works all the same
    }
  },
};

function label() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-t]")) fill(element, t(element.dataset.t));
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", t(element.dataset.label));
    if (element.matches("select")) element.title = t(element.dataset.label);
  }
  byId("text").placeholder = t("filter-text");
  byId("text").setAttribute("aria-label", t("filter-text"));
  page.list.label();
  page.list.show();
  if (page.view === "tree" && page.tree) drawTree(false);
}

function switches() {
  language = LANGUAGES.includes(settings.get("language")) ? settings.get("language") : language;
  byId("language").value = language;
  byId("language").addEventListener("change", ({ target }) => {
    language = target.value;
    settings.set("language", language);
    label();
  });
  const theme = (value) => { document.documentElement.dataset.theme = value; };
  byId("theme").value = settings.get("theme") ?? "";
  theme(byId("theme").value);
  byId("theme").addEventListener("change", ({ target }) => {
    theme(target.value);
    settings.set("theme", target.value);
  });
}

async function start() {
  fill(byId("source"), byId("source").textContent);
  if (typeof DecompressionStream === "undefined") {
    fill(byId("overview"), el("p", {}, t("too-old")));
    return;
  }
  page.index = await unpacked("index");
  page.list = new QuestionList(page.index.rows, openTree, () => page.view !== "tree" && show(page.view));
  page.drawing = new Drawing(choose, () => byId("details").focus());
  switches();
  label();
  byId("show-overview").addEventListener("click", () => show("overview"));
  byId("show-list").addEventListener("click", () => show("list"));
  document.addEventListener("keydown", key);
  addEventListener("hashchange", openLink);
  openLink();
  requestAnimationFrame(() => setTimeout(() => performance.mark("drawn"))); // for bench/viewer.py
}

start();
