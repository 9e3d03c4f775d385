// The list of questions: filters, and only the rows in view.

const ROW_HEIGHT = 54; // pixels, as in the style
const BEYOND_VIEW = 6; // rows drawn above and below
const FILTERS = ["db", "difficulty", "status", "outcome"];
const STATUSES = {
  "good": (row) => row.good,
  "bad": (row) => !row.good,
  "with-findings": (row) => Object.keys(row.findings).length > 0 || row.limits > 0,
  "with-pairs": (row) => row.pairs > 0,
};

class QuestionList {
  /** `open` is called with the index row that was chosen, `changed` after every filtering. */
  constructor(rows, open, changed) {
    Object.assign(this, { all: rows, found: rows, active: 0, open, changed });
    this.texts = rows.map((row) => `${row.id} ${row.db} ${row.question}`.toLowerCase());
    this.box = byId("list");
    this.box.addEventListener("scroll", () => this.draw());
    this.box.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.box);
    byId("text").addEventListener("input", () => this.filter());
    for (const name of FILTERS) byId(name).addEventListener("change", () => this.filter());
    byId("reset").addEventListener("click", () => this.reset());
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
  }

  /** The choices of the filters, in the page's language; what was chosen stays. */
  label() {
    const distinct = (column) =>
      [...new Set(this.all.map((row) => row[column]))].sort((one, other) => ordered(column, one, other));
    const outcomes = new Set(this.all.flatMap((row) => Object.keys(row.outcomes)));
    const choices = {
      db: [t("all-databases"), distinct("db").map((name) => [name, name])],
      difficulty: [t("all-difficulties"), distinct("difficulty").map((name) => [name, name || t("no-difficulty")])],
      status: [t("all-statuses"), Object.keys(STATUSES).map((name) => [name, t(name)])],
      outcome: [t("all-outcomes"), [...outcomes].sort().map((name) => [name, outcomeName(name)])],
    };
    for (const [name, [any, values]] of Object.entries(choices)) {
      const select = byId(name);
      const chosen = select.selectedIndex;
      fill(select, [el("option", {}, any), ...values.map(([, text]) => el("option", {}, text))]);
      select.selectedIndex = Math.max(0, chosen);
      select.values = [null, ...values.map(([value]) => value)]; // the data itself: an option's value is only text
    }
  }

  chosen(name) {
    return byId(name).values[byId(name).selectedIndex];
  }

  filter() {
    const words = byId("text").value.toLowerCase().split(/\s+/).filter(Boolean);
    const [db, difficulty, status, outcome] = FILTERS.map((name) => this.chosen(name));
    const before = this.found[this.active];
    this.found = this.all.filter((row, place) =>
      (db === null || row.db === db)
      && (difficulty === null || row.difficulty === difficulty)
      && (status === null || STATUSES[status](row))
      && (outcome === null || Object.hasOwn(row.outcomes, outcome))
      && words.every((word) => this.texts[place].includes(word)));
    this.active = Math.max(0, this.found.indexOf(before));
    this.show();
  }

  reset() {
    byId("text").value = "";
    for (const name of FILTERS) byId(name).selectedIndex = 0;
    this.filter();
    byId("text").focus();
  }

  show() {
    const [count, all] = [this.found.length, this.all.length];
    fill(byId("count"), count ? t("count", number(count), number(all)) : t("none-match"));
    byId("reset").hidden = count === all;
    byId("rows").style.height = `${count * ROW_HEIGHT}px`;
    this.reveal();
    this.changed(this.found);
  }

  /** Scroll so that the active row is seen. */
  reveal() {
    const top = this.active * ROW_HEIGHT;
    const lowest = top + ROW_HEIGHT - this.box.clientHeight;
    if (this.box.scrollTop > top) this.box.scrollTop = top;
    else if (this.box.scrollTop < lowest) this.box.scrollTop = lowest;
    this.draw();
  }

  select(row) {
    this.current = row;
    this.active = Math.max(0, this.found.indexOf(row));
    this.reveal();
  }

  draw() {
    const { scrollTop, clientHeight } = this.box;
    const first = Math.max(0, Math.floor(scrollTop / ROW_HEIGHT) - BEYOND_VIEW);
    const last = Math.min(this.found.length, Math.ceil((scrollTop + clientHeight) / ROW_HEIGHT) + BEYOND_VIEW);
    const rows = [];
    for (let place = first; place < last; place++) rows.push(this.row(this.found[place], place));
    fill(byId("rows"), rows);
    const seen = this.active >= first && this.active < last;
    if (seen) this.box.setAttribute("aria-activedescendant", `row-${this.active}`);
    else this.box.removeAttribute("aria-activedescendant");
  }

  row(row, place) {
    const queries = Object.values(row.outcomes).reduce((sum, [count]) => sum + count, 0);
    const findings = Object.keys(row.findings).length > 0;
    const [kind, status, mark] = row.good ? ["correct", "good", "✓"] : ["none", "bad", "✗"];
    const element = el("div", {
      "id": `row-${place}`,
      "role": "option",
      "class": `row${place === this.active ? " active" : ""}`,
      "aria-selected": String(row === this.current),
      "aria-posinset": place + 1,
      "aria-setsize": this.found.length,
      "onclick": () => {
        this.active = place;
        this.open(row);
      },
    },
    el("span", { class: `mark ${kind}`, title: t(status) }, mark),
    el("span", { class: "row-question", dir: "auto" }, row.question),
    el("span", { class: "row-facts" },
      data(row.db), ` · ${row.id} · `, row.difficulty && [data(row.difficulty), " · "],
      queries === 1 ? t("one-query") : t("query-count", number(queries)),
      findings ? el("b", { class: "warn" }, ` ! ${t("findings")}`) : null));
    element.style.top = `${place * ROW_HEIGHT}px`;
    return element;
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.box.clientHeight / ROW_HEIGHT) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key in steps) {
      this.active = Math.max(0, Math.min(this.found.length - 1, this.active + steps[event.key]));
      this.reveal();
    } else if (event.key === "Enter" && this.found.length) this.open(this.found[this.active]);
    else return;
    event.preventDefault();
  }
}
