const AT_ONCE = 48;
const NOTHING = -1;

const every = data.queries.map((_, query) => query);
const methods = Object.keys(data.ranks);
const ks = data.measures.map((measure) => Number(measure.name.split("hit@")[1])).filter(Boolean);
const view = { actual: "", taken: "", outcome: "", order: "worst", words: [], found: [] };

const className = (label) => (label === NOTHING ? "unlabelled" : data.classes[label]);
const actualOf = (query) => data.labels[data.queries[query]];
const takenOf = (query) => (data.near[query].length ? data.labels[data.near[query][0]] : NOTHING);
const rankOf = (method, query) => data.ranks[method][query];
const finds = (method, query, k) => rankOf(method, query) > 0 && rankOf(method, query) <= k;
const isRight = (query, place) => (data.labels[place] === NOTHING ? null : data.labels[place] === actualOf(query));
const rightOnes = (query) => data.near[query].filter((place) => isRight(query, place)).length;

// What can be shown, by the group of the choice: head and baselines by themselves, then against each other.
const OUTCOMES = [
  ...methods.flatMap((method) => ks.map((k) => ({ group: method, label: `${method} misses at ${k}`, keeps: (query) => !finds(method, query, k) }))),
  ...methods.slice(1).flatMap((other) => [
    { group: `head against ${other}, at 1`, label: `head finds, ${other} misses`, keeps: (query) => finds("head", query, 1) && !finds(other, query, 1) },
    { group: `head against ${other}, at 1`, label: `${other} finds, head misses`, keeps: (query) => !finds("head", query, 1) && finds(other, query, 1) },
  ]),
];

// The data come worst first; sorting is stable, so that this decides among equals.
const by = (...values) => (one, other) => values.map((value) => value(one) - value(other)).find(Boolean) || 0;
const surest = (query) => -(data.similarities[query][0] ?? -2);
const isMiss = (query) => !finds("head", query, 1);
const ORDERS = {
  worst: { label: "worst first", compare: () => 0 },
  best: { label: "best first", compare: by((query) => rankOf("head", query) || Infinity, (query) => -rightOnes(query), surest) },
  sure: { label: "surest mistakes first", compare: by((query) => !isMiss(query), surest) },
  path: { label: "by path", compare: (one, other) => data.names[data.queries[one]].localeCompare(data.names[data.queries[other]], "en", { numeric: true }) },
};

const lowerNames = data.queries.map((place) => data.names[place].toLowerCase());
function isKept(query) {
  return (
    (view.actual === "" || actualOf(query) === Number(view.actual)) &&
    (view.taken === "" || takenOf(query) === Number(view.taken)) &&
    (view.outcome === "" || OUTCOMES[view.outcome].keeps(query)) &&
    view.words.every((word) => lowerNames[query].includes(word))
  );
}
const chosen = () => every.filter(isKept).sort(ORDERS[view.order].compare);
const isFiltered = () => view.actual !== "" || view.taken !== "" || view.outcome !== "" || view.words.length > 0;
