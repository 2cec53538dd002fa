//! HTTP/1.1, as much of it as browsers, scrapers and probes need: one request for each connection.
//!
//! `httparse` reads the head. All else is bounded here: a peer has 5 s for its request, however
//! slowly it sends, and the time of each write is limited. So a slow peer costs a thread for a few
//! seconds, and nothing else.

use httparse::{EMPTY_HEADER, Status};
use serde::Serialize;
use std::borrow::Cow;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Most headers of a request.
const HEADERS_MAX: usize = 64;
/// Longest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// Time in which a request must be here.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// Time in which a peer must take some of an answer.
const WRITE_MAX: Duration = Duration::from_secs(5);
/// Bytes that are read at once from a peer whose request was refused.
const REST_BYTES: usize = 4 * 1024;
/// Headers of each answer. The page runs its own scripts alone, in no frame, and nothing is kept.
const HEADERS: &str = "Connection: close\r\n\
     Cache-Control: no-store\r\n\
     Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\
     Cross-Origin-Opener-Policy: same-origin\r\n\
     Cross-Origin-Resource-Policy: same-origin\r\n\
     Referrer-Policy: no-referrer\r\n\
     X-Content-Type-Options: nosniff\r\n\
     X-Frame-Options: DENY\r\n";

/// Method of a request that is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// Asks.
    Get,
    /// Asks for the head of the answer alone.
    Head,
    /// Changes something.
    Post,
}

/// A request.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    /// Path, without its query.
    pub(super) path: String,
    /// Fields of the query, decoded.
    query: Vec<(String, String)>,
    /// Headers that are looked at.
    pub(super) host: Option<String>,
    pub(super) origin: Option<String>,
    pub(super) authorization: Option<String>,
    pub(super) accept: Option<String>,
    pub(super) body: Vec<u8>,
}

/// An answer that is whole.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    kind: &'static str,
    body: Cow<'static, [u8]>,
}

impl Request {
    /// Reads a request. `Err`: the answer that refuses it. An error of input or output: nobody is
    /// there any more.
    pub(super) fn read(stream: &TcpStream) -> io::Result<Result<Request, Response>> {
        let mut from = InTime { stream, until: Instant::now() + REQUEST_MAX };
        let mut bytes = Vec::new();
        loop {
            match from.more(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(e) if is_late(&e) => {
                    return Ok(Err(Response::text(408, "the request took too long")));
                }
                Err(e) => return Err(e),
            }
            match head(&bytes) {
                Ok(Some((request, head_len, body_len))) => {
                    return from.body(request, bytes.split_off(head_len), body_len);
                }
                Ok(None) if bytes.len() < HEAD_BYTES_MAX => {}
                Ok(None) => return Ok(Err(Response::text(431, "the head of the request is too long"))),
                Err(refused) => return Ok(Err(refused)),
            }
        }
    }

    /// Value of a field of the query.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Value of a field of the query as a number; `default` if it is missing or none.
    pub(super) fn number(&self, name: &str, default: usize) -> usize {
        self.field(name).and_then(|text| text.parse().ok()).unwrap_or(default)
    }
}

