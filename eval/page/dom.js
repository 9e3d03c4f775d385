// Elements, and text that cannot pretend to be something else.

const INVISIBLE = /(?![\n\t])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

/** Text with control, format and bidirectional characters written out: ⟨U+202E⟩. */
function visible(text) {
  return String(text).replace(INVISIBLE, (character) => {
    const code = character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    return `⟨U+${code}⟩`;
  });
}

/** A new element. `properties`: attributes, `on…` listeners; children are elements, texts, or null for none. */
function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, visible(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined).map(asNode));
  return element;
}

function asNode(child) {
  return child instanceof Node ? child : document.createTextNode(visible(child));
}

/** Text of the data: its direction is its own and does not reach what stands around it. */
function data(text, tag = "span") {
  return el(tag, { dir: "auto", class: "data" }, text);
}

/** A remark, or what stands where there is nothing to show. */
function quiet(text) {
  return el("p", { class: "quiet" }, text);
}

function table(lines, head = null) {
  return el("table", {}, head && el("thead", {}, head), el("tbody", {}, lines));
}

/** A row of a table: its name, then cells; texts of cells are figures. */
function line(name, ...cells) {
  const shown = cells.map((cell) => (cell instanceof Node ? cell : el("td", { class: "number" }, cell)));
  return el("tr", {}, el("th", { scope: "row" }, name), shown);
}

function byId(id) {
  return document.getElementById(id);
}

/** Put other children into an element. */
function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null).map(asNode));
}

/** A bar `share` (0 to 1) of its row's width; sizes are set by script because the page forbids style attributes. */
function bar(kind, share) {
  const element = el("span", { class: `bar ${kind}` });
  element.style.width = `${100 * share}%`;
  return element;
}

/** The content of a data block: base64, deflated, JSON. */
async function unpacked(id) {
  const text = atob(byId(id).textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).json();
}
