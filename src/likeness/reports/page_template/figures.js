const MOST_AXES = 10;
const MOST_LABELS = 24;
const COLOURS = 7;

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

// Powers of the base; between few powers of ten two and five times each as well.
function logSteps(low, high, base) {
  const powers = [];
  for (let power = Math.floor(Math.log(low) / Math.log(base) - 1e-9); base ** power <= high * (1 + 1e-9); power++) powers.push(base ** power);
  const inside = (values) => values.filter((value) => value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9));
  const found = inside(powers);
  return base === 10 && found.length < 4 ? inside(powers.flatMap((power) => [power, 2 * power, 5 * power])) : found;
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

function tickText(value) {
  if (Math.abs(value) >= 1e6) return value.toExponential(0);
  return (Math.abs(value) >= 1000 ? Math.round(value) : Number(value.toPrecision(3))).toLocaleString("en-US", { maximumFractionDigits: 6 });
}

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
