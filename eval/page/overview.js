// Figures of the questions that the filters leave.

/** Sums over index rows. */
function figures(rows) {
  const sum = { good: 0, queries: 0, correct: 0, pairs: 0, limits: 0, depths: new Map(), distances: new Map(), outcomes: new Map(), findings: new Map() };
  const add = (map, key, value) => map.set(key, (map.get(key) ?? 0) + value);
  for (const row of rows) {
    sum.good += row.good;
    sum.pairs += row.pairs;
    sum.limits += row.limits;
    add(sum.depths, row.depth, 1);
    for (const [distance, count] of Object.entries(row.distances)) add(sum.distances, distance, count);
    for (const [what, count] of Object.entries(row.findings)) add(sum.findings, what, count);
    for (const [outcome, [count, correct]] of Object.entries(row.outcomes)) {
      sum.queries += count;
      sum.correct += correct;
      const [counts, corrects] = sum.outcomes.get(outcome) ?? [0, 0];
      sum.outcomes.set(outcome, [counts + count, corrects + correct]);
    }
  }
  return sum;
}

function total(map) {
  return [...map.values()].reduce((one, other) => one + other, 0);
}

function card(value, label, note = "") {
  return el("div", { class: "card" }, el("b", {}, value), el("span", {}, label), note && el("small", {}, note));
}

/** A table of bars: [label, count, part of the count that is good]. */
function bars(title, rows, kinds = ["plain"]) {
  const most = Math.max(1, ...rows.map(([, count]) => count));
  const whole = rows.reduce((sum, [, count]) => sum + count, 0);
  const lines = rows.map(([label, count, good = count]) => el("tr", {},
    el("th", { scope: "row" }, label),
    el("td", { class: "number" }, number(count)),
    el("td", { class: "number" }, percent(count, whole)),
    el("td", { class: "bars" }, bar(kinds[0], good / most), kinds[1] ? bar(kinds[1], (count - good) / most) : null)));
  return el("section", { class: "figure" }, el("h3", {}, title), el("table", {}, el("tbody", {}, lines)));
}

/** Good and bad trees by a column of the index. */
function groups(title, rows, column, kind) {
  const found = new Map();
  for (const row of rows) {
    const group = found.get(row[column]) ?? found.set(row[column], [0, 0]).get(row[column]);
    group[0] += 1;
    group[1] += row.good;
  }
  const lines = [...found].sort(([one], [other]) => ordered(column, one, other)).map(([name, [count, good]]) => el("tr", {},
    el("th", { scope: "row" }, name === "" ? t("no-difficulty") : data(name)),
    el("td", { class: "number" }, number(count)),
    el("td", { class: "number" }, percent(good, count)),
    el("td", { class: "bars" }, bar("good", good / count), bar("bad", 1 - good / count))));
  const head = el("tr", {}, [kind, t("trees"), t("share"), `■ ${t("good")}  ▨ ${t("bad")}`].map((text) => el("th", { scope: "col" }, text)));
  return el("section", { class: "figure wide" }, el("h3", {}, title), el("table", {}, el("thead", {}, head), el("tbody", {}, lines)));
}

const DIFFICULTIES = ["", "simple", "moderate", "challenging"];

/** BIRD's difficulties in their order, everything else by name. */
function ordered(column, one, other) {
  const rank = (name) => (column === "difficulty" ? DIFFICULTIES.indexOf(name) >>> 0 : 0);
  return rank(one) - rank(other) || String(one).localeCompare(String(other));
}

function verification(sum) {
  const lines = [...sum.findings].sort(([, one], [, other]) => other - one).map(([what, count]) =>
    el("tr", {}, el("th", { scope: "row" }, data(what)), el("td", { class: "number" }, number(count))));
  return el("section", { class: "figure" },
    el("h3", {}, t("verification")),
    el("p", {}, lines.length ? t("finding-counts", t("with-findings")) : t("all-holds")),
    el("table", {}, el("tbody", {}, lines)));
}

function drawOverview(rows, all) {
  const sum = figures(rows);
  const byNumber = (map) => [...map].sort(([one], [other]) => one - other);
  const distances = byNumber(sum.distances).filter(([distance]) => distance !== "None");
  const none = sum.distances.get("None");
  const outcomes = [...sum.outcomes].sort(([, [one]], [, [other]]) => other - one);
  fill(byId("overview"),
    el("h2", {}, t("overview"), el("small", {}, rows.length === all.length ? t("of-all", number(all.length)) : t("of-selection", number(rows.length)))),
    el("div", { class: "cards" },
      card(number(rows.length), t("questions")),
      card(percent(sum.good, rows.length), t("good-trees"), `${number(sum.good)} ${t("good")}, ${number(rows.length - sum.good)} ${t("bad")}`),
      card(number(sum.queries), t("queries")),
      card(percent(sum.correct, sum.queries), t("correct-queries"), number(sum.correct)),
      card(number(sum.pairs), t("pairs")),
      card(number(total(sum.findings)), t("findings"), sum.limits ? t("limits", number(sum.limits)) : "")),
    el("div", { class: "figures" },
      bars(`${t("outcomes")} (■ ${t("correct")}  ▨ ${t("wrong")})`, outcomes.map(([outcome, [count, correct]]) => [outcomeName(outcome), count, correct]), ["good", "bad"]),
      bars(t("distances"), [...distances, ...(none ? [["None", none]] : [])].map(([distance, count]) => [distance === "None" ? t("none-reached") : distance, count])),
      bars(t("depths"), byNumber(sum.depths)),
      verification(sum),
      groups(t("by-difficulty"), rows, "difficulty", t("difficulty")),
      groups(t("by-database"), rows, "db", t("database"))));
}
