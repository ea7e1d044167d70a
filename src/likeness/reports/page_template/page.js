"use strict";
// Draws the page from the JSON beside it. Text only ever becomes text nodes: names and errors come from files.

const data = JSON.parse(document.getElementById("content").textContent);
const byId = (id) => document.getElementById(id);
const NONE = "–";
const SVG = byId("svg").namespaceURI;
const FIRST_ROWS = 40;
const MOST_AXES = 10;
const MOST_LABELS = 24;
const MOST_LISTED = 200;
const COLOURS = 7;

// ---- nodes and numbers

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) node.style.setProperty(name, value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}
const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

const known = (value) => value !== null && value !== undefined;

// One digit as Python writes it: an exact half goes to the even digit.
function fixed(value) {
  const size = Math.abs(value);
  return ((size * 4) % 4 === 1 ? size - 0.05 : size).toFixed(1);
}
const isMinus = (value) => value < 0 || Object.is(value, -0);
const percent = (value) => (known(value) ? (isMinus(value) ? "−" : "") + fixed(100 * value) : NONE);
const points = (value) => (known(value) ? (isMinus(value) ? "−" : "+") + fixed(100 * value) : NONE);
const pValue = (p) => (!known(p) ? `p = ${NONE}` : p < 0.001 ? "p < 0.001" : `p = ${Number(p.toPrecision(2))}`);
const count = (value) => (known(value) ? value.toLocaleString("en-US", { maximumFractionDigits: 1 }) : NONE);
const seconds = (value) => (!known(value) ? NONE : value < 100 ? fixed(value) : count(Math.round(value)));
const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
const between = ([, low, high]) => (known(low) && known(high) ? `[${percent(low)}–${percent(high)}]` : "");
const spread = ([, low, high]) => (known(low) && known(high) ? `[${points(low)}, ${points(high)}]` : "");
const short = (text, most) => (text.length <= most ? text : `${text.slice(0, most >> 1)}…${text.slice(text.length - ((most - 1) >> 1))}`);

function kindOf([difference, low, high, p]) {
  if (![difference, low, high, p].every(known)) return "unknown";
  if (p >= 0.05 || (low <= 0 && high >= 0)) return "noise";
  return difference > 0 ? "better" : "worse";
}

// P of the exact McNemar test: two tails of a binomial with one half.
function mcnemar(won, lost) {
  const all = won + lost;
  let log = -all * Math.LN2;
  let tail = 0;
  for (let k = 0; k <= Math.min(won, lost); k++) {
    tail += Math.exp(log);
    log += Math.log((all - k) / (k + 1));
  }
  return Math.min(1, 2 * tail);
}

// ---- what is shown

const jobs = data.jobs;
const done = jobs.map((_, place) => place).filter((place) => known(jobs[place].val?.[0]));
const hasSeeds = data.heads.some((head) => head.jobs.length > 1);
const best = data.winner ? data.winner.job : null;
const headOf = new Map(data.heads.flatMap((head, place) => head.jobs.map((job) => [job, place])));
const view = { words: [], state: "", values: new Map(), floor: null, ceiling: null, sort: "val", down: true, open: new Set(), all: false, active: null };

const described = (job) => data.options.map((option, i) => `${option.label}=${job.options[i]}`).join(" ");
const named = (job) => [`job ${job.name}`, described(job), known(job.seed) && hasSeeds ? `seed=${job.seed}` : ""].filter(Boolean).join(" ");

function isBrushed(place) {
  const job = jobs[place];
  for (const [axis, values] of view.values) if (!values.has(job.options[axis])) return false;
  const value = job.val?.[0];
  if (view.floor !== null && !(value >= view.floor && value <= view.ceiling)) return false;
  return true;
}
const hasBrush = () => view.values.size > 0 || view.floor !== null;

// ---- head of the page

function showHead() {
  document.title = `${data.title} · likeness`;
  byId("title").textContent = data.title;
  byId("made").textContent = `Made ${data.made} from ${data.folders.join(", ")}`;
  byId("swept").append(
    ...data.swept.map((option) =>
      h("div", null, h("dt", null, option.label), h("dd", null, option.values.join(", ") + (option.more ? ` … and ${option.more} more` : ""))),
    ),
  );
  byId("overview").append(winnerCard(), tallyCard());
}

function winnerCard() {
  const winner = data.winner;
  if (!winner) return h("div", { class: "card" }, h("p", { class: "eyebrow" }, "Winner"), h("p", null, "No job has a result yet."));
  const gains = Object.values(winner.gains).map(kindOf);
  const tone = ["worse", "noise", "unknown", "better"].find((kind) => gains.includes(kind));
  const over = (name, gain) => figure(`over ${name}, points`, points(gain[0]), `${spread(gain)} ${pValue(gain[3])}`);
  const test = winner.test;
  return h(
    "div",
    { class: `card winner ${tone}` },
    h("p", { class: "eyebrow" }, "Winner, chosen on val"),
    h("p", { class: "name" }, described(jobs[winner.job]) || `job ${jobs[winner.job].name}`),
    h(
      "dl",
      { class: "figures" },
      figure("hit@1 on test", percent(test[0]), between(test), " %"),
      over("frozen features", winner.gains.frozen),
      over("PCA", winner.gains.pca),
    ),
    h("p", { class: "verdict" }, winner.verdict),
    h("p", { class: "note" }, winnerNote(winner)),
  );
}