/// Reads the head. `None`: more must come. Returns the request without its body, the length of the
/// head, and that of the body.
fn head(bytes: &[u8]) -> Result<Option<(Request, usize, usize)>, Response> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let len = match parsed.parse(bytes) {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Response::text(431, "too many headers")),
        Err(e) => return Err(Response::text(400, &format!("not a request of HTTP: {e}"))),
    };
    let method = match parsed.method {
        Some("GET") => Method::Get,
        Some("HEAD") => Method::Head,
        Some("POST") => Method::Post,
        _ => return Err(Response::text(405, "only GET, HEAD and POST are answered")),
    };
    let target = parsed.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let header = |name: &str| {
        let mut all = parsed.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name));
        let first = all.next().map(|h| String::from_utf8_lossy(h.value).trim().to_owned());
        // Two of one name: servers on the way may have looked at the other one.
        if all.next().is_some() {
            Err(Response::text(400, &format!("two headers {name}")))
        } else {
            Ok(first)
        }
    };
    if header("transfer-encoding")?.is_some() {
        return Err(Response::text(411, "a body needs a Content-Length"));
    }
    let body_len = match header("content-length")? {
        None => 0,
        Some(text) => text.parse().map_err(|_| Response::text(400, "Content-Length is no number"))?,
    };
    if body_len > BODY_BYTES_MAX {
        return Err(Response::text(413, &format!("a body has at most {BODY_BYTES_MAX} bytes")));
    }
    let request = Request {
        method,
        path: path.to_owned(),
        query: query
            .split('&')
            .filter_map(|f| f.split_once('='))
            .map(|(n, v)| (plain(n), plain(v)))
            .collect(),
        host: header("host")?,
        origin: header("origin")?,
        authorization: header("authorization")?,
        accept: header("accept")?,
        body: Vec::new(),
    };
    Ok(Some((request, len, body_len)))
}

