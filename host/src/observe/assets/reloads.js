// Services, rehearsals, rollbacks, and the ledger. A rehearsal changes nothing: its report waits for
// a decision, and a build is committed only if the file still holds what was rehearsed.

import { $, change, clock, confirm, count, el, plain } from "./api.js";
import * as canary from "./canary.js";
import * as timeline from "./timeline.js";

let services = [], files = [], ledger = [], chosen = null, busy = null;
let say = () => {};

export function start(onMessage) {
  say = onMessage;
  timeline.start(choose);
  $("ledger").addEventListener("keydown", event => {
    const step = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1 }[event.key];
    const rows = [...$("ledger").querySelectorAll("tbody button")], at = rows.indexOf(document.activeElement);
    if (step && at >= 0) (event.preventDefault(), rows[Math.max(0, Math.min(rows.length - 1, at + step))].focus());
  });
}

const NUMBERS = new Set(["Generation", "Sessions", "Turns/s", "Faults", "Gen.", "Pause"]);
const short = build => plain(String(build ?? "").slice(0, 12));

// Takes a status. `rates`: the last sample.
export function status(now, rates) {
  ({ services, files } = { services: now.services, files: now.host.files });
  timeline.services(services);
  const rows = services.map(s => {
    const file = files.find(f => f.library === s.library), rate = rates?.services[s.name];
    const waits = file && (file.reason
      ? el("span", { class: "bad", title: plain(file.reason) }, `build ${short(file.build)} refused`)
      : el("span", { class: "waits" }, `build ${short(file.build)} ${file.is_canary ? "runs as a canary" : "waits"}`));
    const button = (text, name, act) => el("button", {
      type: "button", "data-act": name, "data-service": s.name, "aria-label": `${text} ${s.name}`, disabled: busy !== null, onclick: act,
    }, text);
    return el("tr", { "data-service": s.name },
      el("th", { scope: "row" }, plain(s.name)),
      el("td", { class: "acts" },
        button("Rehearse", "rehearse", () => rehearse(s.name)),
        button("Canary", "canary", () => canary.begin(s.name)),
        button("Roll back", "rollback", () => rollBack(s.name))),
      el("td", {}, plain(s.library)),
      el("td", { class: "number" }, s.generation),
      el("td", {}, el("code", {}, short(s.build)), " ", waits),
      el("td", { class: "number" }, count(s.sessions)),
      el("td", { class: "number" }, rate ? count(rate.turns) : "–"),
      el("td", { class: `number${s.faults ? " bad" : ""}` }, count(s.faults)));
  });
  fill("services", ["Service", "Change", "Library", "Generation", "Build", "Sessions", "Turns/s", "Faults"], rows,
    services.length ? "" : "No service is served.");
}

// Replaces a table, and gives the focus back to what had it.
function fill(id, head, rows, empty) {
  const box = $(id), focused = document.activeElement;
  const of = box.contains(focused) ? [focused.dataset.act, focused.dataset.service ?? focused.dataset.line] : null;
  box.replaceChildren(rows.length
    ? el("table", {}, el("thead", {}, el("tr", {}, head.map(t => el("th", { scope: "col", class: NUMBERS.has(t) ? "number" : "" }, t)))), el("tbody", {}, rows))
    : el("p", { class: "quiet" }, empty));
  if (of) {
    const all = [...box.querySelectorAll("button")];
    all.find(b => b.dataset.act === of[0] && (b.dataset.service ?? b.dataset.line) === of[1])?.focus();
  }
}

// Takes lines of the ledger that are new or have changed. Returns services with a new build.
export function lines(more) {
  const known = new Map(ledger.map(line => [line.line, line]));
  const swapped = more.filter(l => ["committed", "rolled-back"].includes(l.outcome)).flatMap(l => l.services);
  for (const line of more) known.set(line.line, line);
  ledger = [...known.values()].sort((a, b) => a.line - b.line).slice(-300);
  timeline.take(ledger);
  fill("ledger", ["When", "Library", "Outcome", "Gen.", "Build", "Pause", "Probation", "Why"], [...ledger].reverse().map(row),
    "Nothing has changed since the host began.");
  if (more.some(l => l.line === chosen)) details();
  return swapped;
}