const figure = (label, value, below, unit = "") =>
  h("div", null, h("dt", null, label), h("dd", null, h("b", null, value, h("span", { class: "unit" }, unit)), h("span", { class: "between" }, below)));

function winnerNote(winner) {
  const heads = data.counts.heads;
  const parts = [`On val it has ${percent(winner.val[0])} %, which being chosen flatters; test had no say.`];
  if (winner.ties) parts.push(`${plural(winner.ties, "other head")} ${winner.ties === 1 ? "has" : "have"} exactly the same hit@1 on val; the first was taken.`);
  if (winner.seeds > 1) parts.push(`Hits are averaged over ${winner.seeds} seeds.`);
  parts.push(`Intervals are of 95 %, gains are paired query by query${heads > 1 ? `, p is adjusted for ${heads} heads (Holm)` : ""}.`);
  return parts.join(" ");
}

function tallyCard() {
  const { counts, facts } = data;
  const cell = (label, value) => h("div", null, h("dt", null, label), h("dd", null, count(value)));
  const queries = Object.entries(facts.queries).map(([split, n]) => `${split} ${count(n)}`);
  const fact = (label, values) => (values.length ? [h("dt", null, label), h("dd", null, values.join(", "))] : []);
  const states = Object.entries(counts.states);
  return h(
    "div",
    { class: "card" },
    h("p", { class: "eyebrow" }, "Tried"),
    h("dl", { class: "tally" }, cell("jobs", counts.jobs), cell("heads", counts.heads), counts.seeds ? cell("seeds", counts.seeds) : null),
    h("p", null, ...states.flatMap(([state, n]) => [h("span", { class: `state ${state}` }, `${count(n)} ${state}`), " "])),
    h("dl", { class: "facts" }, ...fact("backbone", facts.backbones), ...fact("pictures", facts.data), ...fact("queries", queries)),
  );
}

// ---- table

const headItems = data.heads.map((head, place) => ({ ...head, head: place, kids: head.jobs.length > 1 ? head.jobs : null, job: head.jobs[0] }));
const otherItems = jobs.map((job, place) => ({ ...job, job: place, kids: null, head: null })).filter((item) => !headOf.has(item.job));
const items = [...headItems, ...otherItems];

const valued = (key) => ({ value: (item) => item[key]?.[0], cell: (item) => [percent(item[key]?.[0]), h("span", { class: "between" }, between(item[key] || []))] });
const gained = (key) => ({ value: (item) => item[key]?.[0], cell: (item) => gainCell(item[key] || []) });
const counted = (key, shown = count) => ({ value: (item) => item[key], cell: (item) => [shown(item[key])] });

function gainCell(gain) {
  const kind = kindOf(gain);
  const arrow = { better: "▲ ", worse: "▼ " }[kind] || "";
  const below = known(gain[0]) ? `${spread(gain)} ${pValue(gain[3])}` : "";
  return [h("span", { class: `mark ${kind}` }, arrow + points(gain[0])), h("span", { class: "between" }, below)];
}

const COLUMNS = [
  ...data.options.map((option, i) => ({ id: `option ${i}`, label: option.label, title: option.name, class: "option", value: (item) => jobs[item.job].options[i], cell: (item) => [jobs[item.job].options[i]] })),
  ...(hasSeeds ? [{ id: "seed", label: "seed", class: "option", value: (item) => (item.kids ? item.kids.length : jobs[item.job].seed), cell: (item) => [item.kids ? `${item.kids.length} seeds` : (jobs[item.job].seed ?? NONE)] }] : []),
  { id: "val", label: "val hit@1", class: "number", ...valued("val") },
  { id: "test", label: "test hit@1", class: "number", ...valued("test") },
  { id: "frozen", label: "− frozen", title: "gain over the frozen features on test, points", class: "number", ...gained("frozen") },
  { id: "pca", label: "− PCA", title: "gain over PCA on test, points", class: "number", ...gained("pca") },
  { id: "code_width", label: "code", title: "numbers in a code", class: "number", ...counted("code_width") },
  { id: "parameters", label: "parameters", class: "number", ...counted("parameters") },
  { id: "epochs", label: "epochs", class: "number", ...counted("epochs") },
  { id: "seconds", label: "seconds", title: "of the fit", class: "number", ...counted("seconds", seconds) },
];
const NAME = { id: "name", label: "job", value: (item) => jobs[item.job].name };

