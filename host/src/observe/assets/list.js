// The list of sessions: only the rows in sight are in the page, and only their part of the list is
// asked for. So 100,000 sessions cost as much as thirty.

import { $, bytes, count, duration, el, get, plain } from "./api.js";

const ROW = 30;
const PAGE = 100;
// Browsers draw no element of any height: beyond this the list is scrolled in proportion.
const HEIGHT_MAX = 8_000_000;

const COLUMNS = [
  ["id", "ID", r => r.id],
  ["service", "Service", r => plain(r.service)],
  ["peer", "Peer", r => plain(r.peer)],
  ["opened", "Open for", r => duration((Date.now() - Date.parse(r.opened_at)) / 1000)],
  ["turns", "Turns", r => count(r.turns)],
  ["rate", "Turns/s", r => r.rate ? r.rate.toFixed(r.rate < 10 ? 1 : 0) : ""],
  ["in", "In", r => bytes(r.bytes_in)],
  ["out", "Out", r => bytes(r.bytes_out)],
  ["state", "State", r => r.quarantined ? "quarantined" : r.waits_for ? `waits for ${r.waits_for}` : ""],
];

const list = $("list"), head = list.querySelector(".head"), scroll = list.querySelector(".scroll");
const rows = list.querySelector(".rows");
const shown = new Map(); // place in the list: element
let pages = new Map(); // number of a page: { version, sessions }
let asked = new Set();
let sort = { by: "id", down: false };
let total = 0, version = 0, active = 0, chosen = null, generation = 0;
let open = () => {};

export function start(onOpen) {
  open = onOpen;
  for (const [by, name] of COLUMNS) {
    const button = el("button", { type: "button", tabindex: "-1", onclick: () => sortBy(by) }, name);
    head.append(el("div", { role: "columnheader", class: `cell ${by}`, "data-by": by }, button));
  }
  list.setAttribute("aria-colcount", COLUMNS.length);
  scroll.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
  // The chosen row stays in sight when a panel opens.
  new ResizeObserver(() => list.clientHeight && move(active)).observe(scroll);
  rows.addEventListener("click", event => {
    const row = event.target.closest("[data-at]");
    if (row) choose(Number(row.dataset.at));
  });
  list.addEventListener("keydown", key);
  let pause;
  $("search").addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(anew, 150);
  });
  $("search").addEventListener("keydown", event => {
    if (event.key === "ArrowDown") (event.preventDefault(), list.focus());
  });
  $("search").form.addEventListener("submit", event => (event.preventDefault(), list.focus()));
  showSort();
  anew();
}

// Draws what came meanwhile, and asks for the next list.
export function refresh() {
  draw();
  for (const page of inSight()) ask(page, true);
}

function anew() {
  generation++;
  pages = new Map();
  asked = new Set();
  active = 0;
  scroll.scrollTop = 0;
  ask(0, true);
}

export function sortBy(by) {
  sort = { by, down: sort.by === by ? !sort.down : ["turns", "rate", "in", "out"].includes(by) };
  showSort();
  anew();
}

export function sortNext() {
  sortBy(COLUMNS[(COLUMNS.findIndex(([by]) => by === sort.by) + 1) % COLUMNS.length][0]);
}

export function turn() {
  sortBy(sort.by);
}

function showSort() {
  for (const cell of head.children) {
    const order = cell.dataset.by === sort.by ? (sort.down ? "descending" : "ascending") : "none";
    cell.setAttribute("aria-sort", order);
  }
}

async function ask(page, again = false) {
  if (asked.has(page) || (!again && pages.has(page))) return;
  asked.add(page);
  const mine = generation;
  const query = new URLSearchParams({
    q: $("search").value, sort: sort.by, down: sort.down ? 1 : 0, from: page * PAGE, count: PAGE,
  });
  try {
    const slice = await get(`/api/sessions?${query}`);
    if (mine !== generation) return;
    // Rows of an older list stay in sight until newer ones have come.
    version = slice.version;
    total = slice.total;
    pages.set(page, { version, sessions: slice.sessions });
    if (active >= total) active = Math.max(0, total - 1);
    const all = slice.all === total ? `${count(total)} sessions` : `${count(total)} of ${count(slice.all)} sessions`;
    const age = slice.age_ms > 3000 ? `, ${duration(slice.age_ms / 1000)} old` : "";
    if ($("found").textContent !== all + age) $("found").textContent = all + age;
  } catch (e) {
    if (e.status && e.status !== 401) $("found").textContent = e.message;
  } finally {
    if (mine === generation) asked.delete(page);
  }
  draw();
}

