// The live page: receives a run's events and draws them.
//
// Model output is shown as text nodes only. Nothing in this file parses text as HTML, and the
// content security policy would block injected scripts. Parts, in order: elements and
// numbers; curves; charts; the head of the page; rollouts in flight; finished rollouts; events.
"use strict";

// ---------------------------------------------------------------- elements and numbers

const byId = (id) => document.getElementById(id);

/** Creates an element with attributes and children; strings become text nodes. */
function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  return fill(element, attributes, children);
}

/** The same for SVG elements. */
function draw(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const present = (value) => value !== null && value !== undefined;

/** Formats a number with three significant digits, "–" for none. */
function number(value) {
  if (!present(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  if (size < 0.001) return value.toExponential(1);
  return String(Number(value.toPrecision(3)));
}

/** Formats a reward, credit or advantage with a fixed number of decimals, so that columns align. */
function decimal(value, sign = false) {
  if (!present(value)) return "–";
  const text = Math.abs(value) >= 1000 ? number(value) : value.toFixed(3);
  return (sign && value > 0 ? "+" : "") + text.replace("-", "−");
}

const counted = (count, one) => `${count.toLocaleString("en")} ${one}${count === 1 ? "" : "s"}`;

function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  if (seconds < 9.95) return `${Math.max(0, seconds).toFixed(1)} s`;
  if (h > 0) return `${h} h ${String(m).padStart(2, "0")} min`;
  return m > 0 ? `${m} min ${String(s).padStart(2, "0")} s` : `${s} s`;
}

// ---------------------------------------------------------------- curves

/** Maximum points per curve, as on the server (`MOST_POINTS`). */
const MOST_POINTS = 1024;

const newCurve = () => ({ width: 1, points: [] });

/** Merges two neighbouring points, like the server's `Point::merge`. */
function merged(a, b) {
  const mean = (x, y) => (present(x) && present(y) ? (x * a.n + y * b.n) / (a.n + b.n) : x ?? y);
  const either = (x, y, choose) => (present(x) && present(y) ? choose(x, y) : x ?? y);
  return {
    from: Math.min(a.from, b.from), to: Math.max(a.to, b.to), n: a.n + b.n,
    reward: mean(a.reward, b.reward),
    low: either(a.low, b.low, Math.min), high: either(a.high, b.high, Math.max),
    rollouts: a.rollouts + b.rollouts, missing: a.missing + b.missing,
    tokens_per_second: mean(a.tokens_per_second, b.tokens_per_second),
    rollouts_per_second: mean(a.rollouts_per_second, b.rollouts_per_second),
  };
}

/** Adds a point; a long curve is halved, so that drawing stays fast. */
function push(curve, point) {
  const last = curve.points.at(-1);
  if (last && last.n < curve.width) curve.points[curve.points.length - 1] = merged(last, point);
  else curve.points.push(point);
  if (curve.points.length <= MOST_POINTS) return;
  const halved = [];
  for (let i = 0; i < curve.points.length; i += 2) {
    const [a, b] = [curve.points[i], curve.points[i + 1]];
    halved.push(b ? merged(a, b) : a);
  }
  curve.points = halved;
  curve.width *= 2;
}

/** Centred mean over `reach` neighbours on each side; fewer at the ends. */
function smoothed(places, reach) {
  const sums = [0];
  for (const place of places) sums.push(sums.at(-1) + place.y);
  return places.map((place, i) => {
    const side = Math.min(reach, i, places.length - 1 - i);
    return { ...place, y: (sums[i + side + 1] - sums[i - side]) / (2 * side + 1) };
  });
}

// ---------------------------------------------------------------- charts

/** Round numbers between `low` and `high`, about `count` of them. */
function ticks(low, high, count) {
  const raw = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) {
    found.push(Number((i * step).toPrecision(12)));
  }
  return found;
}

/**
 * A chart of curves over steps. `series` are {name, style, kind, curve, value}: `kind` "train"
 * is a line that is smoothed, "eval" a line with marks. A pointer or the arrow keys read single
 * points, shown as text below the chart.
 */
class Chart {
  constructor(place, { title, label, height, describe, hint }) {
    Object.assign(this, { title, label, height, describe, hint, series: [], at: null, asked: false });
    this.legend = make("ul", { class: "legend" });
    this.plot = make("div", { class: "plot", tabindex: "0", role: "group" });
    this.readout = make("output", { class: "readout", "aria-live": "polite" });
    this.empty = make("p", { class: "empty" }, "No step is finished yet.");
    place.append(make("h3", {}, title), this.legend, this.empty, this.plot, this.readout);
    this.plot.addEventListener("pointermove", (event) => this.point(event));
    this.plot.addEventListener("pointerdown", (event) => this.point(event));
    this.plot.addEventListener("pointerleave", () => this.move(null));
    this.plot.addEventListener("blur", () => this.move(null));
    this.plot.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.ask()).observe(place);
  }

  show(series) {
    this.series = series;
    this.ask();
  }

  /** Schedules one redraw before the next frame. */
  ask() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      this.paint();
    });
  }

  paint() {
    const drawn = this.series
      .map((series) => ({ ...series, places: this.places(series) }))
      .filter((series) => series.places.length > 0);
    this.drawn = drawn;
    this.empty.hidden = drawn.length > 0;
    this.plot.hidden = this.readout.hidden = this.legend.hidden = drawn.length === 0;
    if (drawn.length === 0) return;
    const keys = this.describe ? drawn.map(key) : [];
    const faint = this.describe && drawn.find((series) => reachOf(series) > 0);
    if (faint) {
      const { width } = faint.curve;
      const name = width === 1 ? "Its single steps" : `Its means of ${width} steps`;
      keys.splice(1, 0, key({ name, style: "train", kind: "steps" }));
    }
    if (this.describe && drawn.some(hasBand)) {
      keys.splice(1, 0, key({ name: "Its lowest to highest steps", style: "train", kind: "band" }));
    }
    this.legend.replaceChildren(...keys);
    const width = Math.max(220, this.plot.clientWidth);
    const frame = this.frame(drawn, width);
    const svg = draw("svg", {
      viewBox: `0 0 ${width} ${this.height}`, height: this.height, "aria-hidden": "true",
    });
    this.axes(svg, frame);
    for (const series of drawn) this.curve(svg, series, frame);
    this.svg = svg;
    this.geometry = frame;
    this.plot.replaceChildren(svg);
    this.plot.setAttribute("aria-label", `${this.title}. ${this.summary(drawn)} ` +
      "The left and right arrow keys read single points.");
    this.move(this.at);
  }

  /** Positions of the points: x is the middle of their steps. */
  places({ curve, value }) {
    return curve.points
      .filter((point) => present(value(point)))
      .map((point) => ({ x: (point.from + point.to) / 2, y: value(point), point }));
  }

  frame(drawn, width) {
    const all = drawn.flatMap((series) => series.places);
    // Only rewards have a band.
    const lowest = (p) => (this.describe ? p.point.low ?? p.y : p.y);
    const highest = (p) => (this.describe ? p.point.high ?? p.y : p.y);
    const low = Math.min(0, ...all.map(lowest));
    const high = Math.max(...all.map(highest), low + 1e-9);
    const rows = ticks(low, high + (high - low) * 0.04, 4);
    const gap = rows.length > 1 ? rows[1] - rows[0] : 1;
    const top = rows.at(-1) < high ? rows.at(-1) + gap : rows.at(-1);
    if (top > rows.at(-1)) rows.push(Number(top.toPrecision(12)));
    if (low < rows[0]) rows.unshift(Number((rows[0] - gap).toPrecision(12)));
    const bottom = rows[0];
    const first = Math.min(...all.map((p) => p.point.from));
    const last = Math.max(...all.map((p) => p.point.to), first + 1);
    const left = 14 + 7 * Math.max(...rows.map((row) => number(row).length));
    const box = { left, right: width - 10, top: 24, bottom: this.height - 26 };
    return {
      ...box, rows, first, last, low: bottom, high: top,
      x: (step) => box.left + ((step - first) / (last - first)) * (box.right - box.left),
      y: (value) => box.bottom - ((value - bottom) / (top - bottom)) * (box.bottom - box.top),
    };
  }

  axes(svg, frame) {
    const { left, right, top, bottom } = frame;
    for (const row of frame.rows) {
      const y = frame.y(row);
      svg.append(
        draw("line", { class: "gridline", x1: left, x2: right, y1: y, y2: y }),
        draw("text", { x: left - 7, y: y + 4, "text-anchor": "end" }, number(row)),
      );
    }
    const columns = ticks(frame.first, frame.last, Math.min(8, (right - left) / 80))
      .filter((step) => Number.isInteger(step));
    // A digit is about 7 wide. The last step leaves space for the axis' name.
    const name = `Step ${frame.last.toLocaleString("en")}`;
    const free = right - 7 * name.length - 10;
    for (const step of columns) {
      const words = step.toLocaleString("en");
      if (frame.x(step) + 3.5 * words.length > free) continue;
      svg.append(draw("text", { x: frame.x(step), y: bottom + 18, "text-anchor": "middle" }, words));
    }
    svg.append(
      draw("text", { x: 0, y: 12 }, this.label),
      draw("text", { x: right, y: bottom + 18, "text-anchor": "end" }, name),
    );
    svg.append(draw("line", { class: "gridline", x1: left, x2: left, y1: top, y2: bottom }));
  }

  curve(svg, { style, kind, places }, frame) {
    const group = draw("g", { class: style });
    const path = (list) => list
      .map((p, i) => `${i ? "L" : "M"}${frame.x(p.x).toFixed(1)} ${frame.y(p.y).toFixed(1)}`).join("");
    if (kind === "train") {
      // Merged points: the minimum and maximum of each.
      if (this.describe && hasBand({ kind, places })) {
        const edge = (name) => places.map((p) => ({ x: p.x, y: p.point[name] ?? p.y }));
        const [lows, highs] = [edge("low"), edge("high").reverse()];
        group.append(draw("path", { class: "band", d: `${path(lows)}${path(highs).replace("M", "L")}Z` }));
      }
      const reach = reachOf({ kind, places });
      if (reach > 0) group.append(draw("path", { class: "line faint", d: path(places) }));
      group.append(draw("path", { class: "line", d: path(smoothed(places, reach)) }));
      if (places.length === 1) group.append(mark("train", frame.x(places[0].x), frame.y(places[0].y)));
    } else {
      group.append(draw("path", { class: style === "greedy" ? "line dashed" : "line", d: path(places) }));
      if (places.length <= 80) {
        for (const p of places) group.append(mark(style, frame.x(p.x), frame.y(p.y)));
      }
    }
    svg.append(group);
  }

  summary(drawn) {
    return drawn.map(({ name, places }) => {
      const last = places.at(-1);
      return `${name}: ${number(places[0].y)} first, ${number(last.y)} at step ${last.point.to}.`;
    }).join(" ");
  }

  /** All steps that have points, ascending. */
  stops() {
    return [...new Set(this.drawn.flatMap((s) => s.places.map((p) => p.x)))].sort((a, b) => a - b);
  }

  point(event) {
    if (!this.geometry) return;
    const box = this.plot.getBoundingClientRect();
    const { left, right, first, last } = this.geometry;
    const wanted = first + ((event.clientX - box.left - left) / (right - left)) * (last - first);
    const near = (a, b) => (Math.abs(b - wanted) < Math.abs(a - wanted) ? b : a);
    this.move(this.stops().reduce(near));
  }

  key(event) {
    if (!this.drawn || this.drawn.length === 0) return;
    const stops = this.stops();
    const here = this.at === null ? stops.length : stops.findIndex((x) => x >= this.at);
    const jump = Math.max(1, Math.round(stops.length / 20));
    const to = {
      ArrowLeft: here - 1, ArrowRight: here + 1, PageDown: here - jump, PageUp: here + jump,
      Home: 0, End: stops.length - 1,
    }[event.key];
    if (event.key === "Escape") this.move(null);
    if (to === undefined) return;
    event.preventDefault();
    this.move(stops[Math.min(stops.length - 1, Math.max(0, to))]);
  }

  /** Moves the cursor to a step, or removes it. */
  move(at) {
    this.at = at;
    this.svg?.querySelectorAll(".over").forEach((element) => element.remove());
    if (at === null || !this.geometry) {
      this.readout.textContent = this.hint ?? "";
      return;
    }
    const { x, y, top, bottom } = this.geometry;
    this.svg.append(draw("line", { class: "over cursor", x1: x(at), x2: x(at), y1: top, y2: bottom }));
    const words = [];
    let steps = null;
    for (const series of this.drawn) {
      const place = series.places.find((p) => p.x === at);
      if (!place) continue;
      const { from, to } = place.point;
      steps = steps ?? (from === to ? `Step ${from}` : `Steps ${from} to ${to}`);
      words.push(`${series.name.toLowerCase()} ${number(place.y)}` + (series.more?.(place.point) ?? ""));
      const over = draw("g", { class: `over ${series.style}` });
      over.append(mark(series.style, x(at), y(place.y)));
      this.svg.append(over);
    }
    this.readout.textContent = steps ? `${steps}: ${words.join("; ")}` : "";
  }
}

