// One session: its state, what else belongs to it, and what has changed since the page saw it.
//
// The host keeps no earlier states. So the differences are those between what this page has seen:
// the last state under each generation and version, of sessions that were opened here.

import { $, Failed, bytes, change, clock, confirm, count, el, get, plain } from "./api.js";

const EVERY = 2000;
const SEEN_MAX = 20; // States of a session that are kept.
const SESSIONS_MAX = 30; // Sessions whose states are kept.

const seen = new Map(); // number of a session: states, the oldest first
const article = $("session");
let id = null, timer = null, against = null, ended = () => {};
let parts = null;

export function start(onEnd) {
  ended = onEnd;
}

export function isOpen() {
  return id !== null;
}

export function open(number) {
  if (id === number) return void $("session-title")?.focus();
  close();
  id = number;
  against = null;
  build();
  article.hidden = false;
  look();
}

export function close() {
  clearTimeout(timer);
  const was = id;
  id = null;
  parts = null;
  article.hidden = true;
  article.replaceChildren();
  document.dispatchEvent(new CustomEvent("session", { detail: null }));
  if (was !== null) ended();
}

// A build took over: the states of all sessions that were looked at are read once.
export async function swapped(service) {
  for (const [number, states] of [...seen]) {
    if (number === id || states.at(-1).service !== service) continue;
    try {
      note(number, await get(`/api/session/${number}`));
    } catch (e) {
      if (e instanceof Failed && e.status === 404) seen.delete(number);
    }
  }
  if (id !== null) look();
}

function build() {
  parts = {
    about: el("dl", { class: "about" }),
    state: el("div", { class: "state", id: "state" }),
    rest: el("div", { id: "belongs" }),
    against: el("select", { id: "against", onchange: e => (against = e.target.value, compare()) }),
    diff: el("div", { id: "diff" }),
    message: el("p", { class: "message", role: "status" }),
    trace: el("div", { id: "trace" }),
  };
  const button = (text, title, onclick, name) => el("button", { type: "button", title, onclick, id: name }, text);
  article.append(
    el("div", { class: "title" },
      el("h2", { id: "session-title", tabindex: "-1" }, `Session ${id}`),
      button("Release", "End its quarantine", () => act("release"), "release"),
      button("Close session", "End the connection (x)", () => act("close"), "close-session"),
      el("button", { type: "button", "aria-label": "Close this panel", title: "Esc", onclick: close }, "×")),
    parts.message, parts.about, parts.trace,
    el("h3", {}, "State"), parts.state,
    el("h3", {}, "History"),
    el("div", { class: "bar" }, el("label", { for: "against" }, "Now, against"), parts.against),
    parts.diff, parts.rest);
  $("release").hidden = true;
  document.dispatchEvent(new CustomEvent("session", { detail: { id, into: parts.trace } }));
}

export async function act(verb) {
  const number = id;
  if (number === null) return;
  const sure = verb === "release" || await confirm(`Close session ${number}?`,
    "Its handler runs a last turn, and its output is sent. The peer is disconnected.", "Close session");
  if (!sure) return;
  try {
    await change(`/api/session/${number}/${verb}`);
    say(verb === "close" ? "The session is closing." : "The session goes on.");
  } catch (e) {
    say(e.message);
  }
  look();
}

function say(text) {
  if (parts) parts.message.textContent = text;
}

async function look() {
  clearTimeout(timer);
  const number = id;
  if (number === null) return;
  try {
    const found = await get(`/api/session/${number}`);
    if (number !== id) return;
    note(number, found);
    show(found);
  } catch (e) {
    if (number !== id) return;
    if (e.status === 404) return void say("The session has ended. What was seen last:");
    say(e.message);
  }
  timer = setTimeout(look, document.hidden ? 10 * EVERY : EVERY);
}

// Keeps a state. Under one generation and version the last one counts.
function note(number, { session, service }) {
  const now = {
    at: Date.now(), service: session.service, generation: service?.generation ?? 0,
    version: session.state_version, state: session.state,
  };
  const states = seen.get(number) ?? [];
  seen.delete(number);
  seen.set(number, states);
  const last = states.at(-1);
  if (last && last.generation === now.generation && last.version === now.version) {
    now.since = last.since;
    now.first = last.first;
    states.pop();
  } else {
    now.since = now.at;
    now.first = now.state;
  }
  states.push(now);
  if (states.length > SEEN_MAX) states.shift();
  if (seen.size > SESSIONS_MAX) seen.delete(seen.keys().next().value);
}

