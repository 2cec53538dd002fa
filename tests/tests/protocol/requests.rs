//! Requests and data at random: right ones of every command with values at the edges, and spoiled
//! ones. All of it follows from the generator's seed.

use fastrand::Rng;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::OnceLock;

/// Paths that requests name, beside made-up ones.
pub(crate) static PATHS: OnceLock<Vec<PathBuf>> = OnceLock::new();

/// Longest request that a host reads, in bytes.
pub(crate) const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// Value at random among some.
fn one<T: Clone>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.usize(..of.len())].clone()
}

/// Number, often one at an edge.
fn number(rng: &mut Rng) -> u64 {
    let edges = [0, 1, 99, 1000, 65_535, u64::from(u32::MAX), (1 << 53) + 1, i64::MAX as u64, u64::MAX];
    match rng.u8(..4) {
        0 => one(rng, &edges),
        1 => rng.u64(..),
        _ => rng.u64(..60),
    }
}

/// Text: a name that is known, one that is not, and one that nobody would choose.
fn text(rng: &mut Rng) -> String {
    let texts =
        ["tally", "echo", "chat", "t", "nobody", "", "1", "a.b[0]", "count>=1", "count=x", "ü\u{202e}"];
    match rng.u8(..8) {
        0 => "\u{1b}[2J\0\n\r\u{9b}".repeat(rng.usize(..20)),
        1 => one(rng, &["x", "a.", "[", "\"", "ü"]).repeat(rng.usize(..3000)),
        _ => one(rng, &texts).to_owned(),
    }
}

/// Path: of a library, of something that is no file, or of nothing.
fn path(rng: &mut Rng) -> Value {
    let known = PATHS.get().map_or(&[][..], Vec::as_slice);
    match rng.u8(..3) {
        0 => json!(one(rng, &["/", "/dev/zero", "/dev/null", "/nowhere", "", "here", "/etc/passwd", "a\0b"])),
        _ if known.is_empty() => json!("/dev/null"),
        _ => json!(one(rng, known)),
    }
}

/// Value of JSON that nests up to so deep.
pub(crate) fn value(rng: &mut Rng, depth: usize) -> Value {
    match rng.u8(..if depth == 0 { 7 } else { 10 }) {
        0 => Value::Null,
        1 => json!(rng.bool()),
        2 => json!(number(rng)),
        3 => json!(-(rng.i64(..i64::MAX).abs())),
        4 => json!(one(rng, &[0.5, -0.0, 1e15, 1e300, 5e-324])),
        5 => json!({ "$b64": one(rng, &["", "/w==", "%", "AAAA"]) }),
        6 => json!(text(rng)),
        7 => (0..rng.usize(..4)).map(|_| value(rng, depth - 1)).collect(),
        _ => (0..rng.usize(..4)).map(|_| (text(rng), value(rng, depth - 1))).collect(),
    }
}

/// Null, or what `of` makes.
fn maybe(rng: &mut Rng, of: impl FnOnce(&mut Rng) -> Value) -> Value {
    if rng.bool() { Value::Null } else { of(rng) }
}

/// List of up to so many.
fn list(rng: &mut Rng, most: usize, mut of: impl FnMut(&mut Rng) -> Value) -> Value {
    (0..rng.usize(..=most)).map(|_| of(rng)).collect()
}

/// Selection of sessions.
fn selection(rng: &mut Rng) -> Value {
    let mut of = json!({});
    for key in
        ["service", "sessions", "peer", "older_ms", "younger_ms", "idle_ms", "quarantined", "conditions"]
    {
        if rng.u8(..3) == 0 {
            of[key] = match key {
                "sessions" => list(rng, 4, |rng| json!(number(rng))),
                "conditions" => list(rng, 3, |rng| json!(text(rng))),
                "quarantined" => json!(rng.bool()),
                "service" | "peer" => json!(text(rng)),
                _ => json!(number(rng)),
            };
        }
    }
    of
}