const asNumber = (value) => (typeof value === "string" && value.trim() !== "" && Number.isFinite(Number(value)) ? Number(value) : value);
function compareValues(one, other) {
  const [a, b] = [asNumber(one), asNumber(other)];
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

// What is not known comes last, whichever way.
function sorted(list) {
  const { value } = [NAME, ...COLUMNS].find((column) => column.id === view.sort);
  const isAbsent = (item) => !known(value(item));
  return [...list].sort((a, b) => isAbsent(a) - isAbsent(b) || (isAbsent(a) ? 0 : compareValues(value(a), value(b)) * (view.down ? -1 : 1)));
}

const textOf = jobs.map((job) => [named(job), job.state, job.error || ""].join(" ").toLowerCase());
function isShown(place) {
  return (!view.state || jobs[place].state === view.state) && view.words.every((word) => textOf[place].includes(word)) && (!hasBrush() || (done.includes(place) && isBrushed(place)));
}

function showTable() {
  const shown = sorted(items.filter((item) => (item.kids || [item.job]).some(isShown)));
  const cut = view.all ? shown : shown.slice(0, FIRST_ROWS);
  byId("table").replaceChildren(tableHead(), h("tbody", null, ...cut.flatMap(rowsOf)));
  const places = new Set(shown.flatMap((item) => item.kids || [item.job]).filter(isShown));
  byId("shown").textContent = `${count(places.size)} of ${plural(jobs.length, "job")}`;
  byId("more").hidden = cut.length === shown.length;
  byId("more").textContent = `Show all ${count(shown.length)} rows`;
  byId("unbrush").hidden = !hasBrush();
}

function tableHead() {
  const cell = (column) => {
    const direction = view.sort !== column.id ? null : view.down ? "descending" : "ascending";
    return h("th", { scope: "col", "aria-sort": direction, class: column.class === "number" ? "number" : null }, h("button", { type: "button", title: column.title, "data-sort": column.id, onclick: () => sortBy(column) }, column.label));
  };
  return h("thead", null, h("tr", null, ...[NAME, ...COLUMNS].map(cell)));
}

function sortBy(column) {
  view.down = view.sort === column.id ? !view.down : column.class === "number" && !["code_width", "parameters", "epochs", "seconds"].includes(column.id);
  view.sort = column.id;
  showTable();
  document.querySelector(`[data-sort="${column.id}"]`).focus();
}

function rowsOf(item) {
  const kids = item.kids && view.open.has(item.head) ? sorted(item.kids.filter(isShown).map((place) => ({ ...jobs[place], job: place, kids: null }))) : [];
  return [row(item, item.kids ? "" : "single"), ...kids.map((kid) => row(kid, "kid"))];
}

function row(item, kind) {
  const job = jobs[item.job];
  const events = { onpointerenter: () => activate(item.job), onfocusin: () => activate(item.job), onpointerleave: () => activate(null), onfocusout: () => activate(null) };
  const isBest = item.job === best && kind !== "kid";
  const first = h("th", { scope: "row" }, item.kids ? fold(item) : job.name, job.state === "done" ? null : [" ", h("span", { class: `state ${job.state}` }, job.state)]);
  return h("tr", { "data-job": item.job, class: [kind, isBest ? "best" : ""].join(" "), ...events }, first, ...cells(item, job));
}

function cells(item, job) {
  const cell = (column) => h("td", { class: column.class }, ...column.cell(item));
  if (job.state === "done") return COLUMNS.map(cell);
  const options = COLUMNS.filter((column) => column.class === "option");
  return [...options.map(cell), h("td", { colspan: COLUMNS.length - options.length }, errorOf(job))];
}

function errorOf(job) {
  if (!known(job.trace)) return job.error || "";
  return h("details", { class: "error" }, h("summary", null, job.error || job.state), h("pre", null, data.traces[job.trace]));
}

function fold(item) {
  const isOpen = view.open.has(item.head);
  const turn = () => {
    if (!view.open.delete(item.head)) view.open.add(item.head);
    showTable();
    document.querySelector(`[data-head="${item.head}"]`).focus();
  };
  return h("button", { type: "button", class: "fold", "data-head": item.head, "aria-expanded": String(isOpen), "aria-label": `${plural(item.kids.length, "job")}, ${described(jobs[item.job])}`, onclick: turn }, item.kids.map((place) => jobs[place].name).slice(0, 3).join(", ") + (item.kids.length > 3 ? " …" : ""));
}

function setUpTable() {
  byId("filter").addEventListener("input", (event) => {
    view.words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    showTable();
  });
  const states = ["", ...Object.keys(data.counts.states)];
  const chip = (state) =>
    h("button", { type: "button", "aria-pressed": String(state === view.state), onclick: (event) => {
      view.state = state;
      for (const other of byId("states").children) other.setAttribute("aria-pressed", String(other === event.target));
      showTable();
    } }, state || "all");
  if (states.length > 2) byId("states").append(...states.map(chip));
  byId("more").addEventListener("click", () => { view.all = true; showTable(); });
  byId("unbrush").addEventListener("click", () => { view.values.clear(); view.floor = view.ceiling = null; brushed(); byId("filter").focus(); });
  const seeds = hasSeeds ? "A row that opens is a head over its seeds: means with Student's intervals, gains of hits averaged over the seeds. " : "";
  byId("table-note").textContent = `${seeds}Percent and points with 95 % intervals; gains are on test, paired query by query. ▲ and ▼ are beyond the noise: the interval leaves zero out and p${data.counts.heads > 1 ? `, adjusted for ${count(data.counts.heads)} heads (Holm; not in the rows of single seeds),` : ""} is below 0.05.`;
  showTable();
}

// ---- figures

const plots = [];

// draw(svg, width) gives { order, near(x, y), mark(place) }: jobs from first to last, the job at a point, its highlight.
function plot(box, title, height, draw, least = 0) {
  const svg = s("svg", { class: "plot", tabindex: 0, role: "group", "aria-label": `${title}. Arrow keys go from job to job.` });
  const over = s("g", null);
  box.append(h("h3", null, title), svg);
  const self = { render, highlight };
  let drawn = null;
  function render() {
    const width = Math.max(box.clientWidth - 2 * parseFloat(getComputedStyle(box).paddingLeft), least, 240);
    svg.setAttribute("width", width);
    svg.setAttribute("height", height);
    svg.replaceChildren();
    drawn = draw(svg, width, height);
    svg.append(over);
  }
  function highlight(place) {
    const marks = known(place) && drawn ? drawn.mark(place) : [];
    over.replaceChildren(...marks);
    return marks[0] || null;
  }
  svg.addEventListener("pointermove", (event) => {
    const frame = svg.getBoundingClientRect();
    const place = drawn.near(event.clientX - frame.left, event.clientY - frame.top);
    activate(place, place === null ? null : [event.clientX, event.clientY]);
  });
  svg.addEventListener("pointerleave", () => activate(null));
  svg.addEventListener("blur", () => activate(null));
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step || event.target !== svg || !drawn.order.length) return;
    event.preventDefault();
    const at = drawn.order.indexOf(view.active);
    const place = drawn.order[at < 0 ? (step > 0 ? 0 : drawn.order.length - 1) : (at + step + drawn.order.length) % drawn.order.length];
    activate(place);
    const frame = (highlight(place) || svg).getBoundingClientRect();
    tip(place, [frame.right, frame.top]);
  });
  plots.push(self);
  render();
}