/** Smoothing half-width of a training curve, as in reports: none in short runs. */
function reachOf({ kind, places }) {
  if (kind !== "train" || places.length < 30) return 0;
  return Math.min(25, Math.max(1, Math.floor(places.length / 40)));
}

/** Whether points cover several steps, whose range is drawn as a band. */
function hasBand({ kind, places }) {
  return kind === "train" && places.some((p) => p.point.n > 1 && present(p.point.low));
}

/** The mark of a series: a circle, or a square, so that colour is not needed. */
function mark(style, x, y) {
  return style === "greedy"
    ? draw("rect", { class: "mark", x: x - 3.5, y: y - 3.5, width: 7, height: 7 })
    : draw("circle", { class: "mark", cx: x, cy: y, r: 3.7 });
}

/** A legend entry of a series. */
function key({ name, style, kind }) {
  const line = kind === "steps" ? "line faint" : style === "greedy" ? "line dashed" : "line";
  const picture = draw("svg", { class: style, viewBox: "0 0 28 12", "aria-hidden": "true" },
    kind === "band" ? draw("rect", { class: "band", x: 1, y: 0, width: 26, height: 12 })
      : draw("path", { class: line, d: "M1 6H27" }));
  if (kind === "eval") picture.append(mark(style, 14, 6));
  return make("li", {}, picture, name);
}