/// Sessions to watch. Some names are those of older forms.
fn subject(rng: &mut Rng) -> Value {
    match rng.u8(..4) {
        0 => json!({ "sessions": list(rng, 4, |rng| json!(number(rng))) }),
        1 => json!({ "service": { "name": text(rng), "per_mille": rng.u16(..) } }),
        2 => json!({ "peer": one(rng, &["127.0.0.1", "::1", "0.0.0.0", "nowhere"]) }),
        _ => json!({ "peer-at": one(rng, &["127.0.0.1:1", "[::1]:65535", "127.0.0.1"]) }),
    }
}

/// Request of a command, with random values of the right types. A command without an arm here is
/// a failure: it would not be tried.
pub(crate) fn command(rng: &mut Rng, name: &str) -> Value {
    let of = match name {
        "status" | "metrics" | "history" | "tables" | "canaries" | "configure" | "undo" => {
            return json!(name);
        }
        // The host's own log stays readable.
        "log" => maybe(rng, |rng| {
            let level = maybe(rng, |rng| json!(one(rng, &["info", "debug", "trace", "loud"])));
            json!({ "level": level, "service": maybe(rng, |rng| json!(text(rng))), "for_ms": maybe(rng, |rng| json!(number(rng))) })
        }),
        "sessions" => {
            let sorts =
                ["id", "service", "peer", "age", "idle", "turns", "bytes-in", "bytes-out", "unsent", "state"];
            let count = number(rng);
            let first = json!({ "by": one(rng, &sorts), "reverse": rng.bool(), "count": count });
            json!({ "of": selection(rng), "first": maybe(rng, |_| first) })
        }
        "release" | "close" | "show" | "await" => json!(number(rng)),
        "close-all" => list(rng, 5, |rng| json!(number(rng))),
        "message" => json!({ "sessions": list(rng, 5, |rng| json!(number(rng))), "text": text(rng) }),
        "withhold" | "promote" | "take-back" => json!(text(rng)),
        "dump" => json!({ "of": selection(rng), "strings": rng.bool(), "lines": rng.bool() }),
        "entries" => json!({
            "table": one(rng, &["t", "u", "none", ""]), "key": maybe(rng, |rng| value(rng, 1)),
            "from": maybe(rng, |rng| json!(text(rng))), "prefix": maybe(rng, |rng| json!(text(rng))),
            "limit": maybe(rng, |rng| json!(number(rng))), "conditions": list(rng, 2, |rng| json!(text(rng))),
            "strings": rng.bool(),
        }),
        "reload" => json!({
            "service": maybe(rng, |rng| json!(text(rng))), "from": maybe(rng, path), "together": rng.bool(),
            "dry_run": rng.bool(), "against": maybe(rng, |rng| json!([path(rng), list(rng, 2, |rng| json!(text(rng)))])),
        }),
        "canary" => json!({ "service": text(rng), "from": maybe(rng, path), "wish": {
            "share": one(rng, &[0, 1, 500, 10_000, 10_001, u32::MAX]), "sessions": list(rng, 3, |rng| json!(number(rng))),
            "fields": list(rng, 2, |rng| json!([text(rng), value(rng, 1)])), "compare_every": rng.u32(..),
            "promote_after_ms": maybe(rng, |rng| json!(number(rng))), "faults_max": maybe(rng, |rng| json!(number(rng))),
        }}),
        "roll-back" => json!({ "service": text(rng), "to": maybe(rng, |rng| json!(number(rng))) }),
        "restore" => json!({ "file": text(rng), "dry_run": rng.bool() }),
        "amend" => json!({
            "session": maybe(rng, |rng| json!([number(rng), text(rng)])),
            "entries": maybe(rng, |rng| json!({
                "table": text(rng), "keys": list(rng, 3, |rng| value(rng, 1)), "deletes": rng.bool(),
            })),
        }),
        "set" => {
            let fields = list(rng, 3, |rng| json!([one(rng, &["count", "a.b", "", "nick"]), value(rng, 2)]));
            json!({ "session": number(rng), "fields": fields })
        }
        "watch" => json!({
            "subject": subject(rng), "for_ms": maybe(rng, |rng| json!(rng.u64(..40))),
            "record": maybe(rng, |rng| json!({ "redact": list(rng, 3, |rng| json!(text(rng))) })),
        }),
        "upgrade" => json!({ "binary": path(rng) }),
        other => panic!("no requests of {other} are made: write an arm for it"),
    };
    json!({ name: of })
}