function row(line) {
  const probation = line.probation;
  return el("tr", { class: line.line === chosen ? "chosen" : "", "data-line": line.line },
    el("th", { scope: "row" }, el("button", {
      type: "button", class: "link", "data-act": "line", "data-line": line.line, onclick: () => choose(line.line),
      "aria-label": `Line ${line.line}, ${clock(Date.parse(line.at))}`,
    }, new Date(line.at).toLocaleString("en-GB"))),
    el("td", {}, plain(line.library || "host")),
    el("td", { class: line.outcome }, line.outcome),
    el("td", { class: "number" }, line.generation || ""),
    el("td", {}, el("code", {}, short(line.build))),
    el("td", { class: "number" }, line.pause_us ? `${line.pause_us.toFixed(0)} µs` : ""),
    el("td", {}, probation ? `${probation.state}${probation.faults ? `, ${probation.faults} faults` : ""}` : ""),
    el("td", { class: "why" }, plain(line.reason)));
}

export function choose(number) {
  chosen = number;
  timeline.choose(number);
  for (const tr of $("ledger").querySelectorAll("tr")) tr.classList.toggle("chosen", Number(tr.dataset.line) === number);
  details();
  $("line-title")?.focus();
}

export function closeDetails() {
  if (chosen === null) return false;
  const line = chosen;
  chosen = null;
  timeline.choose(null);
  $("line").hidden = true;
  $("line").replaceChildren();
  $("ledger").querySelector(`button[data-line="${line}"]`)?.focus();
  return true;
}

// A change in full, with the half minutes around it.
function details() {
  const line = ledger.find(l => l.line === chosen), article = $("line");
  article.hidden = !line;
  if (!line) return;
  const service = line.services.includes($("of").value) ? $("of").value : line.services[0];
  const [before, behind] = service ? timeline.around(line, service) : [null, null];
  const cell = (part, text) => el("td", { class: "number" }, part ? text(part) : "–");
  const measure = (name, text) => el("tr", {}, el("th", { scope: "row" }, name), cell(before, text), cell(behind, text));
  article.replaceChildren(
    el("div", { class: "title" },
      el("h2", { id: "line-title", tabindex: "-1" }, `Line ${line.line}: ${plain(line.library || "host")} ${line.outcome}`),
      el("button", { type: "button", "aria-label": "Close this panel", title: "Esc", onclick: closeDetails }, "×")),
    el("dl", { class: "about" }, [
      ["When", new Date(line.at).toLocaleString("en-GB")], ["By", plain(line.by)],
      ["Generation", line.generation || "–"], ["Build", plain(line.build || "–")],
      ["Sessions", count(line.sessions)], ["Migrated", count(line.migrated)],
      ["Pause", line.pause_us ? `${line.pause_us.toFixed(1)} µs` : "–"], ["Rehearsal", line.rehearsal ? `${line.rehearsal_ms} ms` : "none"],
      ...(line.probation ? [["Probation", `${line.probation.state}: ${count(line.probation.turns)} turns, ${line.probation.faults} faults, ${line.probation.spared} spared`]] : []),
      ...(line.reason ? [["Why", plain(line.reason)]] : []),
    ].map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))),
    service ? el("table", { id: "around" }, el("caption", {}, `${plain(service)}, half a minute before and behind`),
      el("thead", {}, el("tr", {}, ["", "Before", "Behind"].map(t => el("th", { scope: "col", class: t ? "number" : "" }, t)))),
      el("tbody", {}, measure("Turns/s", p => count(Math.round(p.turns))), measure("Faults", p => count(p.faults)),
        ...timeline.MEASURES.map(([name, text]) => measure(name, text)))) : "",
    line.rehearsal ? rehearsed(line.rehearsal) : "");
}

// The findings of a rehearsal.
function rehearsed(r) {
  return el("section", {}, el("h3", {}, "Rehearsal"),
    el("p", {}, `${count(r.sessions)} sessions read, ${count(r.migrated)} to be migrated; ${r.ms} ms`
      + (r.entries ? `; ${count(r.entries)} entries of tables, ${count(r.shapes.filter(s => s.table).reduce((n, s) => n + s.migrated, 0))} to be migrated` : "")),
    r.unread_before ? el("p", { class: "bad" }, plain(r.unread_before)) : "",
    r.shapes.map(s => el("div", { class: "shape" },
      el("h4", {}, s.table ? `${plain(s.service)}, table ${plain(s.table)}` : `${plain(s.service)}, states`),
      el("p", {}, s.from === s.to ? `version ${s.to}` : `version ${s.from} → ${s.to}`,
        `, compatibility ${s.verdict}, way back ${wayBack(s.way_back)}`),
      s.fields.length ? el("table", {}, el("thead", {}, el("tr", {}, ["Field", "Change", "Held by"].map(t => el("th", { scope: "col" }, t)))),
        el("tbody", {}, s.fields.map(f => el("tr", {}, el("th", { scope: "row" }, plain(f.field || "(all of it)")),
          el("td", {}, plain(f.text)), el("td", { class: "number" }, f.held_by === undefined ? "" : count(f.held_by)))))) : "")));
}