function activate(place, where = null) {
  tip(place, where);
  if (place === view.active) return;
  view.active = place;
  for (const each of plots) each.highlight(place);
  for (const each of document.querySelectorAll("tr.active")) each.classList.remove("active");
  if (place !== null) for (const each of document.querySelectorAll(`tr[data-job="${place}"]`)) each.classList.add("active");
}

function tip(place, where) {
  const box = byId("tip");
  box.hidden = place === null || where === null;
  if (box.hidden) return;
  const job = jobs[place];
  box.textContent = `${named(job)}\nval hit@1 ${percent(job.val[0])} ${between(job.val)}\ncode ${count(job.code_width)}, ${seconds(job.seconds)} s, ${count(job.epochs)} epochs`;
  const frame = box.getBoundingClientRect();
  box.style.left = `${Math.max(4, Math.min(where[0] + 14, innerWidth - frame.width - 4))}px`;
  box.style.top = `${Math.max(4, Math.min(where[1] + 14, innerHeight - frame.height - 4))}px`;
}

function brushed() {
  for (const each of plots) each.render();
  showTable();
}

function steps(low, high, most) {
  const rough = (high - low || Math.abs(high) || 1) / most;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * unit).find((each) => each >= rough);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push(k * step);
  return found;
}

function logSteps(low, high, base) {
  const found = [];
  for (let power = Math.ceil(Math.log(low) / Math.log(base) - 1e-9); base ** power <= high * (1 + 1e-9); power++) found.push(base ** power);
  return found.length >= 2 ? found : [low, high];
}

function scale(values, from, to, isLog) {
  let [low, high] = [Math.min(...values), Math.max(...values)];
  const see = isLog ? Math.log : (value) => value;
  if (low === high) [low, high] = isLog ? [low / 2, high * 2] : [low - 0.01, high + 0.01];
  const span = see(high) - see(low);
  const at = (value) => from + ((see(value) - see(low)) / span) * (to - from);
  const back = (place) => low + ((place - from) / (to - from)) * (high - low);
  return Object.assign(at, { low, high, back });
}

const padded = (values) => {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const more = (high - low) * 0.06 || 0.01;
  return [low - more, high + more];
};

const tickText = (value) => (Math.abs(value) >= 1e6 ? value.toExponential(0) : Number(value.toPrecision(3)).toLocaleString("en-US", { maximumFractionDigits: 6 }));

