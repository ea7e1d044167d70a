const FIRST_ROWS = 40;

const headItems = data.heads.map((head, place) => ({ ...head, head: place, kids: head.jobs.length > 1 ? head.jobs : null, job: head.jobs[0] }));
const otherItems = jobs.map((job, place) => ({ ...job, job: place, kids: null, head: null })).filter((item) => !headOf.has(item.job));
const items = [...headItems, ...otherItems];

const valued = (key) => ({ value: (item) => item[key]?.[0], cell: (item) => [percent(item[key]?.[0]), h("span", { class: "between" }, between(item[key] || []))] });
const gained = (key) => ({ value: (item) => item[key]?.[0], cell: (item) => gainCell(item[key] || []) });
const counted = (key, shown = count) => ({ value: (item) => item[key], cell: (item) => [shown(item[key])] });

function gainCell(gain) {
  const kind = kindOf(gain);
  const arrow = { better: "▲ ", worse: "▼ " }[kind] || "";
  if (!known(gain[0])) return [NONE];
  return [h("small", null, `${pValue(gain[3])} `), h("span", { class: `mark ${kind}` }, arrow + points(gain[0])), h("span", { class: "between" }, spread(gain))];
}

const COLUMNS = [
  ...data.options.map((option, i) => ({ id: `option ${i}`, label: option.label, title: option.name, class: "option", value: (item) => jobs[item.job].options[i], cell: (item) => [jobs[item.job].options[i]] })),
  ...(hasSeeds ? [{ id: "seed", label: "seed", class: "option", value: (item) => (item.kids ? item.kids.length : jobs[item.job].seed), cell: (item) => [item.kids ? `${item.kids.length}\u00a0seeds` : (jobs[item.job].seed ?? NONE)] }] : []),
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
  const names = item.kids.map((place) => jobs[place].name).join(", ");
  const turn = () => {
    if (!view.open.delete(item.head)) view.open.add(item.head);
    showTable();
    document.querySelector(`[data-head="${item.head}"]`).focus();
  };
  return h("button", { type: "button", class: "fold", "data-head": item.head, "aria-expanded": String(isOpen), "aria-label": `${plural(item.kids.length, "job")}, ${described(jobs[item.job])}`, onclick: turn }, names.length > 16 ? `${jobs[item.job].name} +${item.kids.length - 1}` : names);
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
  byId("states").hidden = states.length <= 2;
  byId("states").append(...states.map(chip));
  byId("more").addEventListener("click", () => { view.all = true; showTable(); });
  byId("unbrush").addEventListener("click", () => { view.values.clear(); view.floor = view.ceiling = null; brushed(); byId("filter").focus(); });
  const seeds = hasSeeds ? "A row that opens is a head over its seeds: means with Student's intervals, gains of hits averaged over the seeds. " : "";
  byId("table-note").textContent = `${seeds}Percent and points with 95 % intervals; gains are on test, paired query by query. ▲ and ▼ are beyond the noise: the interval leaves zero out and p${data.counts.heads > 1 ? `, adjusted for ${count(data.counts.heads)} heads (Holm; not in the rows of single seeds),` : ""} is below 0.05.`;
  showTable();
}
