const MOST_LISTED = 200;
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
  return h("div", { class: "near", title: told }, letter, ...near.map((place) => h("figure", null, picture(place, isRight(place) ? "right" : "wrong"), h("figcaption", null, h("span", { class: `${isRight(place) ? "right" : "wrong"}-mark` }, isRight(place) ? "✓" : "✗"), ` ${compare.classes[compare.labels[place]]}`))));
}

const picture = (place, verdict) => pictureBox(compare.pictures[place], compare.names[place], compare.names[place], verdict);

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