// ---------------------------------------------------------------- page header

const run = {
  card: { name: "", steps: 0, facts: [] }, status: { state: "starting" }, train: newCurve(),
  evals: {}, flight: null, step: 0, firstStep: 0, startedAt: 0, ended: null,
};

const STATES = {
  starting: ["Starting", ""], running: ["Running", ""], finished: ["Finished", "good"],
  failed: ["Failed", "bad"],
};

const isOver = () => run.status.state === "finished" || run.status.state === "failed";

const EVAL_NAMES = { sampled: "Evaluation, sampled", greedy: "Evaluation, greedy" };
const evalName = (mode) => EVAL_NAMES[mode] ?? `Evaluation, ${mode}`;

const charts = {
  reward: new Chart(byId("reward"), {
    title: "Mean reward by step", label: "Reward", height: 300, describe: true,
    hint: "Point at the chart, or use the arrow keys in it, to read single steps.",
  }),
  tokens: new Chart(byId("tokens"), {
    title: "Generated tokens", label: "Tokens per second", height: 190,
  }),
  rollouts: new Chart(byId("rollouts"), {
    title: "Rollouts", label: "Rollouts per second", height: 190,
  }),
};

function paintCharts() {
  const outOf = (what) => (point) => ` (${counted(point.rollouts, what)}` +
    (point.missing ? `, ${point.missing} without reward)` : ")");
  const reward = (point) => point.reward;
  const series = [{
    name: "Training", style: "train", kind: "train", curve: run.train, value: reward, more: outOf("rollout"),
  }];
  for (const mode of Object.keys(run.evals).sort().reverse()) {
    series.push({
      name: evalName(mode), style: mode === "greedy" ? "greedy" : "sampled", kind: "eval",
      curve: run.evals[mode], value: reward, more: outOf("task"),
    });
  }
  charts.reward.show(series);
  const rate = (name, value) => [{ name, style: "train", kind: "train", curve: run.train, value }];
  charts.tokens.show(rate("Tokens per second", (point) => point.tokens_per_second));
  charts.rollouts.show(rate("Rollouts per second", (point) => point.rollouts_per_second));
}