/// Piece of data behind a request, with random values of the right types.
pub(crate) fn piece(rng: &mut Rng) -> Value {
    match rng.u8(..8) {
        0 | 1 => json!({ "session": {
            "id": number(rng), "service": text(rng), "state_version": rng.u32(..3),
            "state": maybe(rng, |rng| json!({ "count": number(rng) })),
        }}),
        2 => {
            json!({ "table": { "name": one(rng, &["t", "u", "a b", ""]), "version": maybe(rng, |_| json!(1)) } })
        }
        3 | 4 => json!({ "entry": {
            "key": text(rng), "value": value(rng, 3), "version": maybe(rng, |rng| json!(rng.u32(..))),
            "until_ms": maybe(rng, |rng| json!(number(rng))),
        }}),
        5 => json!({ "delete": value(rng, 1) }),
        6 => json!({ "malformed": text(rng) }),
        _ => json!({ "entry": { "key": value(rng, 1), "value": value(rng, 2) } }),
    }
}

/// Replaces, deletes or renames something at a random place of a value.
pub(crate) fn spoil_value(rng: &mut Rng, of: &mut Value) {
    let deeper = rng.u8(..4) > 0;
    match of {
        Value::Array(items) if deeper && !items.is_empty() => {
            let at = rng.usize(..items.len());
            return spoil_value(rng, &mut items[at]);
        }
        Value::Object(fields) if !fields.is_empty() => {
            let key = fields.keys().nth(rng.usize(..fields.len())).cloned().unwrap_or_default();
            if deeper {
                return spoil_value(rng, &mut fields[&key]);
            }
            let value = fields.remove(&key).unwrap_or_default();
            if rng.bool() {
                fields.insert(text(rng), value);
            }
            return;
        }
        _ => {}
    }
    *of = value(rng, 2);
}

/// Changes bytes of a text: cuts, repeats, overwrites, nests, or makes it long.
pub(crate) fn spoil(rng: &mut Rng, text: &mut Vec<u8>) {
    let at = rng.usize(..=text.len());
    match rng.u8(..12) {
        0 => text.truncate(at),
        1 => _ = text.drain(..at),
        2 => text.insert(at, rng.u8(..)),
        3 => text.splice(at..at, *b"\xff\xfe\xc3(").for_each(drop),
        4 => text.extend(text.clone()),
        5 => text.splice(at..at, text[at..].to_vec()).for_each(drop),
        // Digits become other numbers, brackets and quotes no JSON.
        6 | 7 if at < text.len() => text[at] = one(rng, b"0-9e.\"\\{}[],:\0 \x7f"),
        8 => {
            let levels = one(rng, &[3, 130, 391, 393, 30_000]);
            text.splice(0..0, vec![b'['; levels]).for_each(drop);
            text.extend(vec![b']'; levels]);
        }
        9 => {
            // Around the longest request: a space is no part of the JSON.
            let long = REQUEST_BYTES_MAX + rng.usize(..4) - 2;
            text.resize(text.len().max(long - 1), b' ');
        }
        10 => text.extend(vec![b'x'; rng.usize(..300_000)]),
        _ => text.reverse(),
    }
}

/// Line of a request, without its end: half of them right, the others spoiled.
pub(crate) fn line(rng: &mut Rng, name: &str) -> Vec<u8> {
    let mut of = command(rng, name);
    let how = rng.u8(..8);
    if how == 0 || how == 1 {
        spoil_value(rng, &mut of);
    }
    let mut text = of.to_string().into_bytes();
    if how == 2 || how == 3 {
        spoil(rng, &mut text);
    }
    text
}

/// Data behind a request: pieces, some of them spoiled, mostly up to the end.
pub(crate) fn data(rng: &mut Rng) -> Vec<Vec<u8>> {
    let mut lines: Vec<_> = (0..rng.usize(..12)).map(|_| piece(rng).to_string().into_bytes()).collect();
    for line in &mut lines {
        let right = line.clone();
        if rng.u8(..4) == 0 {
            spoil(rng, line);
        }
        // Long lines are tried as requests; here they would take the time of others.
        if line.len() > 20_000 {
            *line = right;
        }
    }
    if rng.u8(..4) > 0 {
        lines.push(b"\"end\"".to_vec());
    }
    lines
}