/// Decodes a name or value of a query. A broken escape stays as it is.
fn plain(text: &str) -> String {
    let (mut rest, mut out) = (text.as_bytes(), Vec::new());
    while let Some((&first, behind)) = rest.split_first() {
        let escaped = behind.get(..2).filter(|_| first == b'%');
        let byte = escaped.and_then(|hex| u8::from_str_radix(str::from_utf8(hex).ok()?, 16).ok());
        out.push(byte.unwrap_or(if first == b'+' { b' ' } else { first }));
        rest = if byte.is_some() { &behind[2..] } else { behind };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Reader that ends at a time, however slowly bytes come.
struct InTime<'a> {
    stream: &'a TcpStream,
    until: Instant,
}

impl InTime<'_> {
    /// Reads some more bytes.
    fn more(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut buffer = [0; HEAD_BYTES_MAX];
        let len = loop {
            match self.stream.read(&mut buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        into.extend_from_slice(&buffer[..len]);
        Ok(len)
    }

    /// Reads the rest of a body.
    fn body(
        mut self,
        mut request: Request,
        mut bytes: Vec<u8>,
        len: usize,
    ) -> io::Result<Result<Request, Response>> {
        while bytes.len() < len {
            match self.more(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(e) if is_late(&e) => {
                    return Ok(Err(Response::text(408, "the request took too long")));
                }
                Err(e) => return Err(e),
            }
        }
        bytes.truncate(len);
        request.body = bytes;
        Ok(Ok(request))
    }
}

/// Whether a read has timed out.
fn is_late(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

impl Response {
    /// Answer of this kind.
    pub(super) fn of(status: u16, kind: &'static str, body: impl Into<Cow<'static, [u8]>>) -> Response {
        Response { status, kind, body: body.into() }
    }

    /// Answer in words, for people. One line.
    pub(super) fn text(status: u16, words: &str) -> Response {
        Response::of(status, "text/plain; charset=utf-8", format!("{words}\n").into_bytes())
    }

    /// Answer for programs.
    pub(super) fn json(value: &impl Serialize) -> Response {
        match serde_json::to_vec(value) {
            Ok(body) => Response::of(200, "application/json", body),
            Err(e) => Response::text(500, &e.to_string()),
        }
    }

    /// Sends the answer, without its body to a request for the head.
    pub(super) fn send(&self, mut stream: &TcpStream, method: Method) -> io::Result<()> {
        stream.set_write_timeout(Some(WRITE_MAX))?;
        let mut answer = start(self.status, self.kind, &format!("Content-Length: {}\r\n", self.body.len()));
        if method != Method::Head {
            answer.extend_from_slice(&self.body);
        }
        stream.write_all(&answer)?;
        finish(stream);
        Ok(())
    }
}

/// First line and headers of an answer.
fn start(status: u16, kind: &str, more: &str) -> Vec<u8> {
    let words = match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        _ => "Service Unavailable",
    };
    let asks = if status == 401 { "WWW-Authenticate: Bearer\r\n" } else { "" };
    format!("HTTP/1.1 {status} {words}\r\nContent-Type: {kind}\r\n{asks}{more}{HEADERS}\r\n").into_bytes()
}

/// Ends an answer. What the peer still sends is taken for a moment: a connection that is closed
/// over it is reset, and the answer may be lost.
fn finish(mut stream: &TcpStream) {
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until && stream.read(&mut [0; REST_BYTES]).is_ok_and(|n| n > 0) {}
}

/// Refuses a connection that there is no place for. Never blocks.
pub(super) fn refuse(mut stream: &TcpStream) {
    let answer = start(503, "text/plain; charset=utf-8", "Retry-After: 1\r\n");
    let sent = stream.set_nonblocking(true).and_then(|()| {
        stream.write_all(&answer)?;
        stream.write_all(b"too many requests are under way\n")?;
        stream.shutdown(std::net::Shutdown::Write)
    });
    // Takes what is here already, as `finish` does.
    while sent.is_ok() && stream.read(&mut [0; REST_BYTES]).is_ok_and(|n| n > 0) {}
}

/// Answer without an end of its own: lines of JSON, as they come.
pub(super) struct Lines<'a> {
    stream: &'a TcpStream,
}

impl<'a> Lines<'a> {
    /// Begins the answer.
    pub(super) fn begin(mut stream: &'a TcpStream) -> io::Result<Lines<'a>> {
        stream.set_write_timeout(Some(WRITE_MAX))?;
        stream.write_all(&start(200, "application/x-ndjson", ""))?;
        Ok(Lines { stream })
    }

    /// Sends a line. Fails if the peer is gone, or takes nothing for 5 s.
    pub(super) fn say(&mut self, value: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.stream.write_all(&line)
    }

    /// Ends the answer.
    pub(super) fn end(self) {
        finish(self.stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Answer to these bytes, as a status, or the path of the request.
    fn read(bytes: &[u8]) -> Result<Request, u16> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peer.write_all(bytes).unwrap();
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        let stream = listener.accept().unwrap().0;
        match Request::read(&stream) {
            Ok(read) => read.map_err(|r| r.status),
            Err(_) => Err(0),
        }
    }

    #[test]
    fn a_request_is_read_in_any_pieces() {
        let bytes = b"POST /a/b?q=x+y%2Fz%zz&n=7&odd HTTP/1.1\r\nHost: a\r\nAUTHORIZATION: Bearer t\r\n\
                      Content-Length: 3\r\n\r\nabcdef";
        let request = read(bytes).unwrap();
        assert_eq!(
            (request.method, request.path.as_str(), &*request.body),
            (Method::Post, "/a/b", &b"abc"[..])
        );
        assert_eq!(
            (request.field("q"), request.number("n", 1), request.number("m", 1)),
            (Some("x y/z%zz"), 7, 1)
        );
        assert_eq!(
            (request.host.as_deref(), request.authorization.as_deref()),
            (Some("a"), Some("Bearer t"))
        );
        // Cut off anywhere, it is a request that never came, and no crash.
        let whole = bytes.len() - 3;
        assert!((0..whole).all(|len| read(&bytes[..len]).err() == Some(0)));
    }

    #[test]
    fn what_is_no_request_or_too_large_is_refused() {
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(HEAD_BYTES_MAX));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
        for (bytes, status) in [
            ("garbage\r\n\r\n", 400),
            ("\u{0}\u{1}\u{2}\r\n\r\n", 400),
            ("PUT / HTTP/1.1\r\n\r\n", 405),
            ("OPTIONS / HTTP/1.1\r\n\r\n", 405),
            (long.as_str(), 431),
            (many.as_str(), 431),
            ("POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", 413),
            ("POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ] {
            assert_eq!(read(bytes.as_bytes()).err(), Some(status), "{bytes:?}");
        }
    }
}
