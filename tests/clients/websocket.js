// WebSocket client for the tests, by the package `ws`. Prints what it gets, a line each.
"use strict";
const WebSocket = require("ws");
const readline = require("node:readline");

const headers = { "User-Agent": "node-ws" };
const ws = new WebSocket(process.argv[2], ["chat.v1"], { headers });
const heard = [], waiting = [];
ws.on("message", data => {
  const listener = waiting.shift();
  if (listener) listener(data.toString());
  else heard.push(data.toString());
});
const receive = () => new Promise(done => heard.length ? done(heard.shift()) : waiting.push(done));

async function round() {
  ws.send("h\u00e9llo");
  console.log(await receive());
  const pong = new Promise(done => ws.once("pong", done));
  ws.ping();
  await pong;
  console.log("pong");
  ws.send("bytes " + "x".repeat(90_000 - "bytes ".length));
  console.log((await receive()).length, "bytes");
  ws.send("frag", { fin: false });
  ws.send("", { fin: false });
  ws.send("ments", { fin: true });
  console.log(await receive());
}

// Does what each line of standard input asks for.
ws.on("open", async () => {
  console.log(ws.protocol);
  console.log(await receive());
  for await (const asked of readline.createInterface({ input: process.stdin })) {
    if (asked !== "close") {
      await round();
      continue;
    }
    ws.on("close", (code, reason) => {
      console.log(code, reason.toString());
      process.exit(0);
    });
    ws.send("close 4002 enough");
  }
});