/** The latest value of a curve, and its step. */
function latest(curve, value) {
  const point = curve?.points.findLast((p) => present(value(p)));
  return point ? [value(point), `step ${point.to.toLocaleString("en")}`] : [null, ""];
}

function paintHead() {
  const [word, tone] = STATES[run.status.state] ?? [run.status.state, ""];
  const status = byId("status");
  if (status.textContent !== word) status.textContent = word;
  status.className = `pill ${tone}`;
  byId("name").textContent = run.card.name || "Leyden";
  byId("facts").textContent = run.card.facts.map(([name, value]) => `${name} ${value}`).join(" · ");
  const { steps } = run.card;
  const bar = byId("progress");
  bar.hidden = steps === 0;
  bar.max = Math.max(1, steps);
  bar.value = run.step;
  bar.textContent = `${run.step} of ${steps} steps`;
  paintTiles();
  paintClock();
  const [reward] = latest(run.train, (p) => p.reward);
  document.title = [steps ? `${run.step}/${steps}` : "", present(reward) ? number(reward) : "",
    run.card.name || "Leyden"].filter(Boolean).join(" · ");
}

function paintTiles() {
  const modes = Object.keys(run.evals).sort().reverse();
  const tokens = (p) => p.tokens_per_second;
  const flight = run.flight;
  const tiles = [["Training reward", ...latest(run.train, (p) => p.reward), decimal]];
  for (const mode of modes) {
    tiles.push([`${evalName(mode)}`, ...latest(run.evals[mode], (p) => p.reward), decimal]);
  }
  const live = flight && flight.generated_tokens > 0 && present(flight.tokens_per_second);
  tiles.push(
    live ? ["Tokens per second", flight.tokens_per_second, "generating now", number]
      : ["Tokens per second", ...latest(run.train, tokens), number],
    ["Rollouts per second", ...latest(run.train, (p) => p.rollouts_per_second), number],
    ["In flight", flight ? flight.rollouts - flight.ended : 0, flight ? `of ${number(flight.rollouts)}` : "", number],
    ["Queue", flight ? flight.queued : 0, "requests waiting", number],
  );
  byId("tiles").replaceChildren(...tiles.map(([name, value, note, format]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, format(value)),
      make("dd", { class: "note" }, note || "\u00a0"))));
}