// A frame with a grid; axes { label, values, log base, show } along x and y.
function framed(svg, width, height, x, y) {
  const [left, right, top, bottom] = [46, 12, 10, 40];
  const across = scale(x.values, left, width - right, x.log);
  const up = scale(y.values, height - bottom, top, y.log);
  for (const value of y.log ? logSteps(up.low, up.high, y.log) : steps(up.low, up.high, 5)) {
    svg.append(s("line", { class: "grid", x1: left, x2: width - right, y1: up(value), y2: up(value) }));
    svg.append(s("text", { class: "faint", x: left - 6, y: up(value) + 4, "text-anchor": "end" }, y.show(value)));
  }
  const ticks = x.log ? logSteps(across.low, across.high, x.log) : steps(across.low, across.high, width < 420 ? 4 : 8);
  const every = Math.ceil((ticks.length * 52) / (width - left - right));
  for (const value of ticks.filter((_, i) => i % every === 0)) {
    svg.append(s("text", { class: "faint", x: across(value), y: height - bottom + 18, "text-anchor": "middle" }, x.show(value)));
  }
  svg.append(s("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }));
  svg.append(s("text", { class: "faint", x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, x.label));
  return { across, up, left, right: width - right };
}

// Colour and shape go by the first option that has few values; they repeat beyond seven.
const colouring = (() => {
  const valuesOf = data.options.map((_, i) => [...new Set(done.map((place) => jobs[place].options[i]))]);
  const option = valuesOf.findIndex((values) => values.length > 1 && values.length <= COLOURS);
  const values = option < 0 ? [] : valuesOf[option].sort(compareValues);
  return { option, values, of: (place) => (option < 0 ? 0 : values.indexOf(jobs[place].options[option])) };
})();
const SHAPES = ["M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0", "M0,-6L6,5L-6,5Z", "M-4.5,-4.5H4.5V4.5H-4.5Z", "M0,-6.5L6.5,0L0,6.5L-6.5,0Z", "M0,6L6,-5L-6,-5Z", "M-2,-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z", "M-6,-3L-3,-6L0,-3L3,-6L6,-3L3,0L6,3L3,6L0,3L-3,6L-6,3L-3,0Z"];

function legend() {
  if (colouring.option < 0) return [];
  const mark = (i) => s("svg", { width: 16, height: 16, viewBox: "-8 -8 16 16", "aria-hidden": "true" }, s("path", { class: `point c${i}`, d: SHAPES[i] }));
  return [h("span", { class: "faint" }, data.options[colouring.option].label), ...colouring.values.map((value, i) => h("span", null, mark(i), value))];
}

const nearest = (places, distance, most) => {
  let [found, least] = [null, most];
  for (const place of places) {
    const away = distance(place);
    if (away < least) [found, least] = [place, away];
  }
  return found;
};

function scatter(box, title, key, label, base) {
  const lowest = base === 10 ? 0.01 : 1;
  const at = (place) => Math.max(jobs[place][key], lowest);
  const places = done.filter((place) => known(jobs[place][key])).reverse();
  if (!places.length) return false;
  plot(box, title, 300, (svg, width, height) => {
    const hits = padded([...places.map((place) => jobs[place].val[0]), ...data.frozen]);
    const widths = places.map(at);
    const edges = [Math.min(...widths) / 1.25, Math.max(...widths) * 1.25];
    const { across, up, left, right } = framed(svg, width, height, { values: edges, log: base, label, show: tickText }, { values: hits, show: percent });
    for (const value of data.frozen.slice(0, 4)) {
      svg.append(s("line", { class: "frozen", x1: left, x2: right, y1: up(value), y2: up(value) }));
      svg.append(s("text", { class: "faint halo", x: left + 4, y: up(value) - 5 }, `frozen ${percent(value)}`));
    }
    for (const place of places) svg.append(s("path", { class: `point c${colouring.of(place)}${isBrushed(place) ? "" : " out"}`, d: SHAPES[colouring.of(place)], transform: `translate(${across(at(place))},${up(jobs[place].val[0])})` }));
    if (places.includes(best)) svg.append(s("circle", { class: "ring", r: 10, cx: across(at(best)), cy: up(jobs[best].val[0]) }));
    return {
      order: [...places].sort((a, b) => at(a) - at(b)),
      near: (x, y) => nearest(places, (place) => Math.hypot(across(at(place)) - x, up(jobs[place].val[0]) - y), 22),
      mark: (place) => (places.includes(place) ? [s("circle", { class: "over dot", r: 7, cx: across(at(place)), cy: up(jobs[place].val[0]) })] : []),
    };
  });
  return true;
}

function curves(box, title, index, show) {
  const places = done.filter((place) => jobs[place].curve && jobs[place].curve[index].some(known)).reverse();
  if (!places.length) return false;
  const pointsOf = (place) => jobs[place].curve[0].map((epoch, i) => [epoch, jobs[place].curve[index][i]]).filter((point) => known(point[1]));
  const all = new Map(places.map((place) => [place, pointsOf(place)]));
  plot(box, title, 300, (svg, width, height) => {
    const flat = [...all.values()].flat();
    const values = flat.map((point) => point[1]);
    const log = index === 2 && Math.min(...values) > 0 && Math.max(...values) > 20 * Math.min(...values) ? 10 : null;
    const { across, up } = framed(svg, width, height, { values: flat.map((point) => point[0]), label: "epoch", show: tickText }, { values: log ? values : padded(values), log, show });
    const path = (place) => all.get(place).map(([epoch, value], i) => `${i ? "L" : "M"}${across(epoch).toFixed(1)},${up(value).toFixed(1)}`).join("");
    const opacity = places.length > 100 ? 0.3 : places.length > 30 ? 0.5 : 0.8;
    for (const place of places) svg.append(s("path", { class: `line c${colouring.of(place)}${isBrushed(place) ? "" : " out"}${place === best ? " best" : ""}`, d: path(place), opacity }));
    return {
      order: [...places].reverse(),
      near: (x, y) => nearest(places, (place) => Math.min(...all.get(place).map(([epoch, value]) => Math.hypot(across(epoch) - x, up(value) - y))), 18),
      mark: (place) => (all.has(place) ? [s("path", { class: "over", d: path(place) })] : []),
    };
  });
  return true;
}

function parallel(box) {
  const axes = data.options.map((option, i) => ({ ...option, i, values: [...new Set(done.map((place) => jobs[place].options[i]))].sort(compareValues) })).filter((axis) => axis.values.length > 1).slice(0, MOST_AXES);
  if (!axes.length || done.length < 2) return false;
  const least = 110 * axes.length + 130;
  plot(box, "Options and hit@1 on val", 360, (svg, width, height) => {
    const [left, right, top, bottom] = [16, 76, 34, 16];
    const place = (i) => left + (i / axes.length) * (width - left - right);
    const hits = scale(padded(done.map((job) => jobs[job].val[0])), height - bottom, top);
    const ranks = scale(done.map((job) => jobs[job].val[0]), 0, 1);
    const spots = axes.map((axis) => new Map(axis.values.map((value, i) => [value, height - bottom - ((i + 0.5) / axis.values.length) * (height - bottom - top)])));
    const ys = (job) => [...axes.map((axis, i) => spots[i].get(jobs[job].options[axis.i])), hits(jobs[job].val[0])];
    const xs = [...axes.map((_, i) => place(i)), width - right];
    const path = (job) => ys(job).map((y, i, all) => (i ? `C${(xs[i - 1] + xs[i]) / 2},${all[i - 1]} ${(xs[i - 1] + xs[i]) / 2},${y} ${xs[i]},${y}` : `M${xs[0]},${y}`)).join("");
    const order = [...done].reverse();
    const opacity = done.length > 100 ? 0.45 : 0.85;
    for (const job of order) svg.append(s("path", { class: `line by-value${isBrushed(job) ? "" : " out"}${job === best ? " best" : ""}`, "--t": ranks(jobs[job].val[0]).toFixed(3), d: path(job), opacity }));
    axes.forEach((axis, i) => drawAxis(svg, axis, xs[i], spots[i], top, height - bottom, (width - left - right) / axes.length));
    drawHits(svg, hits, width - right, top, height - bottom);
    return {
      order: [...done],
      near: (x, y) => nearest(order, (job) => Math.abs(heightAt(xs, ys(job), x) - y), 12),
      mark: (job) => (done.includes(job) ? [s("path", { class: "over", d: path(job) })] : []),
    };
  }, least);
  return true;
}

function heightAt(xs, ys, x) {
  const i = Math.max(1, xs.findIndex((each) => each >= x));
  const t = Math.max(0, Math.min(1, (x - xs[i - 1]) / (xs[i] - xs[i - 1])));
  return ys[i - 1] + (ys[i] - ys[i - 1]) * t * t * (3 - 2 * t);
}

function drawAxis(svg, axis, x, spots, top, bottom, room) {
  svg.append(s("line", { class: "axis", x1: x, x2: x, y1: top - 8, y2: bottom }), s("text", { x, y: 14, "font-weight": 650, "text-anchor": x < 40 ? "start" : "middle" }, short(axis.label, Math.floor(room / 7.5))));
  const every = Math.ceil(axis.values.length / MOST_LABELS);
  axis.values.forEach((value, i) => {
    if (i % every) return;
    const chosen = view.values.get(axis.i);
    const turn = () => choose(axis.i, value);
    const onkeydown = (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      turn();
    };
    svg.append(s("text", { class: "halo", x: x + 7, y: spots.get(value) + 4, role: "button", tabindex: 0, "data-value": `${axis.i} ${value}`, "aria-pressed": String(Boolean(chosen?.has(value))), "aria-label": `${axis.label} ${value}`, onclick: turn, onkeydown }, short(value, Math.floor((room - 14) / 7))));
  });
}

function choose(axis, value) {
  const chosen = view.values.get(axis) || new Set();
  if (!chosen.delete(value)) chosen.add(value);
  if (chosen.size) view.values.set(axis, chosen);
  else view.values.delete(axis);
  brushed();
  [...document.querySelectorAll("svg [data-value]")].find((each) => each.getAttribute("data-value") === `${axis} ${value}`)?.focus();
}

function drawHits(svg, hits, x, top, bottom) {
  svg.append(s("line", { class: "axis", x1: x, x2: x, y1: top - 8, y2: bottom }), s("text", { x: x + 70, y: 14, "font-weight": 650, "text-anchor": "end" }, "val hit@1"));
  for (const value of steps(hits.low, hits.high, 6)) svg.append(s("text", { class: "halo", x: x + 18, y: hits(value) + 4 }, percent(value)));
  const range = s("rect", { class: "range", x: x - 4, width: 8, y: 0, height: 0 });
  const paint = () => {
    const [a, b] = view.floor === null ? [0, 0] : [hits(Math.min(view.ceiling, hits.high)), hits(Math.max(view.floor, hits.low))];
    range.setAttribute("y", a);
    range.setAttribute("height", Math.max(0, b - a));
  };
  let from = null;
  const at = (event) => hits.back(Math.max(top, Math.min(bottom, event.clientY - svg.getBoundingClientRect().top)));
  const band = s("rect", {
    class: "brush", x: x - 12, y: top - 8, width: 24, height: bottom - top + 8, tabindex: 0, role: "slider", "aria-label": "least val hit@1 that is highlighted", "aria-orientation": "vertical",
    "aria-valuemin": (100 * hits.low).toFixed(1), "aria-valuemax": (100 * hits.high).toFixed(1), "aria-valuenow": (100 * (view.floor ?? hits.low)).toFixed(1),
    onpointerdown: (event) => { from = at(event); band.setPointerCapture(event.pointerId); },
    onpointermove: (event) => {
      if (from === null) return;
      [view.floor, view.ceiling] = [Math.min(from, at(event)), Math.max(from, at(event))];
      paint();
    },
    onpointerup: (event) => {
      if (Math.abs(from - at(event)) < (hits.high - hits.low) / 60) view.floor = view.ceiling = null;
      from = null;
      brushed();
    },
    onkeydown: (event) => {
      const step = { ArrowUp: 1, ArrowDown: -1 }[event.key];
      if (!step && event.key !== "Escape") return;
      event.preventDefault();
      const floor = step ? (view.floor ?? hits.low) + (step * (hits.high - hits.low)) / 20 : hits.low;
      [view.floor, view.ceiling] = floor <= hits.low ? [null, null] : [Math.min(floor, hits.high), hits.high];
      brushed();
      document.querySelector("svg .brush").focus();
    },
  });
  svg.append(band, range);
  paint();
}

function showFigures() {
  const draw = (section, ...drawings) => {
    byId(section).hidden = false;
    const drawn = drawings.map(([box, make]) => {
      const isDrawn = make(byId(box));
      byId(box).hidden = !isDrawn;
      return isDrawn;
    });
    byId(section).hidden = !drawn.some(Boolean);
  };
  for (const each of document.querySelectorAll(".legend")) each.append(...legend());
  draw("options", ["parallel", parallel]);
  draw("costs", ["by-width", (box) => scatter(box, "hit@1 on val by width of the code", "code_width", "numbers in a code", 2)], ["by-seconds", (box) => scatter(box, "hit@1 on val by seconds of the fit", "seconds", "seconds", 10)]);
  draw("curves", ["curve-hits", (box) => curves(box, "hit@1 on val", 1, percent)], ["curve-loss", (box) => curves(box, "Loss on val", 2, tickText)]);
  let width = innerWidth;
  let waiting = null;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(() => plots.forEach((each) => each.render()), 120);
  });
}

// ---- classes

function showClasses() {
  const found = data.classes;
  if (!found) return;
  byId("classes").hidden = false;
  const values = found.values.flat().filter(known);
  const shade = scale(values, 0, 1);
  const left = [found.left_out.classes ? `the ${found.names.length} classes on which heads differ most, of ${found.names.length + found.left_out.classes}` : "", found.left_out.heads ? `the best ${found.rows.filter((each) => known(each.job)).length} heads, ${count(found.left_out.heads)} more are left out` : ""].filter(Boolean);
  byId("classes-note").textContent = `hit@1 on test, percent; baselines first, then heads, best on val first${hasSeeds ? ", averaged over seeds" : ""}.${left.length ? ` Shown are ${left.join(" and ")}.` : ""}`;
  byId("heat").classList.toggle("tall", found.names.length > 10);
  const head = h("thead", null, h("tr", null, h("th", null), ...found.names.map((name, i) => h("th", { scope: "col", title: name }, h("span", null, short(name, 24), known(found.counts[i]) ? ` (${count(found.counts[i])})` : "")))));
  const label = (each) => (known(each.job) ? `${each.name} · ${described(jobs[each.job])}` : each.name);
  const cell = (value) => h("td", { "--t": known(value) ? shade(value).toFixed(3) : 0 }, percent(value));
  const body = found.rows.map((each, i) => h("tr", { "data-job": each.job }, h("th", { scope: "row", title: label(each) }, label(each)), ...found.values[i].map(cell)));
  byId("heat").append(head, h("tbody", null, ...body));
}

// ---- two heads

const compare = data.compare;
const bits = compare ? compare.methods.map((method) => Uint8Array.from(atob(method.bits), (letter) => letter.charCodeAt(0))) : [];
const finds = (method, query) => (bits[method][query >> 3] >> (7 - (query & 7))) & 1;

function showCompare() {
  if (!compare || compare.methods.length < 2) return;
  byId("compare").hidden = false;
  const label = (method) => (known(method.job) ? named(jobs[method.job]) : `${method.name} (beside ${compare.methods[0].name})`);
  for (const [id, chosen] of [["one", 0], ["other", firstOther()]]) {
    byId(id).append(...compare.methods.map((method, place) => h("option", { value: place, selected: place === chosen ? "" : null }, short(label(method), 90))));
    byId(id).addEventListener("change", showDifference);
  }
  byId("swap").addEventListener("click", () => {
    [byId("one").value, byId("other").value] = [byId("other").value, byId("one").value];
    showDifference();
  });
  showDifference();
}

// The head that differs most from the winner is the most telling one to begin with.
function firstOther() {
  const differing = compare.methods.map((_, place) => compare.queries.reduce((sum, _, query) => sum + (finds(0, query) ^ finds(place, query)), 0));
  const heads = compare.methods.map((_, place) => place).filter((place) => place && known(compare.methods[place].job));
  return heads.length ? heads.reduce((most, place) => (differing[place] > differing[most] ? place : most)) : 1;
}

function showDifference() {
  const [one, other] = [Number(byId("one").value), Number(byId("other").value)];
  const kinds = { both: [], one: [], other: [], neither: [] };
  compare.queries.forEach((_, query) => {
    const [a, b] = [finds(one, query), finds(other, query)];
    kinds[a ? (b ? "both" : "one") : b ? "other" : "neither"].push(query);
  });
  byId("difference").replaceChildren(
    balance(kinds),
    ...side("A", kinds.one, one, other),
    ...side("B", kinds.other, one, other),
    h("p", { class: "note" }, compareNote()),
  );
}

function balance(kinds) {
  const labels = { both: "both find", one: "only A finds", other: "only B finds", neither: "neither finds" };
  const bar = Object.entries(kinds).map(([kind, queries]) => {
    const part = h("div", { class: kind });
    part.style.flex = `${queries.length} 0 0`;
    return part;
  });
  const keys = Object.entries(kinds).map(([kind, queries]) => h("li", null, key(kind), `${labels[kind]} ${count(queries.length)}`));
  const p = mcnemar(kinds.one.length, kinds.other.length);
  return h("div", { class: "card" },
    h("p", null, h("strong", null, `Only A finds ${count(kinds.one.length)}, only B finds ${count(kinds.other.length)}`), ` of ${plural(compare.queries.length, "query").replace("querys", "queries")} on ${compare.split}; McNemar's ${pValue(p)}${p < 0.05 ? "" : ": inside the noise"}.`),
    h("div", { class: "split", "aria-hidden": "true" }, ...bar),
    h("ul", { class: "keys" }, ...keys),
  );
}

function key(kind) {
  const mark = h("i", { "aria-hidden": "true" });
  mark.style.background = { both: "var(--heat-high)", one: "var(--c0)", other: "var(--c1)", neither: "var(--soft)" }[kind];
  return mark;
}

function side(letter, queries, one, other) {
  const isPictured = (query) => compare.near[one]?.[query] && compare.near[other]?.[query];
  const pictured = queries.filter(isPictured);
  const rest = queries.filter((query) => !isPictured(query));
  const title = h("h3", null, `Only ${letter} finds (${count(queries.length)})`);
  if (!queries.length) return [title, h("p", { class: "note" }, "None.")];
  const shown = h("div", { class: "queries" }, ...pictured.map((query) => queryCard(query, one, other)));
  const list = rest.slice(0, MOST_LISTED).map((query) => h("li", null, queryName(query)));
  const summary = `${pictured.length ? "Without pictures: " : ""}${count(rest.length)} ${pictured.length ? "more" : "queries"}`;
  const more = rest.length > MOST_LISTED ? h("p", { class: "note" }, `… and ${count(rest.length - MOST_LISTED)} more`) : null;
  return [title, pictured.length ? shown : null, rest.length ? h("details", { open: pictured.length ? null : "" }, h("summary", null, summary), h("ul", null, ...list), more) : null].filter(Boolean);
}

function queryName(query) {
  const place = compare.queries[query];
  return place < 0 ? `query ${count(query + 1)}` : compare.names[place];
}

function queryCard(query, one, other) {
  const place = compare.queries[query];
  const self = h("figure", null, picture(place, ""), h("figcaption", null, compare.classes[compare.labels[place]]));
  return h("div", { class: "query" }, self, h("div", null, neighbours("A", one, query, place), neighbours("B", other, query, place)));
}

function neighbours(letter, method, query, asked) {
  const [rank, ...near] = compare.near[method][query];
  const told = rank === 1 ? "found" : rank ? `first right neighbour at rank ${count(rank)}` : "its code is zero";
  if (!near.length) return h("div", { class: "near" }, letter, h("p", null, `${told}; its neighbours were not recorded`));
  const isRight = (place) => compare.labels[place] === compare.labels[asked];
  return h("div", { class: "near", title: told }, letter, ...near.map((place) => h("figure", null, picture(place, isRight(place) ? "right" : "wrong"), h("figcaption", null, h("span", { class: `${isRight(place) ? "right" : "wrong"}-mark` }, isRight(place) ? "✓" : "✗"), ` ${short(compare.classes[compare.labels[place]], 12)}`))));
}

function picture(place, verdict) {
  const [name, source] = [compare.names[place], compare.pictures[place]];
  if (source) return h("img", { class: `picture ${verdict}`, src: source, alt: name, title: name, loading: "lazy" });
  return h("div", { class: `picture box ${verdict}`, title: name }, short(name.split("/").pop(), 28));
}

function compareNote() {
  const missing = jobs.filter((job) => job.state === "done").length - compare.compared;
  return [
    compare.share_homes ? "Queries of one home are not independent of each other, so McNemar's p is somewhat too sure." : "",
    missing ? `${plural(missing, "job")} ${missing === 1 ? "is" : "are"} not among the choices: other queries were asked, or there are too many to keep.` : "",
    "Pictures lie in this page for the pairs that are likely asked for, those that differ most first; the first few queries of each.",
    compare.left_out ? `${plural(compare.left_out, "picture")} did not fit and ${compare.left_out === 1 ? "is a box with its" : "are boxes with their"} name.` : "",
    compare.unreadable ? `${plural(compare.unreadable, "picture")} could not be read any more.` : "",
  ].filter(Boolean).join(" ");
}

// ---- theme

function setUpTheme() {
  const wish = matchMedia("(prefers-color-scheme: dark)");
  const set = (isDark) => {
    document.documentElement.dataset.theme = isDark ? "dark" : "light";
    byId("theme").setAttribute("aria-pressed", String(isDark));
  };
  set(wish.matches);
  wish.addEventListener("change", (event) => set(event.matches));
  byId("theme").addEventListener("click", () => set(document.documentElement.dataset.theme !== "dark"));
}

setUpTheme();
showHead();
setUpTable();
showFigures();
showClasses();
showCompare();
