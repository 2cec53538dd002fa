// Timeline: times of turns and their number, and a mark for each line of the ledger. Marks are
// buttons: the arrow keys go from one to the next.

import { $, clock, count, el, plain, svg } from "./api.js";

const LEFT = 60, RIGHT = 12, TOP = 18, BOTTOM = 12, GAP = 14;
const MARKS = {
  committed: "▲", "rolled-back": "▼", refused: "✕", replaced: "△", configured: "◆", restored: "●", rehearsed: "○", unchanged: "=",
};

let samples = [], lines = [], chosen = null, onChoose = () => {};
const box = $("timeline");

export function start(choose) {
  onChoose = choose;
  new ResizeObserver(draw).observe(box);
  for (const id of ["of", "span"]) $(id).addEventListener("change", draw);
  box.addEventListener("keydown", event => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const marks = [...box.querySelectorAll(".mark")], at = marks.indexOf(document.activeElement);
    if (step && at >= 0) (event.preventDefault(), marks[Math.max(0, Math.min(marks.length - 1, at + step))].focus());
    if (at >= 0 && (event.key === "Enter" || event.key === " ")) (event.preventDefault(), onChoose(Number(marks[at].dataset.line)));
  });
}

export function add(more) {
  samples.push(...more);
  if (samples.length > 3600) samples = samples.slice(-3600);
}

export function lastSample() {
  return samples.at(-1)?.at ?? 0;
}

export function take(ledger) {
  lines = ledger;
}

export function choose(line) {
  chosen = line;
  draw();
}

export function services(all) {
  const names = all.map(s => s.name), select = $("of");
  if (select.dataset.names === names.join()) return;
  const was = select.value;
  select.replaceChildren(...names.map(name => el("option", { value: name }, plain(name))));
  select.dataset.names = names.join();
  if (names.includes(was)) select.value = was;
}

// Further measures of a half minute: name, and text of its numbers.
export const MEASURES = [
  ["Median of turns", p => p.p50_us === undefined ? "–" : micros(p.p50_us)],
  ["99th percentile", p => p.p99_us === undefined ? "–" : micros(p.p99_us)],
];

// Numbers of a service in a second; `undefined`: no sample.
const of = (sample, service) => sample.services[service];

// Panes from top to bottom: height, name of the axis, curves with their values, text of a number.
const PANES = [
  { height: 150, curves: [["p99", s => s.p99_us], ["p50", s => s.p50_us]], text: micros },
  { height: 80, curves: [["turns", s => s.turns]], text: n => count(Math.round(n)) },
];

function micros(us) {
  return us >= 10_000 ? `${(us / 1000).toFixed(0)} ms` : us >= 1000 ? `${(us / 1000).toFixed(1)} ms` : `${us.toFixed(us < 10 ? 1 : 0)} µs`;
}

export function draw() {
  if (!box.clientWidth) return;
  const service = $("of").value, span = Number($("span").value) * 1000;
  const end = Math.max(lastSample(), Date.now() - 2000), begin = end - span;
  const width = box.clientWidth, x = at => LEFT + (at - begin) / span * (width - LEFT - RIGHT);
  const inSight = samples.filter(s => s.at >= begin && of(s, service));
  const focused = document.activeElement?.dataset?.line;
  // A host that has run no turn has no times.
  const panes = PANES.filter(pane => inSight.some(s => has(pane, of(s, service))) || pane === PANES.at(-1));
  const height = TOP + BOTTOM + panes.reduce((sum, pane) => sum + pane.height + GAP, 0);
  const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-labelledby": "timeline-title" });
  let top = TOP;
  const peaks = panes.map(pane => {
    const values = inSight.flatMap(s => pane.curves.map(([, value]) => value(of(s, service)) ?? 0));
    const peak = Math.max(1, ...values), bottom = top + pane.height;
    const y = value => bottom - value / peak * pane.height;
    axis(root, width, y, peak, pane.text);
    for (const [name, value] of pane.curves) {
      const some = inSight.filter(s => (value(of(s, service)) ?? null) !== null);
      curve(root, name, some, s => x(s.at), s => y(value(of(s, service))));
    }
    if (pane === PANES.at(-1)) {
      for (const s of inSight.filter(s => of(s, service).faults)) {
        root.append(svg("circle", { class: "fault", cx: x(s.at), cy: y(of(s, service).turns), r: 4 },
          svg("title", {}, `${count(of(s, service).faults)} faults, ${clock(s.at)}`)));
      }
    }
    top = bottom + GAP;
    return peak;
  });
  ticks(root, width, height, begin, span, x);
  for (const line of lines) {
    const at = Date.parse(line.at);
    if (at >= begin && at <= end + 2000 && concerns(line, service)) mark(root, line, x(at), height);
  }
  box.replaceChildren(root);
  if (focused) box.querySelector(`[data-line="${focused}"]`)?.focus();
  if (!inSight.length) box.append(el("p", { class: "quiet" }, "No samples yet: the observer takes one each second."));
  legend(peaks, inSight.some(s => of(s, service).faults));
}

