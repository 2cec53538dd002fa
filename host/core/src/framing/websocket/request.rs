//! Request: the HTTP request that begins a WebSocket session, or asks for a page.
//!
//! | request | answer |
//! | --- | --- |
//! | GET that asks for WebSocket, version 13, with a key | 101 |
//! | the same from a foreign origin | 403 |
//! | the same in another version | 426, with the version |
//! | GET, HEAD | a page of the handler, or 404; 500 if its turn failed |
//! | another method | 405 |
//! | with a body | 413 |
//! | longer than [`REQUEST_BYTES_MAX`], or with too many headers | 431 |
//! | not whole in time | 408 |
//! | anything else | 400 |
//!
//! Nothing else of HTTP is spoken: each answer but 101 ends the connection. The head of a
//! request is searched once; it is parsed when it is whole, by `httparse`.

use crate::framing::frame::{Frame, FrameState};
use memchr::memmem;
use std::fmt::Write as _;
use tungstenite::handshake::derive_accept_key;

/// Bytes of a request, at most.
pub(crate) const REQUEST_BYTES_MAX: usize = 8 * 1024;
/// Headers of a request, at most.
const HEADERS_MAX: usize = 64;
/// Headers that a turn may ask for, beside what the request's first line says.
const FACT_HEADERS: [&str; 5] = ["host", "origin", "user-agent", "cookie", "x-forwarded-for"];

/// Finds the end of a request. Searches each byte once.
pub(super) fn cut<'i>(input: &'i [u8], state: &mut FrameState) -> Frame<'i> {
    // TLS and other protocols are told at once: they might wait for an answer.
    if input.first().is_some_and(|byte| !byte.is_ascii_alphabetic()) {
        return Frame::Invalid("the first bytes are no HTTP request");
    }
    let from = (state.searched() as usize).min(input.len()).saturating_sub(3);
    match memmem::find(&input[from..], b"\r\n\r\n").map(|at| from + at + 4) {
        Some(end) if end <= REQUEST_BYTES_MAX => Frame::Request { consumed: end },
        None if input.len() < REQUEST_BYTES_MAX => {
            state.set_searched(input.len() as u32);
            Frame::More
        }
        _ => Frame::TooLong,
    }
}

/// Request that is whole and keeps to HTTP.
#[derive(Debug)]
pub(crate) struct HttpRequest<'i> {
    /// Path, as it was sent.
    pub(crate) path: &'i str,
    /// Bytes behind the first `?`.
    query: &'i str,
    /// Purpose of it.
    pub(crate) wants: Wants<'i>,
    /// Name and value, as they were sent.
    headers: Vec<(&'i str, &'i [u8])>,
}

/// Purpose of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wants<'i> {
    /// WebSocket, with this key.
    Socket(&'i [u8]),
    /// Page; its head alone, if so.
    Page {
        /// Whether the page's bytes are to be left out.
        head_only: bool,
    },
}

/// Request that is refused: status and reason in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal(pub(crate) u16, pub(crate) &'static str);

