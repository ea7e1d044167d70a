const MOST_PAIRS = 6;

function showHead() {
  document.title = `${data.title} · gallery · likeness`;
  byId("title").textContent = data.title;
  byId("made").textContent = `Made ${data.made} from ${data.folder}`;
  const seed = data.seeds > 1 ? [["seed", `${data.seed}, the first of ${data.seeds}`]] : [];
  const facts = [["head", `${data.backbone} → ${data.head}`], ["split", data.split], ["queries", count(data.n)], ["skipped", count(data.skipped)], ...seed];
  byId("summary").append(...facts.map(([label, value]) => h("div", null, h("dt", null, label), h("dd", null, value))));
  byId("overview").append(scoreCard(), pairsCard());
}

function scoreCard() {
  const kinds = Object.values(data.gains).map(kindOf);
  const tone = ["worse", "noise", "unknown", "better"].find((kind) => kinds.includes(kind));
  return h(
    "div",
    { class: `card winner ${tone}` },
    h("p", { class: "eyebrow" }, `What the head finds in ${data.split}`),
    h("dl", { class: "figures" }, ...data.measures.map(measured)),
    h("p", { class: "verdict" }, `On hit@1 ${data.verdict[0].toLowerCase()}${data.verdict.slice(1)}`),
    h("p", { class: "note" }, scoreNote()),
  );
}

function measured(measure) {
  const beside = (label, value, interval) => h("span", { class: "beside" }, h("span", null, label), h("span", null, value), h("span", null, interval));
  const node = figure(measure.name, percent(measure.head[0]), between(measure.head), " %");
  const { frozen, gain, chance } = measure;
  const kind = kindOf(gain);
  const gained = h("span", { class: `mark ${kind}`, title: pValue(gain[3]) }, `${{ better: "▲", worse: "▼" }[kind] || ""}\u00a0${points(gain[0])}`);
  node.append(h("dd", null, beside("frozen", percent(frozen[0]), between(frozen)), beside("gain", gained, spread(gain)), known(chance) ? beside("chance", percent(chance), "") : null));
  return node;
}

function scoreNote() {
  const skipped = data.skipped ? ` ${count(data.skipped)} more have no picture of their class to find and are left out.` : "";
  const pca = data.gains.pca;
  const over = known(pca[0]) ? ` Over PCA hit@1 is ${points(pca[0])} points ${spread(pca)}, ${pValue(pca[3]).replaceAll(" ", "\u00a0")}.` : "";
  return `${count(data.n)} queries.${skipped} Intervals are of 95 %; gains are over the frozen features in points, paired query by query, ▲ and ▼ beyond the noise.${over}`;
}

function pairsCard() {
  const mistakes = data.confusion.filter(([actual, taken]) => actual !== taken).sort((one, other) => other[2] - one[2]);
  const all = new Map();
  for (const [actual, , number] of data.confusion) all.set(actual, (all.get(actual) || 0) + number);
  const said = (taken) => (taken === NOTHING ? " finds nothing" : [" taken for ", h("b", null, className(taken))]);
  const pair = ([actual, taken, number]) =>
    h("li", null, h("button", { type: "button", class: "pair-button", onclick: () => showPair(actual, taken) }, h("span", null, h("b", null, className(actual)), said(taken)), h("span", { class: "number" }, count(number), h("small", null, ` of ${count(all.get(actual))}`))));
  const total = mistakes.reduce((sum, [, , number]) => sum + number, 0);
  return h(
    "div",
    { class: "card" },
    h("p", { class: "eyebrow" }, "What it takes for what"),
    mistakes.length ? h("ol", { class: "pairs" }, ...mistakes.slice(0, MOST_PAIRS).map(pair)) : h("p", null, "The nearest neighbour is right for every query."),
    h("p", { class: "note" }, mistakes.length ? `${count(total)} of ${count(data.n)} nearest neighbours are of another class, in ${count(mistakes.length)} ${mistakes.length === 1 ? "pair" : "pairs"} of classes.` : ""),
  );
}