const has = (pane, sample) => pane.curves.some(([, value]) => (value(sample) ?? null) !== null);

function legend(peaks, hasFaults) {
  const part = (name, text) => el("span", {}, el("i", { class: `key ${name}` }), text);
  $("legend").replaceChildren(
    ...(peaks.length > 1 ? [part("p99", `99th percentile of turns, at most ${micros(peaks[0])}`), part("p50", "median")] : []),
    part("turns", `turns each second, at most ${count(Math.round(peaks.at(-1)))}`), ...(hasFaults ? [part("fault", "faults")] : []));
}

function concerns(line, service) {
  return !line.services.length || line.services.includes(service);
}

// A line that breaks where samples are missing.
function curve(root, name, samples, x, y) {
  let path = "", last = 0;
  for (const s of samples) {
    path += `${s.at - last > 3500 ? "M" : "L"}${x(s).toFixed(1)} ${y(s).toFixed(1)}`;
    last = s.at;
  }
  if (path) root.append(svg("path", { class: `curve ${name}`, d: path }));
}

function axis(root, width, y, peak, text) {
  for (const part of [0, .5, 1]) {
    root.append(svg("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: y(peak * part), y2: y(peak * part) }),
      svg("text", { x: LEFT - 6, y: y(peak * part) + 4, "text-anchor": "end" }, text(peak * part)));
  }
}

function ticks(root, width, height, begin, span, x) {
  const step = span <= 300_000 ? 60_000 : span <= 900_000 ? 180_000 : 600_000;
  const every = width < 500 ? step * 2 : step;
  for (let at = Math.ceil(begin / every) * every; at < begin + span; at += every) {
    root.append(svg("text", { x: Math.min(x(at), width - 22), y: height - 6, "text-anchor": "middle" }, clock(at).slice(0, 5)));
  }
}

function mark(root, line, x, height) {
  const words = `${clock(Date.parse(line.at))}: ${plain(line.library || "host")} ${line.outcome}, generation ${line.generation}`;
  root.append(svg("g", {
    class: `mark ${line.outcome}${line.line === chosen ? " chosen" : ""}`, tabindex: 0, role: "button", "aria-label": words,
    "data-line": line.line, onclick: () => onChoose(line.line),
  }, svg("title", {}, words),
  svg("rect", { class: "touch", x: x - 9, y: 0, width: 18, height: height - BOTTOM }),
  svg("line", { x1: x, x2: x, y1: TOP, y2: height - BOTTOM }),
  svg("text", { x, y: 12, "text-anchor": "middle" }, MARKS[line.outcome] ?? "?")));
}

// Numbers of the half minutes before and behind a change, for its details. `null`: not seen.
export function around(line, service) {
  const at = Date.parse(line.at);
  const part = (from, to) => {
    const some = samples.filter(s => s.at > from && s.at <= to && of(s, service)).map(s => of(s, service));
    if (!some.length) return null;
    const middle = name => {
      const values = some.map(s => s[name] ?? null).filter(v => v !== null).sort((a, b) => a - b);
      return values[Math.floor(values.length / 2)];
    };
    return {
      p50_us: middle("p50_us"), p99_us: middle("p99_us"),
      turns: some.reduce((sum, s) => sum + s.turns, 0) / some.length,
      faults: some.reduce((sum, s) => sum + s.faults, 0),
    };
  };
  return [part(at - 30_000, at), part(at, at + 30_000)];
}
