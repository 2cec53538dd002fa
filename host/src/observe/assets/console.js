// The console: views, keys, and the news that come each second.

import { $, Failed, count, duration, el, get, plain, setToken } from "./api.js";
import * as list from "./list.js";
import * as reloads from "./reloads.js";
import * as session from "./session.js";
import * as timeline from "./timeline.js";

const EVERY = 1000, HIDDEN_EVERY = 10_000;
const VIEWS = ["sessions", "reloads"];

const KEYS = [
  ["1 2", "Sessions, reloads", null],
  ["/", "Search", () => (view("sessions"), $("search").select(), $("search").focus())],
  ["↑ ↓ j k", "Move in a list; Page Up, Page Down, Home, End too", null],
  ["Enter", "Open what is chosen", null],
  ["Esc", "Close a panel, or leave the search", null],
  ["s", "Sort by the next column; S turns the order", null],
  ["x", "Close the session that is open", null],
  ["r", "Rehearse the service that is chosen", null],
  ["← →", "From one mark of the timeline to the next", null],
  ["?", "This list", null],
];

let ledgerSeen = 0, samplesSeen = 0, timer = null, said = null;

export function view(name) {
  for (const other of VIEWS) {
    const tab = $(`tab-${other}`), is = other === name;
    tab.setAttribute("aria-selected", is);
    tab.tabIndex = is ? 0 : -1;
    $(other).hidden = !is;
  }
  if (name === "reloads") timeline.draw();
}

function trouble(text) {
  if (said) return;
  const box = $("trouble");
  if (box.textContent !== text) box.textContent = text;
  box.hidden = !text;
  box.className = "";
}

// Says what came of a change, for a while.
function message(text) {
  clearTimeout(said);
  const box = $("trouble");
  Object.assign(box, { textContent: text, hidden: false, className: "good" });
  said = setTimeout(() => (said = null, trouble("")), 8000);
}

function host(status) {
  const h = status.host, sessions = status.services.reduce((n, s) => n + s.sessions, 0);
  const words = [h.worker, `${count(sessions)} sessions`, `up ${duration(h.uptime_s)}`];
  if (h.workers_before) words.push(`${h.workers_before} workers before`);
  words.push(`version ${h.version}`);
  if ($("host").textContent !== words.join(" · ")) $("host").textContent = words.join(" · ");
  const wrong = [
    h.worker === "serving" ? null : h.reason,
    h.not_accepting && `no new connections: ${h.not_accepting}`,
    h.stalled && `stalled: ${h.stalled.text}`,
    ...h.failing.map(f => `${f.what}: ${f.why}`),
    ...h.missing,
  ].filter(Boolean);
  trouble(plain(wrong.join("; ")));
}

async function look() {
  clearTimeout(timer);
  try {
    const live = await get(`/api/live?ledger=${ledgerSeen}&samples=${samplesSeen}`);
    host(live.status);
    timeline.add(live.samples);
    samplesSeen = timeline.lastSample();
    reloads.status(live.status, live.samples.at(-1));
    if (live.ledger) {
      const first = ledgerSeen === 0;
      ledgerSeen = live.ledger.last;
      if (live.ledger.lines.length) {
        const swapped = reloads.lines(live.ledger.lines);
        if (!first) for (const service of new Set(swapped)) session.swapped(service);
      }
    } else if (live.ledger_error) trouble(plain(live.ledger_error));
    if (!$("sessions").hidden) list.refresh();
    if (!$("reloads").hidden) timeline.draw();
    document.body.classList.remove("lost");
  } catch (e) {
    if (!(e instanceof Failed)) throw e;
    document.body.classList.add("lost");
    if (e.status === 401) return void login();
    said = null;
    trouble(`${plain(e.message)}; tried again`);
  }
  timer = setTimeout(look, document.hidden ? HIDDEN_EVERY : EVERY);
}

function login() {
  const dialog = $("login");
  if (dialog.open) return;
  dialog.addEventListener("close", () => {
    setToken($("token").value);
    $("token").value = "";
    trouble("");
    look();
    list.refresh();
  }, { once: true });
  dialog.addEventListener("cancel", event => event.preventDefault());
  dialog.showModal();
}

function help() {
  $("help").showModal();
}

function key(event) {
  if (document.querySelector("dialog[open]") || event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input, select, textarea");
  if (event.key === "Escape") {
    if (typing) {
      // Else the search would be cleared.
      if (event.target === $("search")) (event.preventDefault(), $("list").focus());
      return;
    }
    if (!$("reloads").hidden) return void (reloads.hideRehearsal() || reloads.closeDetails());
    if (session.isOpen()) session.close();
    return;
  }
  if (typing) return;
  const act = {
    1: () => tab(0), 2: () => tab(1),
    "/": KEYS[1][2],
    "?": help,
    s: () => $("sessions").hidden || list.sortNext(),
    S: () => $("sessions").hidden || list.turn(),
    x: () => session.isOpen() && !$("sessions").hidden && session.act("close"),
    r: () => $("reloads").hidden || reloads.rehearse(reloads.current()),
  }[event.key];
  if (act) (event.preventDefault(), act());
}

function tab(n) {
  view(VIEWS[n]);
  if (n === 0) $("list").focus();
  else $(`tab-${VIEWS[n]}`).focus();
}

$("keys").append(...KEYS.map(([keys, text]) =>
  el("div", {}, el("dt", {}, keys.split(" ").map(k => el("kbd", {}, k))), el("dd", {}, text))));
$("help-open").addEventListener("click", help);
for (const [n, name] of VIEWS.entries()) {
  $(`tab-${name}`).addEventListener("click", () => view(name));
  $(`tab-${name}`).addEventListener("keydown", event => {
    const step = { ArrowRight: 1, ArrowLeft: VIEWS.length - 1 }[event.key];
    if (!step) return;
    const next = VIEWS[(n + step) % VIEWS.length];
    view(next);
    $(`tab-${next}`).focus();
  });
}
document.addEventListener("keydown", key);
document.addEventListener("visibilitychange", () => document.hidden || look());
session.start(() => (list.forget(), $("list").focus()));
reloads.start(message);
list.start(session.open);
look();