function paintClock() {
  const { steps } = run.card;
  const words = [];
  if (steps) words.push(`Step ${run.step.toLocaleString("en")} of ${steps.toLocaleString("en")}`);
  if (run.startedAt) {
    const elapsed = ((run.ended ?? Date.now()) - run.startedAt) / 1000;
    words.push(run.firstStep === 0 ? duration(elapsed)
      : `${duration(elapsed)} since it went on at step ${run.firstStep.toLocaleString("en")}`);
    const done = run.step - run.firstStep;
    if (!isOver() && steps > run.step && done > 0) {
      words.push(`about ${duration(((steps - run.step) * elapsed) / done)} left`);
    }
  }
  byId("progress-words").textContent = words.join(" · ");
}

// ---------------------------------------------------------------- rollouts in flight

/** State, name, style, and name in a table. */
const FLIGHT_STATES = [
  ["generating", "Generating", "train", "Generating"],
  ["queued", "Waiting for the engine", "sampled", "Waiting"],
  ["agent", "Agent or tools at work", "greedy", "Agent"],
  ["ended", "Ended", "idle", "Ended"],
];

function paintFlight() {
  const flight = run.flight;
  const body = byId("flight-body");
  const words = byId("flight-words");
  body.classList.toggle("past", !flight);
  if (!flight) {
    // Between two steps the last state stays visible, faded, so that the content below does not
    // jump.
    if (isOver()) body.hidden = true;
    words.textContent = isOver() ? "None: the run is over."
      : body.hidden ? "None yet." : "None: the step has ended.";
    return;
  }
  body.hidden = flight.rollouts === 0;
  const rate = present(flight.tokens_per_second) ? ` (${number(flight.tokens_per_second)} per second)` : "";
  words.textContent = `Step ${flight.step.toLocaleString("en")}, ${phaseName(flight.phase).toLowerCase()}: ` +
    `${counted(flight.rollouts, "rollout")}, ${duration(flight.seconds)}, ` +
    `${counted(flight.generated_tokens, "token")}${rate}.` +
    (flight.ended === flight.rollouts && flight.phase === "train" ? " All have ended; the update follows." : "");
  paintFlightBar(flight);
  const rows = flight.rows.map((row) => {
    const [, , style, name] = FLIGHT_STATES.find(([state]) => state === row.state) ?? ["", "", "idle", row.state];
    return make("tr", {}, make("td", { class: "number" }, String(row.id)), make("td", { class: "task" }, row.task_id),
      make("td", { class: `state ${style}` }, make("span", {}, name)),
      make("td", { class: "number" }, String(row.calls)));
  });
  byId("flight").tBodies[0].replaceChildren(...rows);
  const rest = byId("flight-rest");
  rest.hidden = flight.rollouts <= flight.rows.length;
  rest.textContent = `${counted(flight.rollouts - flight.rows.length, "further rollout")}, not listed.`;
}