// Height that is scrolled, and the place in the list that is at the top of the window.
function height() {
  return Math.min(total * ROW, HEIGHT_MAX);
}

function top() {
  const beyond = height() - scroll.clientHeight;
  if (total * ROW <= HEIGHT_MAX || beyond <= 0) return scroll.scrollTop;
  return scroll.scrollTop / beyond * (total * ROW - scroll.clientHeight);
}

function window_() {
  const first = Math.max(0, Math.floor(top() / ROW) - 5);
  return [first, Math.min(total, first + Math.ceil(scroll.clientHeight / ROW) + 11)];
}

function inSight() {
  const [first, end] = window_();
  const all = [];
  for (let page = Math.floor(first / PAGE); page * PAGE < Math.max(1, end); page++) all.push(page);
  return all;
}

function rowAt(at) {
  return pages.get(Math.floor(at / PAGE))?.sessions[at % PAGE];
}

function draw() {
  rows.style.height = `${height()}px`;
  list.setAttribute("aria-rowcount", total);
  const [first, end] = window_();
  for (const [at, element] of shown) {
    if (at < first || at >= end) (element.remove(), shown.delete(at));
  }
  const shift = scroll.scrollTop - top();
  for (let at = first; at < end; at++) {
    const row = rowAt(at);
    let element = shown.get(at);
    if (!element) {
      const cells = COLUMNS.map(([by]) => el("div", { role: "gridcell", class: `cell ${by}` }));
      element = el("div", { role: "row", id: `row-${at}`, class: "row", "data-at": at, "aria-rowindex": at + 1 }, cells);
      shown.set(at, element);
      rows.append(element);
    }
    element.style.transform = `translateY(${at * ROW + shift}px)`;
    COLUMNS.forEach(([, , text], n) => {
      const value = row ? String(text(row)) : n ? "" : "…";
      if (element.children[n].textContent !== value) element.children[n].textContent = value;
    });
    element.classList.toggle("bad", Boolean(row?.quarantined));
    element.title = row?.quarantined ? plain(row.quarantined) : "";
    element.classList.toggle("active", at === active);
    element.setAttribute("aria-selected", row !== undefined && row.id === chosen);
    if (!row) ask(Math.floor(at / PAGE));
  }
  if (pages.size > 50) for (const page of pages.keys()) if (!inSight().includes(page)) pages.delete(page);
  list.setAttribute("aria-activedescendant", shown.has(active) ? `row-${active}` : "");
  rows.classList.toggle("empty", total === 0);
}

function move(to) {
  active = Math.max(0, Math.min(total - 1, to));
  const at = active * ROW, seen = top();
  if (at < seen) scrollTo_(at);
  else if (at + ROW > seen + scroll.clientHeight) scrollTo_(at + ROW - scroll.clientHeight);
  draw();
}

function scrollTo_(at) {
  const beyond = total * ROW - scroll.clientHeight;
  scroll.scrollTop = total * ROW <= HEIGHT_MAX ? at : at / beyond * (height() - scroll.clientHeight);
}

function choose(at) {
  active = at;
  const row = rowAt(at);
  if (row) {
    chosen = row.id;
    open(row.id);
  }
  draw();
}

export function forget() {
  chosen = null;
  draw();
}

function key(event) {
  if (event.target !== list || event.ctrlKey || event.metaKey || event.altKey) return;
  const page = Math.max(1, Math.floor(scroll.clientHeight / ROW) - 1);
  const to = {
    ArrowDown: active + 1, j: active + 1, ArrowUp: active - 1, k: active - 1,
    PageDown: active + page, PageUp: active - page, Home: 0, End: total - 1,
  }[event.key];
  if (to !== undefined) (event.preventDefault(), move(to));
  else if (event.key === "Enter") (event.preventDefault(), choose(active));
}