impl<'i> HttpRequest<'i> {
    /// Reads a whole request. Fails with the answer for the peer.
    pub(crate) fn read(bytes: &'i [u8]) -> Result<HttpRequest<'i>, Refusal> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut headers);
        match parsed.parse(bytes) {
            Ok(httparse::Status::Complete(_)) => {}
            Err(httparse::Error::TooManyHeaders) => return Err(Refusal(431, "too many headers")),
            _ => return Err(Refusal(400, "not an HTTP request")),
        }
        let (method, target) = (parsed.method.unwrap_or_default(), parsed.path.unwrap_or_default());
        let is_1_1 = parsed.version == Some(1);
        let headers = parsed.headers.iter().map(|h| (h.name, h.value)).collect();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut request =
            HttpRequest { path, query, wants: Wants::Page { head_only: method == "HEAD" }, headers };
        if !path.starts_with('/') {
            return Err(Refusal(400, "the target is no path"));
        }
        if is_1_1 && request.all("host").count() != 1 {
            return Err(Refusal(400, "one Host header is needed"));
        }
        if !matches!(method, "GET" | "HEAD") {
            return Err(Refusal(405, "GET and HEAD are answered here"));
        }
        let has_length = request.all("content-length").any(|length| length != b"0");
        if has_length || request.all("transfer-encoding").next().is_some() {
            return Err(Refusal(413, "a request has no body here"));
        }
        if request.lists("upgrade", "websocket") {
            request.wants = Wants::Socket(request.key(method, is_1_1)?);
        }
        Ok(request)
    }

    /// Returns the key of a request for WebSocket. Fails if the request is not what RFC 6455
    /// asks for in section 4.2.1.
    fn key(&self, method: &str, is_1_1: bool) -> Result<&'i [u8], Refusal> {
        if method != "GET" {
            return Err(Refusal(405, "WebSocket begins with GET"));
        }
        if !is_1_1 || !self.lists("connection", "upgrade") {
            return Err(Refusal(400, "WebSocket needs HTTP/1.1 and Connection: Upgrade"));
        }
        if self.value("sec-websocket-version") != Some(b"13") {
            return Err(Refusal(426, "WebSocket is spoken in version 13"));
        }
        let mut keys = self.all("sec-websocket-key");
        let key = keys.next().filter(|key| is_key(key) && keys.next().is_none());
        key.ok_or(Refusal(400, "Sec-WebSocket-Key is not one key of 16 bytes"))
    }

    /// Iterates over the values of a header, whose name is given in lower case. O(headers).
    fn all<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'i [u8]> + 's {
        self.headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    /// Returns the first value of a header.
    fn value(&self, name: &str) -> Option<&'i [u8]> {
        self.all(name).next()
    }

    /// Iterates over the items of a header that is a list.
    fn items<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'i [u8]> + 's {
        self.all(name).flat_map(|value| value.split(|b| *b == b',')).map(<[u8]>::trim_ascii)
    }

    /// Returns whether a header that is a list has an item, in any case.
    fn lists(&self, name: &str, item: &str) -> bool {
        self.items(name).any(|i| i.eq_ignore_ascii_case(item.as_bytes()))
    }

    /// Returns whether its origin may open sessions. A request without an origin is no browser's.
    /// `allowed`: origins, and `*` for any; empty: the host that the request names.
    pub(crate) fn is_from(&self, allowed: &[String]) -> bool {
        let Some(origin) = self.value("origin") else { return true };
        if allowed.is_empty() {
            let host = self.value("host").unwrap_or_default();
            let at = memmem::find(origin, b"://").map_or(0, |at| at + 3);
            return self.all("origin").count() == 1 && origin[at..].eq_ignore_ascii_case(host);
        }
        allowed.iter().any(|a| a == "*" || origin.eq_ignore_ascii_case(a.as_bytes()))
    }

    /// Returns the first subprotocol of the peer that is among those of the service.
    pub(crate) fn protocol<'p>(&self, spoken: &'p [String]) -> Option<&'p str> {
        self.items("sec-websocket-protocol")
            .find_map(|asked| spoken.iter().find(|p| p.as_bytes() == asked))
            .map(String::as_str)
    }

    /// Returns what turns may know of it: names and values. Values are bounded by the request.
    /// Several headers of a name are one list.
    pub(crate) fn facts(&self, protocol: Option<&str>) -> Vec<(&'static str, Vec<u8>)> {
        let mut facts = vec![("path", self.path.into()), ("query", self.query.into())];
        facts.extend(protocol.map(|p| ("protocol", p.into())));
        for name in FACT_HEADERS {
            let separator: &[u8] = if name == "cookie" { b"; " } else { b", " };
            let values: Vec<_> = self.all(name).collect();
            if !values.is_empty() {
                facts.push((name, values.join(separator)));
            }
        }
        facts
    }
}

/// Whether a key is 16 bytes in base64.
fn is_key(key: &[u8]) -> bool {
    let digit = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(digit)
}

/// Appends the answer that opens a session.
pub(crate) fn accept(key: &[u8], protocol: Option<&str>, out: &mut Vec<u8>) {
    let mut head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n",
        derive_accept_key(key)
    );
    if let Some(protocol) = protocol {
        let _ = write!(head, "Sec-WebSocket-Protocol: {protocol}\r\n");
    }
    out.extend(head.bytes());
    out.extend(b"\r\n");
}

/// Appends a refusal, with its reason as a page of one line.
pub(crate) fn refuse(Refusal(status, why): Refusal, head_only: bool, out: &mut Vec<u8>) {
    let more = match status {
        405 => "Allow: GET, HEAD\r\n",
        426 => "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
        _ => "",
    };
    let page = format!("{status} {}: {why}\n", phrase(status));
    respond(status, more, b"text/plain; charset=utf-8", page.as_bytes(), head_only, out);
}

/// Appends a page.
pub(crate) fn page(content_type: &[u8], page: &[u8], head_only: bool, out: &mut Vec<u8>) {
    respond(200, "", content_type, page, head_only, out);
}

/// Appends a response, behind which the connection ends.
fn respond(status: u16, more: &str, content_type: &[u8], page: &[u8], head_only: bool, out: &mut Vec<u8>) {
    let (phrase, len) = (phrase(status), page.len());
    out.extend(format!("HTTP/1.1 {status} {phrase}\r\n{more}Content-Type: ").bytes());
    out.extend(content_type);
    out.extend(format!("\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n").bytes());
    if !head_only {
        out.extend(page);
    }
}

/// Words of a status.
fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        _ => "Bad Request",
    }
}

/// Appends the response for the end of a session without a handshake. No response: nothing came,
/// or nothing is wrong with what came.
pub(super) fn refuse_end(code: u16, out: &mut Vec<u8>) {
    match code {
        1002 => refuse(Refusal(400, "not an HTTP request"), false, out),
        1008 => refuse(Refusal(408, "the request was not whole in time"), false, out),
        1009 => refuse(Refusal(431, "the request is too long"), false, out),
        _ => {}
    }
}