function wayBack(way) {
  if (way.kind === "loses") return `loses ${way.fields.map(f => plain(f || "all of it")).join(", ")}`;
  return way.kind === "none" ? `none: ${plain(way.why)}` : "exact";
}

// Runs a change, with its progress in the panel of rehearsals. Returns the reports.
async function run(title, path, body) {
  const panel = $("rehearsal"), progress = el("progress", { "aria-label": title });
  busy = title;
  panel.hidden = false;
  panel.replaceChildren(el("h2", {}, title), progress);
  const reports = [];
  try {
    await change(path, body, line => {
      if (line.progress) [progress.value, progress.max] = [line.progress[1], Math.max(1, line.progress[2])];
      if (line.report) reports.push(line.report);
    });
    return reports;
  } catch (e) {
    panel.replaceChildren(el("h2", {}, title), el("p", { class: "bad", role: "alert" }, e.message), dismiss("Close"));
    return null;
  } finally {
    busy = null;
    // Not only with the next status.
    for (const button of $("services").querySelectorAll("button")) button.disabled = false;
  }
}

function dismiss(text) {
  return el("button", { type: "button", id: "refuse", onclick: hideRehearsal }, text);
}

export function hideRehearsal() {
  const was = !$("rehearsal").hidden;
  $("rehearsal").hidden = true;
  $("rehearsal").replaceChildren();
  if (was) $("services").querySelector("button")?.focus();
  return was;
}

export async function rehearse(service) {
  const reports = await run(`Rehearsal of ${service}`, "/api/reload", { service, dry_run: true });
  if (!reports) return;
  const report = reports[0], panel = $("rehearsal");
  const good = report?.outcome === "rehearsed";
  const commit = el("button", { type: "button", id: "commit", class: "main", onclick: () => commitBuild(service, report.build) }, "Commit");
  panel.replaceChildren(
    el("h2", { id: "rehearsal-title", tabindex: "-1" }, `Rehearsal of ${plain(service)}: ${report?.outcome ?? "no report"}`),
    report?.reason ? el("p", { class: good ? "" : "bad" }, plain(report.reason)) : "",
    el("p", {}, "Build ", el("code", {}, short(report?.build)), good ? ". Nothing has changed yet." : report?.outcome === "unchanged" ? " serves already: there is nothing to load." : ""),
    report?.rehearsal ? rehearsed(report.rehearsal) : "",
    el("div", { class: "bar" }, good ? [commit, dismiss("Refuse")] : dismiss("Close")));
  (good ? commit : $("refuse")).focus();
}

async function commitBuild(service, build) {
  tell(await run(`Reload of ${service}`, "/api/reload", { service, build }), service);
}

async function rollBack(service) {
  const sure = await confirm(`Roll ${service} back?`,
    "The previous build serves again. States and tables are converted down; sessions stay connected.", "Roll back");
  if (sure) tell(await run(`Rollback of ${service}`, "/api/rollback", { service }), service);
}

// Says what came of a change. A refusal stays in the panel.
function tell(reports, service) {
  if (!reports) return;
  const report = reports[0], outcome = report?.outcome ?? "no report";
  const words = `${service}: ${outcome}, generation ${report?.generation ?? "?"} serves${report?.reason ? `: ${plain(report.reason)}` : ""}`;
  say(words);
  if (["committed", "rolled-back", "unchanged"].includes(outcome)) return void hideRehearsal();
  $("rehearsal").replaceChildren(el("h2", {}, `${plain(service)}: ${outcome}`), el("p", { class: "bad" }, plain(report?.reason ?? "")),
    report?.rehearsal ? rehearsed(report.rehearsal) : "", dismiss("Close"));
  $("refuse").focus();
}

// The service that has the focus, or the first.
export function current() {
  return document.activeElement?.closest("[data-service]")?.dataset.service ?? $("of").value;
}
