// Figures of the questions that the filters leave.

/** Sums over index rows. */
function figures(rows) {
  const sum = {
    good: 0, queries: 0, correct: 0, pairs: 0, limits: 0,
    depths: new Map(), distances: new Map(), outcomes: new Map(), findings: new Map(),
  };
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

function figure(title, ...content) {
  return el("section", { class: "figure" }, el("h3", {}, title), content);
}

/** A table of bars: [label, count, part of the count that is good]. */
function bars(title, rows, kinds = ["plain"]) {
  const most = Math.max(1, ...rows.map(([, count]) => count));
  const whole = rows.reduce((sum, [, count]) => sum + count, 0);
  return figure(title, table(rows.map(([label, count, good = count]) => line(label, number(count), percent(count, whole),
    el("td", { class: "bars" }, bar(kinds[0], good / most), kinds[1] ? bar(kinds[1], (count - good) / most) : null)))));
}

/** Good and bad trees by a column of the index. */
function groups(title, rows, column, kind) {
  const found = new Map();
  for (const row of rows) {
    const group = found.get(row[column]) ?? found.set(row[column], [0, 0]).get(row[column]);
    group[0] += 1;
    group[1] += row.good;
  }
  const sorted = [...found].sort(([one], [other]) => ordered(column, one, other));
  const lines = sorted.map(([name, [count, good]]) => line(
    name === "" ? t("no-difficulty") : data(name), number(count), percent(good, count),
    el("td", { class: "bars" }, bar("good", good / count), bar("bad", 1 - good / count))));
  const titles = [kind, t("trees"), t("share"), `■ ${t("good")}  ▨ ${t("bad")}`];
  return figure(title, table(lines, el("tr", {}, titles.map((text) => el("th", { scope: "col" }, text)))));
}

const DIFFICULTIES = ["", "simple", "moderate", "challenging"];

/** BIRD's difficulties in their order, everything else by name. */
function ordered(column, one, other) {
  const rank = (name) => (column === "difficulty" ? DIFFICULTIES.indexOf(name) >>> 0 : 0);
  return rank(one) - rank(other) || String(one).localeCompare(String(other));
}

function verification(sum) {
  const kinds = [...sum.findings].sort(([, one], [, other]) => other - one);
  const remark = kinds.length ? t("finding-counts", t("with-findings")) : t("all-holds");
  const lines = kinds.map(([what, count]) => line(data(what), number(count)));
  return figure(t("verification"), el("p", {}, remark), table(lines));
}

function drawOverview(rows, all) {
  const sum = figures(rows);
  const byNumber = (map) => [...map].sort(([one], [other]) => one - other);
  const none = sum.distances.get("None") ?? 0;
  sum.distances.delete("None");
  const distances = [...byNumber(sum.distances), ...(none ? [[t("none-reached"), none]] : [])];
  const outcomes = [...sum.outcomes].sort(([, [one]], [, [other]]) => other - one);
  const whole = rows.length === all.length;
  const bad = rows.length - sum.good;
  fill(byId("overview"),
    el("h2", {}, t("overview"), el("small", {}, t(whole ? "of-all" : "of-selection", number(rows.length)))),
    el("div", { class: "cards" },
      card(number(rows.length), t("questions")),
      card(percent(sum.good, rows.length), t("good-trees"), `${number(sum.good)} ${t("good")}, ${number(bad)} ${t("bad")}`),
      card(number(sum.queries), t("queries")),
      card(percent(sum.correct, sum.queries), t("correct-queries"), number(sum.correct)),
      card(number(sum.pairs), t("pairs")),
      card(number(total(sum.findings)), t("findings"), sum.limits ? t("limits", number(sum.limits)) : "")),
    el("div", { class: "figures" },
      bars(`${t("outcomes")} (■ ${t("correct")}  ▨ ${t("wrong")})`,
        outcomes.map(([outcome, [count, correct]]) => [outcomeName(outcome), count, correct]), ["good", "bad"]),
      bars(t("distances"), distances),
      bars(t("depths"), byNumber(sum.depths)),
      verification(sum),
      groups(t("by-difficulty"), rows, "difficulty", t("difficulty")),
      groups(t("by-database"), rows, "db", t("database"))));
}
