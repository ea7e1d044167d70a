const MOST_CLASSES = 30;

const cellOf = new Map(data.confusion.map(([actual, taken, number]) => [`${actual} ${taken}`, number]));
const cell = (actual, taken) => cellOf.get(`${actual} ${taken}`) || 0;

// Of many classes those that have most to do with mistakes.
function drawnClasses() {
  const mistakes = data.classes.map(() => 0);
  for (const [actual, taken, number] of data.confusion) {
    if (actual === taken) continue;
    if (actual !== NOTHING) mistakes[actual] += number;
    if (taken !== NOTHING) mistakes[taken] += number;
  }
  const places = [...mistakes.keys()];
  return places.sort((one, other) => mistakes[other] - mistakes[one]).slice(0, MOST_CLASSES).sort((one, other) => one - other);
}

function showClasses() {
  const drawn = drawnClasses();
  const columns = data.confusion.some(([, taken]) => taken === NOTHING) ? [...drawn, NOTHING] : drawn;
  const named = (taken) => (taken === NOTHING ? "nothing" : className(taken));
  byId("matrix").classList.toggle("tall", columns.length > 8);
  const heads = columns.map((taken) => h("th", { scope: "col", title: named(taken) }, h("span", null, short(named(taken), 24))));
  const most = Math.max(...drawn.flatMap((actual) => columns.filter((taken) => taken !== actual).map((taken) => share(actual, taken))), 0);
  byId("matrix").append(
    h("thead", null, h("tr", null, h("th", { scope: "col" }, "class"), h("th", { scope: "col", class: "number" }, "queries"), h("th", { scope: "col", class: "number" }, "hit@1"), h("td", null), ...heads)),
    h("tbody", null, ...drawn.map((actual) => classRow(actual, columns, most))),
  );
  const left = data.classes.length - drawn.length;
  byId("classes-note").textContent = left ? `Shown are the ${drawn.length} classes that have most to do with mistakes; ${count(left)} more are left out.` : "";
}

const share = (actual, taken) => cell(actual, taken) / (data.per_class[actual][0] || 1);

function classRow(actual, columns, most) {
  const [n, ...hits] = data.per_class[actual];
  return h(
    "tr",
    null,
    h("th", { scope: "row", title: className(actual) }, className(actual)),
    h("td", { class: "number" }, count(n)),
    h("td", { class: "number" }, percent(hits[0]), " ", h("small", null, between(hits))),
    h("td", { class: "interval" }, hits.every(known) ? h("div", { "aria-hidden": "true", "--value": hits[0], "--low": hits[1], "--high": hits[2] }) : null),
    ...columns.map((taken) => classCell(actual, taken, most)),
  );
}

function classCell(actual, taken, most) {
  const number = cell(actual, taken);
  if (!number) return h("td", { class: "none" }, "·");
  const isRight = actual === taken;
  const told = `${count(number)} queries of ${className(actual)} ${taken === NOTHING ? "find nothing" : `have a nearest neighbour of ${className(taken)}`}`;
  const shade = isRight ? share(actual, taken) : share(actual, taken) / most;
  return h("td", { class: isRight ? "kept" : "lost", "--t": shade.toFixed(3) }, h("button", { type: "button", "aria-label": told, title: told, "aria-pressed": "false", "data-cell": `${actual} ${taken}`, onclick: () => showPair(actual, taken) }, count(number)));
}

function markCell() {
  for (const button of document.querySelectorAll("[data-cell]")) button.setAttribute("aria-pressed", String(button.dataset.cell === `${view.actual} ${view.taken}`));
}
