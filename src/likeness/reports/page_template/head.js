function showHead() {
  document.title = `${data.title} · likeness`;
  byId("title").textContent = data.title;
  byId("made").textContent = `Made ${data.made} from ${data.folders.join(", ")}`;
  byId("summary").append(
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