function paintFlightBar(flight) {
  const bar = draw("svg", { class: "bar", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" });
  const legend = make("ul", { class: "legend" });
  let x = 0;
  for (const [state, name, style] of FLIGHT_STATES) {
    const width = (100 * flight[state]) / Math.max(1, flight.rollouts);
    bar.append(draw("rect", { class: style, x, y: 0, width, height: 10 }));
    x += width;
    const swatch = draw("svg", { class: style, viewBox: "0 0 28 12", "aria-hidden": "true" },
      draw("rect", { x: 8, y: 0, width: 12, height: 12, rx: 3 }));
    legend.append(make("li", {}, swatch, `${name}: ${flight[state].toLocaleString("en")}`));
  }
  byId("flight-bar").replaceChildren(bar, legend);
}

// ---------------------------------------------------------------- finished rollouts

const PHASES = { train: "Training", sampled: "Evaluation, sampled", greedy: "Evaluation, greedy" };
const phaseName = (phase) => PHASES[phase] ?? phase;

/** The current listing, and the open rollout. */
const shelf = {
  follow: true, phase: null, step: null, listing: null, open: null, asked: 0, stale: false, timer: null,
};

async function ask(address) {
  const response = await fetch(address, { headers: { accept: "application/json" } });
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.error ?? `the server answered ${response.status}`);
  return body;
}

function trouble(error) {
  return error instanceof TypeError
    ? "The server does not answer; what is not on this page already cannot be shown."
    : `This cannot be shown: ${error.message}`;
}

/** Requests the list; `offset` continues the current one. */
async function loadList(offset = 0) {
  const turn = ++shelf.asked;
  const query = new URLSearchParams();
  if (shelf.phase !== null) query.set("phase", shelf.phase);
  if (!shelf.follow && shelf.step !== null) query.set("step", shelf.step);
  if (offset) query.set("offset", offset);
  try {
    const listing = await ask(`rollouts?${query}`);
    if (turn !== shelf.asked) return;
    const before = shelf.listing;
    if (offset) listing.rows = [...before.rows, ...listing.rows];
    else if (before?.step === listing.step && before.phase === listing.phase) {
      // More rows of the same step may be shown than the first response contains.
      listing.rows = [...listing.rows, ...before.rows.slice(listing.rows.length)];
    }
    shelf.listing = listing;
    if (shelf.follow) shelf.step = listing.step;
    paintList();
  } catch (error) {
    if (turn === shelf.asked) byId("list-words").textContent = trouble(error);
  }
}

/** Whether a new step changes the listing: its rows, or the existence of a later step. */
const listFollows = () => shelf.follow || !present(shelf.listing?.later);

/** Refreshes the list after a step, at most twice a second. */
function listIsStale() {
  shelf.stale = true;
  if (shelf.timer !== null || !listFollows()) return;
  const look = () => {
    shelf.timer = null;
    if (!shelf.stale || !listFollows()) return;
    shelf.stale = false;
    loadList();
    shelf.timer = setTimeout(look, 500);
  };
  look();
}

function paintList() {
  const { listing } = shelf;
  const nothing = !present(listing.step);
  byId("list-body").hidden = nothing || listing.rows.length === 0;
  paintWhere();
  if (nothing) {
    byId("list-words").textContent = "None yet: they appear when their step or evaluation ends.";
    return;
  }
  byId("list-words").textContent = listing.total === 0
    ? `No rollouts of this phase at step ${listing.step}.`
    : `${phaseName(listing.phase)}, step ${listing.step.toLocaleString("en")}: ${counted(listing.total, "rollout")}.`;
  const focused = document.activeElement?.dataset?.rollout;
  // A line between groups, if there are any.
  const groups = new Set(listing.rows.map((row) => row.group));
  const grouped = groups.size < listing.rows.length;
  const rows = listing.rows.map((row, i) =>
    listRow(row, grouped && i > 0 && listing.rows[i - 1].group !== row.group));
  const body = byId("list").tBodies[0];
  body.replaceChildren(...rows);
  if (focused) body.querySelector(`[data-rollout="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  byId("more").hidden = listing.rows.length >= listing.total;
}

function listRow(row, rule) {
  const { step, phase } = shelf.listing;
  const open = shelf.open && shelf.open.step === step && shelf.open.phase === phase && shelf.open.id === row.id;
  const button = make("button", {
    type: "button", "data-rollout": row.id, "aria-label": `Show rollout ${row.id}, task ${row.task_id}`,
  }, String(row.id));
  button.addEventListener("click", () => {
    location.hash = `rollout/${step}/${encodeURIComponent(phase)}/${row.id}`;
  });
  return make("tr", { class: rule ? "rule" : null, "aria-selected": open ? "true" : null },
    make("td", { class: "number" }, button), make("td", { class: "task" }, row.task_id),
    make("td", { class: "number", title: row.missing }, present(row.reward) ? decimal(row.reward) : "none"),
    make("td", { class: "number" }, String(row.calls)), make("td", { class: "number roomy" }, String(row.signals)),
    make("td", { class: "wide answer" }, row.answer ?? "–"));
}

function paintWhere() {
  const { listing } = shelf;
  const select = byId("phase");
  const known = [...select.options].map((option) => option.value).join();
  if (known !== listing.phases.join()) {
    select.replaceChildren(...listing.phases.map((phase) => make("option", { value: phase }, phaseName(phase))));
  }
  select.value = listing.phase ?? "";
  const step = byId("step");
  if (document.activeElement !== step) step.value = listing.step ?? "";
  byId("earlier").disabled = !present(listing.earlier);
  byId("later").disabled = !present(listing.later);
  byId("follow").setAttribute("aria-pressed", String(shelf.follow));
  byId("where").hidden = !present(listing.step);
}

function goTo(step) {
  shelf.follow = false;
  shelf.step = step;
  shelf.phase = shelf.listing?.phase ?? shelf.phase;
  return loadList();
}

byId("phase").addEventListener("change", (event) => {
  shelf.phase = event.target.value;
  shelf.follow = true;
  loadList();
});
byId("step").addEventListener("change", (event) => {
  if (event.target.value !== "") goTo(Math.max(0, Math.round(Number(event.target.value))));
});
byId("where").addEventListener("submit", (event) => event.preventDefault());
byId("earlier").addEventListener("click", () => goTo(shelf.listing.earlier));
byId("later").addEventListener("click", () => goTo(shelf.listing.later));
byId("more").addEventListener("click", () => {
  // More rows of this step, so the step must not change.
  shelf.follow = false;
  shelf.phase = shelf.listing.phase;
  loadList(shelf.listing.rows.length);
});
byId("follow").addEventListener("click", () => {
  shelf.follow = !shelf.follow;
  if (shelf.follow) loadList();
  else paintWhere();
});

/** Opens the rollout given in the URL. */
async function openFromAddress(moveFocus) {
  const match = location.hash.match(/^#rollout\/(\d+)\/([^/]+)\/(\d+)$/);
  if (!match) return;
  const place = { step: Number(match[1]), phase: decodeURIComponent(match[2]), id: Number(match[3]) };
  shelf.open = place;
  // The list must not move while a rollout is open.
  if (shelf.listing?.step !== place.step || shelf.listing?.phase !== place.phase || shelf.follow) {
    shelf.phase = place.phase;
    shelf.follow = false;
    shelf.step = place.step;
    loadList();
  } else {
    paintList();
  }
  const detail = byId("detail");
  document.querySelector(".columns").classList.add("open");
  detail.hidden = false;
  try {
    const rollout = await ask(`rollouts/${place.step}/${encodeURIComponent(place.phase)}/${place.id}`);
    if (shelf.open !== place) return;
    detail.replaceChildren(...rolloutParts(rollout));
  } catch (error) {
    detail.replaceChildren(make("h3", { id: "detail-title", tabindex: "-1" }, `Rollout ${place.id}`),
      make("p", {}, trouble(error)));
  }
  if (moveFocus) byId("detail-title").focus();
}

function closeDetail() {
  const id = shelf.open?.id;
  shelf.open = null;
  byId("detail").hidden = true;
  document.querySelector(".columns").classList.remove("open");
  history.replaceState(null, "", location.pathname + location.search);
  if (shelf.listing) paintList();
  document.querySelector(`[data-rollout="${id}"]`)?.focus();
}

function rolloutParts(rollout) {
  const close = make("button", { type: "button" }, "Close");
  close.addEventListener("click", closeDetail);
  const [tone, words] = present(rollout.reward)
    ? [rollout.reward >= 0.5 ? "good" : "bad", `Reward ${number(rollout.reward)}`] : ["", "No reward"];
  const list = make("dl");
  const line = (name, value) => present(value) && value !== "" && list.append(make("dt", {}, name), make("dd", {}, value));
  line("Task", rollout.task_id);
  line("Question", rollout.question);
  line("Gold", rollout.gold);
  line("Answer", rollout.answer ?? "none");
  line("No reward because", rollout.missing);
  const size = Math.max(0, ...rollout.calls.map((call) => Math.abs(call.advantage ?? 0)));
  const parts = [
    make("div", { class: "head" },
      make("h3", { id: "detail-title", tabindex: "-1" }, `Rollout ${rollout.id}`),
      make("span", { class: "quiet" }, `${phaseName(rollout.phase)}, step ${rollout.step}, group ${rollout.group}`),
      make("span", { class: `pill ${tone}` }, words), close),
    list,
  ];
  rollout.calls.forEach((call, index) => {
    parts.push(callPart(call, index, size));
    parts.push(...rollout.signals.filter((signal) => signal.call === index).map(signalPart));
  });
  if (rollout.calls.length === 0) parts.push(make("p", { class: "quiet" }, "It made no model call."));
  parts.push(...rollout.signals.filter((signal) => signal.call >= rollout.calls.length).map(signalPart));
  return parts;
}

function callPart(call, index, size) {
  const numbers = make("p", { class: "numbers" });
  const number3 = (name, value, picture) => numbers.append(
    make("span", {}, `${name} `, make("b", {}, decimal(value, true)), picture ?? null));
  if (present(call.credit) || present(call.advantage)) {
    number3("Credit", call.credit);
    number3("Advantage", call.advantage, advantageBar(call.advantage, size));
  } else {
    numbers.append("Not trained on");
  }
  const part = make("section", { class: "call", "aria-label": `Call ${index + 1}` },
    make("h4", {}, `Call ${index + 1}${call.role ? ` · ${call.role}` : ""}`),
    make("p", { class: "quiet" }, `${counted(call.prompt_tokens, "prompt token")}, ` +
      `${counted(call.response_tokens, "response token")}, ended by ${call.finish}, policy ${call.policy_version}`),
    numbers);
  if (present(call.prompt)) {
    const came = make("pre", { class: "came" }, call.prompt);
    part.append(make("details", { open: call.continues },
      make("summary", {}, call.continues ? "Added since the call before" : "Prompt"), came));
  }
  part.append(make("pre", { class: "written", "aria-label": "Response" }, call.text));
  return part;
}

/** A bar, to the right for a positive advantage, to the left for a negative one. */
function advantageBar(value, size) {
  if (!present(value) || size === 0) return null;
  const length = (44 * Math.abs(value)) / size;
  return draw("svg", { viewBox: "0 0 90 12", "aria-hidden": "true" },
    draw("rect", { class: value < 0 ? "down" : "up", x: value < 0 ? 45 - length : 45, y: 2, width: length, height: 8 }),
    draw("line", { class: "axis", x1: 45, x2: 45, y1: 0, y2: 12 }));
}

function signalPart(signal) {
  return make("p", { class: "signal" }, make("b", {}, signal.kind.replaceAll("_", " ")),
    signal.detail ? `: ${signal.detail}` : "");
}

window.addEventListener("hashchange", () => openFromAddress(true));

// ---------------------------------------------------------------- events

function notice(text) {
  const place = byId("notice");
  if (place.textContent !== text) place.textContent = text;
  place.hidden = text === "";
}

const take = {
  snapshot(data) {
    // The server's clock may differ from ours.
    const ahead = Date.now() - data.now_ms;
    Object.assign(run, {
      card: data.run, status: data.status, train: data.train, evals: data.evals, flight: data.flight,
      step: data.step, firstStep: data.first_step, startedAt: data.started_ms + ahead,
    });
    over();
    listIsStale();
  },
  step({ point }) {
    push(run.train, point);
    run.step = point.to;
    listIsStale();
  },
  eval({ mode, point }) {
    run.evals[mode] ??= newCurve();
    push(run.evals[mode], point);
    listIsStale();
  },
  flight(data) {
    run.flight = data;
  },
  status(data) {
    run.status = data;
    over();
  },
};

let source = null;

/** Closes the stream of a finished run, as the server is about to exit. */
function over() {
  if (!isOver()) return;
  run.ended ??= Date.now();
  source?.close();
  notice(run.status.state === "failed" ? `The run failed: ${run.status.message}` : "");
}

let painting = false;

function paintSoon(curves) {
  run.curvesChanged ||= curves;
  if (painting) return;
  painting = true;
  requestAnimationFrame(() => {
    painting = false;
    paintHead();
    paintFlight();
    if (run.curvesChanged) paintCharts();
    run.curvesChanged = false;
  });
}

function connect() {
  source = new EventSource("events");
  let heard = new Date();
  for (const [name, handle] of Object.entries(take)) {
    source.addEventListener(name, (event) => {
      heard = new Date();
      notice("");
      handle(JSON.parse(event.data));
      paintSoon(name !== "flight");
    });
  }
  source.addEventListener("open", () => notice(""));
  source.addEventListener("error", () => {
    if (isOver()) return;
    const since = heard.toLocaleTimeString("en-GB");
    notice(`Connection lost, trying again. What is shown is as of ${since}.`);
    // The browser retries a broken connection, but gives up on responses such as 503.
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 5000);
  });
}

connect();
openFromAddress(false);
setInterval(paintClock, 1000);
