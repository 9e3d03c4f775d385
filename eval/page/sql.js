// SQL as tokens: for colours, and for the difference between two queries.

const KEYWORDS = new Set(
  ("ALL AND AS ASC BETWEEN BY CASE CAST COLLATE CROSS DELETE DESC DISTINCT ELSE END ESCAPE EXCEPT EXISTS FILTER FROM "
  + "FULL GLOB GROUP HAVING IN INNER INSERT INTERSECT INTO IS ISNULL JOIN LEFT LIKE LIMIT NATURAL NOT NOTNULL NULL "
  + "OFFSET ON OR ORDER OUTER OVER PARTITION PRAGMA RECURSIVE RIGHT ROWS SELECT SET THEN UNION UPDATE USING VALUES "
  + "WHEN WHERE WINDOW WITH")
    .split(" "),
);

// an unfinished text, name or comment reaches to the end
const TOKEN = new RegExp(
  [
    String.raw`(?<space>\s+)`,
    String.raw`(?<comment>--[^\n]*|/\*[^]*?(?:\*/|$))`,
    String.raw`(?<text>'(?:[^']|'')*(?:'|$))`,
    String.raw`(?<name>"(?:[^"]|"")*(?:"|$)|\x60[^\x60]*(?:\x60|$)|\[[^\]]*(?:\]|$))`,
    String.raw`(?<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)`,
    String.raw`(?<word>[\p{L}_][\p{L}\p{N}_$]*)`,
    String.raw`(?<other>[<>=!|]{2}|[^])`,
  ].join("|"),
  "guy",
);
const LONGEST_COLOURED = 50_000; // characters; longer queries are shown plain
const LARGEST_TABLE = 4_000_000; // cells of the table that a difference takes

/** The tokens of a query, [kind, text] each; together their texts are the query. */
function tokens(sql) {
  return Array.from(sql.matchAll(TOKEN), ({ groups }) => {
    const [kind, text] = Object.entries(groups).find(([, found]) => found !== undefined);
    return [kind === "word" && KEYWORDS.has(text.toUpperCase()) ? "keyword" : kind, text];
  });
}

/** A query in colours. */
function highlighted(sql) {
  const parts = sql.length > LONGEST_COLOURED
    ? [sql]
    : tokens(sql).map(([kind, text]) => (kind === "space" ? text : el("span", { class: `sql-${kind}` }, text)));
  return el("pre", { class: "sql", dir: "ltr" }, parts);
}

/** Tokens with the white space behind each, which does not count when they are compared. */
function comparable(sql) {
  const found = [];
  for (const [kind, text] of tokens(sql)) {
    if (kind === "space" && found.length) found.at(-1).space = text;
    else if (kind !== "space") found.push({ text, space: "" });
  }
  return found;
}

/** How `before` becomes `after`: [op, text] with op "=", "-" or "+", by a longest common subsequence of tokens. */
function difference(before, after) {
  const [a, b] = [comparable(before), comparable(after)];
  let start = 0;
  while (start < Math.min(a.length, b.length) && a[start].text === b[start].text) start++;
  let end = 0;
  while (end < Math.min(a.length, b.length) - start && a.at(-1 - end).text === b.at(-1 - end).text) end++;
  const inner = subsequence(a.slice(start, a.length - end), b.slice(start, b.length - end));
  const same = (part) => part.map((token) => ["=", token]);
  return joined([...same(b.slice(0, start)), ...inner, ...same(b.slice(b.length - end))]);
}

function subsequence(a, b) {
  const whole = [...a.map((token) => ["-", token]), ...b.map((token) => ["+", token])];
  const width = b.length + 1;
  if ((a.length + 1) * width > LARGEST_TABLE) return whole;
  const lengths = new Uint32Array((a.length + 1) * width); // of the subsequence of what follows
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      lengths[i * width + j] = a[i].text === b[j].text
        ? lengths[(i + 1) * width + j + 1] + 1
        : Math.max(lengths[(i + 1) * width + j], lengths[i * width + j + 1]);
    }
  }
  const steps = [];
  let [i, j] = [0, 0];
  while (i < a.length && j < b.length) {
    if (a[i].text === b[j].text) {
      steps.push(["=", b[j++]]);
      i++;
    } else if (lengths[(i + 1) * width + j] >= lengths[i * width + j + 1]) steps.push(["-", a[i++]]);
    else steps.push(["+", b[j++]]);
  }
  return [...steps, ...a.slice(i).map((token) => ["-", token]), ...b.slice(j).map((token) => ["+", token])];
}

/** Steps of the same kind that follow each other, as one. */
function joined(steps) {
  const found = [];
  for (const [op, token] of steps) {
    if (found.at(-1)?.[0] === op) found.at(-1)[1] += token.text + token.space;
    else found.push([op, token.text + token.space]);
  }
  return found;
}

/** The difference as text with deletions and insertions, marked by sign and line as well as by colour. */
function markedDifference(before, after) {
  const parts = difference(before, after).map(([op, text]) => {
    if (op === "=") return el("span", {}, text);
    const [, inner, space] = text.match(/^([^]*?)(\s*)$/);
    const [tag, label] = op === "-" ? ["del", t("removed")] : ["ins", t("added")];
    return [el(tag, { "aria-label": `${label}: ${inner}` }, inner), space || " "];
  });
  return el("pre", { class: "sql", dir: "ltr" }, parts);
}
