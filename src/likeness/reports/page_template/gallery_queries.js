const MARKS = new Map([[true, ["right", "✓", "right"]], [false, ["wrong", "✗", "wrong"]], [null, ["", "", "without a class"]]]);

function showQueries() {
  view.found = chosen();
  byId("grid").replaceChildren();
  showMore();
  byId("shown").textContent = view.found.length ? `${count(view.found.length)} of ${count(every.length)} queries` : "No query is like that.";
  byId("clear").hidden = !isFiltered();
  markCell();
}

function showMore() {
  const grid = byId("grid");
  const { length } = grid.children;
  grid.append(...view.found.slice(length, length + AT_ONCE).map(queryCard));
  const left = view.found.length - grid.children.length;
  byId("more").hidden = !left;
  byId("more").textContent = `Show ${count(Math.min(AT_ONCE, left))} more of ${count(left)}`;
  return grid.children[length];
}

function queryCard(query) {
  const place = data.queries[query];
  const label = className(actualOf(query));
  const home = data.homes[place];
  const near = data.near[query].map((found, i) => neighbour(query, found, data.similarities[query][i]));
  return h(
    "li",
    { class: "card query" },
    h("figure", { class: "asked" }, pictureBox(data.pictures[place], data.names[place], `query ${data.names[place]}, ${label}`, ""), h("figcaption", null, h("b", { title: label }, label), home < 0 ? null : h("span", { title: data.home_names[home] }, data.home_names[home]))),
    near.length ? h("ol", { class: "near" }, ...near) : h("p", { class: "note" }, "Its code is zero: it finds nothing."),
    h("p", { class: "told" }, h("b", { class: isMiss(query) ? "wrong-mark" : "right-mark" }, rankSaid(query)), h("span", null, otherRanks(query)), h("span", { class: "path", title: data.names[place] }, data.names[place])),
  );
}

function rankSaid(query) {
  const rank = rankOf("head", query);
  if (rank === 1) return "✓ nearest is right";
  return rank ? `✗ first right one at rank ${count(rank)}` : "✗ no right one found";
}

const otherRanks = (query) => methods.slice(1).map((method) => `${method} ${rankOf(method, query) ? count(rankOf(method, query)) : NONE}`).join(" · ");

function neighbour(query, place, similarity) {
  const [verdict, mark, told] = MARKS.get(isRight(query, place));
  const label = className(data.labels[place]);
  const home = data.homes[place];
  const isSameHome = home >= 0 && home === data.homes[data.queries[query]];
  const shown = known(similarity) ? similarity.toFixed(2).replace("-", "−") : "";
  const alt = `${data.names[place]}, ${label}, ${told}, similarity ${shown}${isSameHome ? ", of the same home" : ""}`;
  return h(
    "li",
    null,
    pictureBox(data.pictures[place], data.names[place], alt, verdict),
    h("p", { class: "line" }, h("span", null, h("b", { class: verdict && `${verdict}-mark` }, mark), isSameHome ? h("b", { class: "home", title: `the same home, ${data.home_names[home]}` }, "\u00a0⌂") : null), h("span", null, shown)),
    h("p", { class: "label", title: label }, label),
  );
}

function option(value, label) {
  return h("option", { value }, short(label, 60));
}

function setUpQueries() {
  byId("actual").append(option("", "any"), ...data.classes.map((name, label) => option(label, name)));
  byId("taken").append(option("", "any"), ...data.classes.map((name, label) => option(label, name)), ...(data.confusion.some(([, taken]) => taken === NOTHING) ? [option(NOTHING, "nothing")] : []));
  const groups = [...new Set(OUTCOMES.map((outcome) => outcome.group))];
  byId("outcome").append(option("", "all"), ...groups.map((group) => h("optgroup", { label: group }, ...OUTCOMES.flatMap((outcome, i) => (outcome.group === group ? [option(i, outcome.label)] : [])))));
  byId("order").append(...Object.entries(ORDERS).map(([value, { label }]) => option(value, label)));
  for (const name of ["actual", "taken", "outcome", "order"]) byId(name).addEventListener("change", (event) => changed({ [name]: event.target.value }));
  byId("words").addEventListener("input", (event) => changed({ words: event.target.value.toLowerCase().split(/\s+/).filter(Boolean) }));
  byId("clear").addEventListener("click", () => { clear(); byId("actual").focus(); });
  byId("more").addEventListener("click", () => {
    const first = showMore();  // takes the focus: the button may be gone
    first.tabIndex = -1;
    first.focus({ preventScroll: true });
  });
  document.documentElement.style.setProperty("--shape", data.shape);
  byId("same-home").hidden = !data.home_names.length;
  byId("queries-note").textContent = queriesNote();
  showQueries();
}

function changed(values) {
  Object.assign(view, values);
  showQueries();
}

function clear(values) {
  changed({ actual: "", taken: "", outcome: "", words: [], ...values });
  for (const name of ["actual", "taken", "outcome"]) byId(name).value = view[name];
  byId("words").value = "";
}

function showPair(actual, taken) {
  clear({ actual: String(actual), taken: String(taken) });
  byId("queries").focus();
  byId("queries").scrollIntoView();
}

function queriesNote() {
  const { queries, pictures } = data.left_out;
  return [
    `Neighbours are the head's; of ${methods.slice(1).join(", ") || "other methods"} the rank of the first right one was recorded.`,
    queries ? `${plural(queries, "query").replace("querys", "queries")} more of this split are not listed here: mistakes come before hits, the classes in turn.` : "",
    pictures ? `${plural(pictures, "picture")} did not fit and ${pictures === 1 ? "is a box with its" : "are boxes with their"} name: four mistakes, the worst first, come before each hit drawn by chance, the classes in turn; most_mb= makes room.` : "",
    data.unreadable ? `${plural(data.unreadable, "picture")} could not be read any more in ${data.root}.` : "",
  ].filter(Boolean).join(" ");
}
