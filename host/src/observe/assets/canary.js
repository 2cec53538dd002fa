// Canaries: a build that runs some sessions, beside the one that serves. Two columns compare them.

import { $, change, confirm, count, el, plain } from "./api.js";

const micros = ns => ns === null || ns === undefined ? "–" : ns < 10_000_000 ? `${(ns / 1000).toFixed(1)} µs` : `${(ns / 1e6).toFixed(1)} ms`;

const ROWS = [
  ["Generation", c => c.generation],
  ["Build", c => plain(c.build.slice(0, 12))],
  ["Sessions", c => count(c.sessions)],
  ["Turns", c => count(c.turns)],
  ["Faults", c => count(c.faults)],
  ["Of those, in both builds", c => count(c.shared_faults)],
  ["Mean time of a turn", c => micros(c.mean_ns)],
  ["99th percentile", c => micros(c.p99_ns)],
  ["Longest turn", c => micros(c.longest_ns)],
];

let say = () => {}, drawn = "";

export function start(onMessage) {
  say = onMessage;
}

export function draw(canaries) {
  const box = $("canaries"), now = JSON.stringify(canaries);
  if (now === drawn) return;
  drawn = now;
  const focused = box.contains(document.activeElement) ? document.activeElement.id : "";
  box.hidden = !canaries.length;
  box.replaceChildren(...canaries.map(one));
  if (focused) $(focused)?.focus();
}

function one(c) {
  const button = (text, verb, what) => el("button", {
    type: "button", id: `${verb}-${c.library}`, class: verb === "promote" ? "main" : "", "data-service": c.services[0],
    onclick: () => act(verb, c, what),
  }, text);
  const rules = [
    c.promote_in_ms === null ? "promoted by command" : `promoted in ${Math.ceil(c.promote_in_ms / 1000)} s`,
    c.faults_max === null ? "taken back by command" : `taken back beyond ${count(c.faults_max)} faults`,
    c.compare_every ? `answers compared: ${count(c.differing)} of ${count(c.compared)} differ` : "answers are not compared",
  ];
  return el("section", { class: "canary", "aria-label": `Canary of ${plain(c.library)}` },
    el("h3", {}, `Canary of ${plain(c.library)}: ${c.share} % of new sessions${c.chosen ? `, ${count(c.chosen)} chosen` : ""}`),
    el("p", { class: "quiet" }, rules.join("; ")),
    el("div", { class: "wide" }, el("table", {},
      el("thead", {}, el("tr", {}, ["", "Serves", "Candidate"].map(t => el("th", { scope: "col", class: t ? "number" : "" }, t)))),
      el("tbody", {}, ROWS.map(([name, text]) => el("tr", {}, el("th", { scope: "row" }, name),
        [c.serving, c.candidate].map(column => el("td", { class: `number${name === "Faults" && column.faults ? " bad" : ""}` }, text(column)))))))),
    el("div", { class: "bar" }, button("Promote", "promote", "Its build serves all sessions."), button("Take back", "takeback", "The build that serves runs all sessions again.")));
}

async function act(verb, c, what) {
  const title = verb === "promote" ? `Promote the canary of ${c.library}?` : `Take the canary of ${c.library} back?`;
  if (!await confirm(title, what, verb === "promote" ? "Promote" : "Take back")) return;
  await run(`/api/canary/${verb}`, { service: c.services[0] }, c.library);
}

// Begins a canary with 5 % of new sessions. Finer choices are the command's.
export async function begin(service) {
  const sure = await confirm(`Begin a canary of ${service}?`,
    "The build in the file runs 5 % of the new sessions, until it is promoted or taken back. `greenroom reload --canary` has finer choices.", "Begin");
  if (sure) await run("/api/canary", { service }, service);
}

async function run(path, body, name) {
  try {
    let outcome = "";
    await change(path, body, line => line.report && (outcome = `${line.report.outcome}${line.report.reason ? `: ${line.report.reason}` : ""}`));
    say(plain(`${name}: ${outcome || "done"}`));
  } catch (e) {
    say(plain(`${name}: ${e.message}`));
  }
}
