// Timeline: turns of a service over time, and a mark for each line of the ledger. Marks are buttons:
// the arrow keys go from one to the next.

import { $, clock, count, el, plain, svg } from "./api.js";

const HEIGHT = 220, LEFT = 52, RIGHT = 12, TOP = 16, BOTTOM = 24;
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

// Numbers of a service in a second; `undefined`: no sample.
const of = (sample, service) => sample.services[service];
// Further measures of a half minute: name, and text of its numbers.
export const MEASURES = [];
// What is drawn: name, class, and value of a sample.
const CURVES = [["turns/s", "turns", s => s.turns]];

export function draw() {
  if (!box.clientWidth) return;
  const service = $("of").value, span = Number($("span").value) * 1000;
  const end = Math.max(lastSample(), Date.now() - 2000), begin = end - span;
  const width = box.clientWidth, x = at => LEFT + (at - begin) / span * (width - LEFT - RIGHT);
  const inSight = samples.filter(s => s.at >= begin && of(s, service));
  const focused = document.activeElement?.dataset?.line;
  const root = svg("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: "group", "aria-labelledby": "timeline-title" });
  const peak = Math.max(1, ...inSight.map(s => of(s, service).turns));
  const y = value => HEIGHT - BOTTOM - value / peak * (HEIGHT - TOP - BOTTOM);
  axes(root, width, begin, span, x, y, peak);
  for (const [, name, value] of CURVES) curve(root, name, inSight, s => x(s.at), s => y(value(of(s, service))));
  const faults = inSight.filter(s => of(s, service).faults);
  for (const s of faults) root.append(svg("circle", { class: "fault", cx: x(s.at), cy: y(of(s, service).turns), r: 4 }, svg("title", {}, `${count(of(s, service).faults)} faults, ${clock(s.at)}`)));
  for (const line of lines) {
    const at = Date.parse(line.at);
    if (at >= begin && at <= end + 2000 && concerns(line, service)) mark(root, line, x(at));
  }
  box.replaceChildren(root);
  if (focused) box.querySelector(`[data-line="${focused}"]`)?.focus();
  if (!inSight.length) box.append(el("p", { class: "quiet" }, "No samples yet: the observer takes one each second."));
  $("legend").textContent = `turns each second, at most ${count(peak)}${faults.length ? ", ● faults" : ""}`;
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

function axes(root, width, begin, span, x, y, peak) {
  for (const part of [0, .5, 1]) {
    root.append(svg("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: y(peak * part), y2: y(peak * part) }),
      svg("text", { x: LEFT - 6, y: y(peak * part) + 4, "text-anchor": "end" }, count(Math.round(peak * part))));
  }
  const step = span <= 300_000 ? 60_000 : span <= 900_000 ? 180_000 : 600_000;
  const ticks = width < 500 ? step * 2 : step;
  for (let at = Math.ceil(begin / ticks) * ticks; at < begin + span; at += ticks) {
    root.append(svg("text", { x: x(at), y: HEIGHT - 6, "text-anchor": "middle" }, clock(at).slice(0, 5)));
  }
}

function mark(root, line, x) {
  const words = `${clock(Date.parse(line.at))}: ${plain(line.library || "host")} ${line.outcome}, generation ${line.generation}`;
  root.append(svg("g", {
    class: `mark ${line.outcome}${line.line === chosen ? " chosen" : ""}`, tabindex: 0, role: "button", "aria-label": words,
    "data-line": line.line, onclick: () => onChoose(line.line),
  }, svg("title", {}, words),
  svg("rect", { class: "touch", x: x - 9, y: 0, width: 18, height: HEIGHT - BOTTOM }),
  svg("line", { x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM }),
  svg("text", { x, y: 12, "text-anchor": "middle" }, MARKS[line.outcome] ?? "?")));
}

// Numbers of the half minutes before and behind a change, for its details. `null`: not seen.
export function around(line, service) {
  const at = Date.parse(line.at);
  const part = (from, to) => {
    const some = samples.filter(s => s.at > from && s.at <= to && of(s, service)).map(s => of(s, service));
    if (!some.length) return null;
    return {
      turns: some.reduce((sum, s) => sum + s.turns, 0) / some.length,
      faults: some.reduce((sum, s) => sum + s.faults, 0),
    };
  };
  return [part(at - 30_000, at), part(at, at + 30_000)];
}
