// Requests to the observer, with the token in a header, and small helpers for the page.

const KEY = "greenroom-token";

// The token comes behind `#`, and leaves the address at once: it is in no history and no bookmark.
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  sessionStorage.setItem(KEY, given);
  history.replaceState(null, "", location.pathname);
}

export function setToken(token) {
  sessionStorage.setItem(KEY, token.trim());
}

// Failure of a request, with its status; 0: nobody answers.
export class Failed extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

async function request(path, options = {}) {
  const headers = { Authorization: `Bearer ${sessionStorage.getItem(KEY) ?? ""}` };
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store", redirect: "error" });
  } catch (e) {
    if (e.name === "AbortError") throw e;
    throw new Failed(0, "the host is not reached");
  }
  if (!response.ok) throw new Failed(response.status, (await response.text()).trim());
  return response;
}

export async function get(path, signal) {
  return (await request(path, { signal })).json();
}

// Reads lines of JSON as they come, and calls `each` with each one.
async function lines(response, each) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const all = (rest + value).split("\n");
    rest = all.pop();
    for (const line of all) if (line) each(JSON.parse(line));
  }
}

export async function follow(path, signal, each) {
  await lines(await request(path, { signal }), each);
}

// Changes something, and calls `each` with what the host says. Fails with the host's reason.
export async function change(path, body, each = () => {}) {
  let ended = false, why = "";
  const options = { method: "POST", body: body === undefined ? undefined : JSON.stringify(body) };
  await lines(await request(path, options), line => {
    if (line.end) ended = true;
    else if (line.error) why = line.error;
    else each(line);
  });
  if (!ended) throw new Failed(409, why || "the answer broke off; the ledger tells what was committed");
}

// An element with attributes and children. Texts of peers and handlers never become markup.
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  set(element, attributes);
  element.append(...children.flat().filter(c => c !== null && c !== undefined));
  return element;
}

export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  set(element, attributes);
  element.append(...children.flat());
  return element;
}

function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
}

export const $ = id => document.getElementById(id);

// Text with control characters and those that turn its direction as their escapes.
export function plain(text) {
  return String(text).replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
    c => c === "\n" ? "\\n" : c === "\t" ? "\\t" : `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

export function count(n) {
  return n.toLocaleString("en");
}

export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (n >= 1024 && at < units.length - 1) (n /= 1024), at++;
  return `${at && n < 100 ? n.toFixed(1) : Math.round(n)} ${units[at]}`;
}

export function duration(s) {
  if (s < 60) return `${Math.max(0, Math.floor(s))} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor(s / 3600) % 24} h`;
}

export function clock(ms) {
  return new Date(ms).toLocaleTimeString("en-GB");
}

// Asks before a change. The button that changes has the focus last.
export function confirm(title, text, yes) {
  $("ask-title").textContent = title;
  $("ask-text").textContent = text;
  $("ask-yes").textContent = yes;
  const dialog = $("ask");
  dialog.returnValue = "no";
  dialog.showModal();
  $("ask-yes").focus();
  return new Promise(resolve =>
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}
