// Trace of the session that is open: each turn as it happens, until it is stopped or the panel is
// closed. The host never waits for this page: what it takes too slowly is left out, and counted.

import { clock, count, el, follow, plain } from "./api.js";

const TURNS_MAX = 200;

let stop = null, id = null, button = null, table = null, told = null;

document.addEventListener("session", event => {
  end();
  id = event.detail?.id ?? null;
  if (id === null) return;
  button = el("button", { type: "button", id: "trace-button", "aria-pressed": "false", title: "t", onclick: toggle }, "Trace");
  told = el("p", { class: "quiet", role: "status" });
  table = el("tbody");
  event.detail.into.replaceChildren(el("h3", {}, "Trace"), el("div", { class: "bar" }, button, told));
});

export function toggle() {
  if (id === null) return;
  if (stop) return void end("stopped");
  const mine = stop = new AbortController();
  let turns = 0, leftOut = 0;
  table.replaceChildren();
  button.setAttribute("aria-pressed", "true");
  button.textContent = "Stop the trace";
  const head = ["Turn", "Action", "Changed", "Effects", "Took"];
  if (!button.parentNode.parentNode.querySelector("table")) {
    button.parentNode.after(el("div", { class: "wide", id: "turns", tabindex: 0, role: "region", "aria-label": "Turns" },
      el("table", {}, el("thead", {}, el("tr", {}, head.map(t => el("th", { scope: "col" }, t)))), table)));
  }
  const say = () => (told.textContent = turns + leftOut === 0 ? "waits for a turn"
    : `${count(turns)} turns${leftOut ? `, ${count(leftOut)} left out: they came faster than they were read` : ""}`);
  follow(`/api/trace?session=${id}`, mine.signal, line => {
    if (stop !== mine) return;
    if (line.turn) {
      turns++;
      table.prepend(row(line.turn));
      if (table.children.length > TURNS_MAX) table.lastChild.remove();
    }
    if (line.left_out) leftOut += line.left_out;
    if (line.error) return void end(line.error);
    say();
  }).then(() => stop === mine && end("ended"), e => stop === mine && end(e.message));
}

function end(why = "") {
  stop?.abort();
  stop = null;
  if (!button) return;
  button.setAttribute("aria-pressed", "false");
  button.textContent = "Trace";
  if (why) told.textContent = `${told.textContent ? `${told.textContent}; ` : ""}${plain(why)}`;
}

function row(t) {
  const failed = t.fault ?? t.reason ?? (t.outcome === "applied" ? null : t.outcome);
  const list = items => el("ul", { class: "plain" }, items.map(i => el("li", {}, i)));
  return el("tr", { title: `generation ${t.generation}, build ${plain(t.build.slice(0, 12))}` },
    el("th", { scope: "row", class: "number" }, t.turn, el("br"), el("span", { class: "quiet" }, clock(Date.parse(t.at)))),
    el("td", {}, el("b", {}, plain(t.action.action)), " ", words(t.action, ["kind", "action", "depth", "detail"])),
    el("td", {}, list(t.changes.map(c => [el("span", { class: "name" }, plain(c.field || "state")), ": ",
      el("span", { class: "then" }, short(c.before)), " → ", el("span", { class: "now" }, short(c.after))]).map(parts => el("span", {}, parts)))),
    el("td", {}, list([...t.effects.map(e => el("span", {}, el("b", {}, plain(e.effect)), " ", words(e, ["effect"]))),
      ...t.log.map(l => el("span", { class: "quiet" }, `log: ${short(l)}`)),
      ...(t.closes ? ["closes the session"] : []),
      ...(failed ? [el("span", { class: "bad" }, typeof failed === "string" ? plain(failed) : short(failed))] : [])])),
    el("td", { class: "number" }, t.took_us === null || t.took_us === undefined ? "" : `${t.took_us.toFixed(1)} µs`));
}

// The rest of the fields that say something, in words.
function words(of, without) {
  return Object.entries(of).filter(([name, value]) => !without.includes(name) && value && value.length !== 0)
    .map(([name, value]) => ["data", "name"].includes(name) ? short(value) : `${name} ${short(value)}`).join(", ");
}

function short(value) {
  if (value === undefined) return "–";
  const text = typeof value === "string" ? JSON.stringify(value) : typeof value === "object" && value ? JSON.stringify(value) : String(value);
  return plain(text.length > 160 ? `${text.slice(0, 160)}…` : text);
}