function show({ session, service, listed }) {
  $("session-title").textContent = `Session ${session.id} · ${plain(session.service)}`;
  $("release").hidden = !listed?.quarantined;
  const facts = [
    ["Peer", plain(session.peer)],
    ["Endpoint", plain(session.endpoint || "–") + (session.outbound ? ", outbound" : "")],
    ["Opened", new Date(session.opened_at).toLocaleString("en-GB")],
    ["Generation", service ? `${service.generation}, writes version ${service.state_version}` : "–"],
    ["State", session.state_version ? `version ${session.state_version}` : "none stored"],
    ...(listed ? [["Turns", count(listed.turns)], ["Bytes", `${bytes(listed.bytes_in)} in, ${bytes(listed.bytes_out)} out`]] : []),
    ...(session.held ? [["Input", "held by its handler"]] : []),
    ...(listed?.quarantined ? [["Quarantine", plain(listed.quarantined)]] : []),
    ...Object.entries(listed?.tls ?? {}).map(([name, value]) => [`TLS ${plain(name)}`, plain(value)]),
  ];
  parts.about.replaceChildren(...facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  parts.state.replaceChildren(session.state_version ? tree(session.state) : el("p", { class: "quiet" }, "No state is stored."));
  const belongs = ["timers", "actions", "jobs", "connects", "topics", "names", "input", "output"]
    .map(name => [name, session[name]])
    .filter(([, value]) => Array.isArray(value) ? value.length : value !== "" && value !== undefined);
  const isOpened = new Set([...parts.rest.querySelectorAll("details[open]")].map(d => d.dataset.of));
  parts.rest.replaceChildren(...belongs.map(([name, value]) =>
    el("details", { "data-of": name, open: isOpened.has(name) },
      el("summary", {}, name + (Array.isArray(value) ? ` (${value.length})` : "")), tree(value))));
  choices();
  compare();
}

// A value as a tree of names and values. Long lists are cut: a dump has all of it.
export function tree(value, depth = 0) {
  if (value === null || typeof value !== "object" || leaf(value) !== undefined) {
    return el("code", { class: typeof value }, leaf(value) ?? text(value));
  }
  const all = Object.entries(value);
  if (!all.length) return el("code", {}, Array.isArray(value) ? "[ ]" : "{ }");
  if (depth > 12) return el("code", {}, text(value));
  const items = all.slice(0, 200).map(([name, inner]) => el("li", {}, el("span", { class: "name" }, plain(name)), " ", tree(inner, depth + 1)));
  if (all.length > 200) items.push(el("li", {}, `and ${count(all.length - 200)} more`));
  return el("ul", { class: "tree" }, items);
}

// Tagged values of a dump: large integers and bytes.
function leaf(value) {
  const keys = value && typeof value === "object" ? Object.keys(value) : [];
  if (keys.length !== 1) return undefined;
  return keys[0] === "$int" ? String(value.$int) : keys[0] === "$b64" ? `bytes ${value.$b64}` : undefined;
}

function text(value) {
  const json = JSON.stringify(value) ?? "";
  return plain(json.length > 2000 ? `${json.slice(0, 2000)}…` : json);
}

function choices() {
  const states = seen.get(id) ?? [];
  const options = states.map((s, n) => [`${n}`, `generation ${s.generation}, v${s.version}, last seen ${clock(s.at)}`]).slice(0, -1);
  const last = states.at(-1);
  options.push(["first", `generation ${last.generation}, v${last.version}, first seen ${clock(last.since)}`]);
  const keys = options.map(o => o.join()).join();
  if (parts.against.dataset.keys !== keys) {
    parts.against.replaceChildren(...options.map(([value, name]) => el("option", { value }, name)));
    parts.against.dataset.keys = keys;
    if (against === null || !options.some(([value]) => value === against)) against = options.at(-2)?.[0] ?? "first";
  }
  parts.against.value = against;
}

function compare() {
  const states = seen.get(id) ?? [];
  if (!states.length) return;
  const last = states.at(-1);
  const before = against === "first" ? last.first : states[Number(against)]?.state;
  const found = differences(before, last.state);
  parts.diff.replaceChildren(found.length
    ? el("table", {}, el("caption", { class: "quiet" }, "Fields that differ"),
      el("thead", {}, el("tr", {}, ["Field", "Then", "Now"].map(t => el("th", { scope: "col" }, t)))),
      el("tbody", {}, found.map(([path, then, now]) => el("tr", {}, el("th", { scope: "row" }, plain(path || "(all of it)")),
        el("td", { class: "then" }, then === undefined ? "–" : leaf(then) ?? text(then)),
        el("td", { class: "now" }, now === undefined ? "–" : leaf(now) ?? text(now))))))
    : el("p", { class: "quiet" }, "No field differs."),
  el("p", { class: "quiet" }, `As this page has seen it since ${clock(states[0].since)}; the host keeps no earlier states.`));
}

export function differences(a, b, path = "", found = []) {
  const isTree = v => v !== null && typeof v === "object" && leaf(v) === undefined;
  if (found.length >= 200) return found;
  if (isTree(a) && isTree(b) && Array.isArray(a) === Array.isArray(b)) {
    for (const name of new Set([...Object.keys(a), ...Object.keys(b)])) {
      differences(a[name], b[name], path ? `${path}.${name}` : name, found);
    }
  } else if (JSON.stringify(a) !== JSON.stringify(b)) found.push([path, a, b]);
  return found;
}
