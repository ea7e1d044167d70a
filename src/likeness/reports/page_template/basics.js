"use strict";
// Text only ever becomes text nodes: names and errors come from files.
const data = JSON.parse(document.getElementById("content").textContent);
const byId = (id) => document.getElementById(id);
const NONE = "–";
const SVG = byId("svg").namespaceURI;

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

const figure = (label, value, below, unit = "") =>
  h("div", null, h("dt", null, label), h("dd", null, h("b", null, value, h("span", { class: "unit" }, unit)), h("span", { class: "between" }, below)));

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
