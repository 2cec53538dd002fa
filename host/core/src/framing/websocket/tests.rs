//! Tests of WebSocket: streams cut anywhere, requests, and what is sent.

use super::farewell::{Farewell, NOT_UTF8, TOO_MANY_CONTROLS, TOO_SMALL_FRAGMENTS};
use super::message::{CONTROLS_MAX, OVERHEAD_BYTES_MAX};
use super::request::{HttpRequest, Refusal, Wants};
use super::stage::set_open;
use super::*;
use crate::framing::Framing;
use crate::framing::frame::Dialect;
use crate::framing::frame::Payload;
use crate::framing::scan::unmask;
use crate::framing::script::{check, check_encoded, trace_whole};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Data, OpCode};

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const REQUEST: &[u8] =
    b"GET /chat?a=b HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// Framing of messages up to 300 bytes.
fn framing() -> Framing {
    Framing::WebSocket { bytes_max: 300 }
}

/// Frame of a client; `first` is its first byte.
fn client(first: u8, payload: &[u8]) -> Vec<u8> {
    let header = |opcode| FrameHeader {
        is_final: true,
        rsv1: false,
        rsv2: false,
        rsv3: false,
        opcode,
        mask: Some(MASK),
    };
    let mut out = Vec::new();
    header(OpCode::Data(Data::Text)).format(payload.len() as u64, &mut out).unwrap();
    out[0] = first;
    let begin = out.len();
    out.extend(payload);
    unmask(&mut out[begin..], MASK, 0);
    out
}

/// Checks frames of a client, given as first byte and payload, behind a request.
#[track_caller]
fn frames(frames: &[(u8, &[u8])], expected: &str) {
    let frames = frames.iter().flat_map(|(first, payload)| client(*first, payload));
    stream(&frames.collect::<Vec<_>>(), expected);
}

/// Checks bytes behind a request, with the request and by themselves.
#[track_caller]
fn stream(bytes: &[u8], expected: &str) {
    check(framing(), &[b"GET / HTTP/1.1\r\n\r\n", bytes].concat(), &format!("request {expected}"));
}

#[test]
fn a_cut_anywhere_changes_nothing() {
    frames(&[(0x81, b"hi"), (0x82, b"\xff\0"), (0x81, b"")], r#""hi" "\xff\x00" "" | "#);
    let fragments: &[(u8, &[u8])] = &[
        (0x01, b"a\xe2"),
        (0x89, b"p"),
        (0x00, b""),
        (0x8a, b"q"),
        (0x00, b"\x82"),
        (0x89, b""),
        (0x80, b"\xacz"),
        (0x89, b"3"),
    ];
    frames(fragments, r#"<\x8a\x01p> <\x8a\x00> "a\xe2\x82\xacz" <\x8a\x013> | "#);
    frames(&[(0x02, b"\xff"), (0x80, b"\xfe")], r#""\xff\xfe" | "#);
    frames(&[(0x88, b"\x03\xe8bye"), (0x81, b"x")], r"closed: \x03\xe8bye | ");
    frames(&[(0x01, b"x"), (0x88, b"")], "closed:  | ");
    // Lengths of two and of eight bytes.
    let long = "ab".repeat(100);
    frames(&[(0x81, long.as_bytes())], &format!("\"{long}\" | "));
    let wide = [&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0][..], b"xy"].concat();
    stream(&wide, r#""xy" | "#);
}

#[test]
fn broken_rules_end_the_stream() {
    let invalid = |why| format!("invalid: {why} | ");
    frames(&[(0xc1, b"x")], &invalid("a frame has reserved bits set"));
    frames(&[(0x91, b"")], &invalid("a frame has reserved bits set"));
    frames(&[(0x83, b"x")], &invalid("a frame has an unknown opcode"));
    frames(&[(0x8b, b"x")], &invalid("a frame has an unknown opcode"));
    frames(&[(0x80, b"x")], &invalid("a fragment continues no message"));
    frames(&[(0x01, b"x"), (0x81, b"y")], &invalid("a message begins inside another one"));
    frames(&[(0x09, b"x")], &invalid("a control frame is fragmented or too long"));
    frames(&[(0x89, &[b'x'; 126])], &invalid("a control frame is fragmented or too long"));
    frames(&[(0x88, b"\x03")], &invalid("a close frame has half a code"));
    frames(&[(0x88, b"\x03\xed")], &invalid("a close frame has a code that must not be sent"));
    frames(&[(0x88, b"\x03\xe8\xff")], &invalid(NOT_UTF8));
    stream(b"\x81\x02hi", &invalid("a frame is not masked"));
}

/// Text is checked as it comes: what follows is not waited for.
#[test]
fn text_is_checked_as_it_comes() {
    let invalid = format!("invalid: {NOT_UTF8} | ");
    frames(&[(0x81, b"a\xff")], &invalid);
    frames(&[(0x81, b"a\xe2\x82")], &invalid);
    frames(&[(0x01, b"a\xe2"), (0x80, b"(")], &invalid);
    // Surrogates, and what is above the last character.
    frames(&[(0x01, b"\xed\xa0")], &invalid);
    frames(&[(0x01, b"\xf4\x90")], &invalid);
    frames(&[(0x89, b"1"), (0x01, b"\xc0")], &format!("<\\x8a\\x011> {invalid}"));
    let mut half = client(0x81, &[b"ab\xc3(".to_vec(), vec![b'x'; 50]].concat());
    half.truncate(6 + 4);
    stream(&half, &invalid);
    // The end of a character may still come.
    half.truncate(6 + 3);
    stream(&half, &format!("| {}", half.escape_ascii()));
}

#[test]
fn limits_count_all_fragments() {
    let half = [b'x'; 150];
    let message = "x".repeat(300);
    frames(&[(0x01, &half), (0x80, &half)], &format!("\"{message}\" | "));
    frames(&[(0x01, &half), (0x00, &half), (0x80, b"x")], "too-long | ");
    let huge = [0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4];
    stream(&huge, "too-long | ");
    // Pings inside a message, and fragments without bytes, have a bound.
    let behind = |frames: Vec<Vec<u8>>| {
        let all: Vec<u8> = [vec![client(0x01, b"x")], frames].concat().concat();
        trace_whole(framing(), &[b"GET / HTTP/1.1\r\n\r\n", &all[..]].concat())
    };
    let pings = usize::from(CONTROLS_MAX);
    let answered = behind(vec![client(0x89, b""); pings]);
    assert_eq!(answered.matches("<\\x8a\\x00>").count(), pings);
    assert!(
        behind(vec![client(0x89, b""); pings + 1]).ends_with(&format!("invalid: {TOO_MANY_CONTROLS} | "))
    );
    let small = behind(vec![client(0x00, b""); OVERHEAD_BYTES_MAX]);
    assert_eq!(small, format!("request invalid: {TOO_SMALL_FRAGMENTS} | "));
}

#[test]
fn messages_are_sent_unmasked_and_whole() {
    check_encoded(framing(), b"\xff\n", b"\x82\x02\xff\n");
    check_encoded(framing(), b"", b"\x82\x00");
    let text = |line: &[u8]| {
        let mut out = Vec::new();
        framing().encode_line(Dialect::Plain, line, &mut out).unwrap();
        out
    };
    assert_eq!(text(b"hi\n"), b"\x81\x02hi");
    assert_eq!(text(b"a\xffb\n"), b"\x81\x05a\xef\xbf\xbdb");
    let mut long = Vec::new();
    framing().encode(&[7; 70_000], &mut long).unwrap();
    assert_eq!(long[..10], [0x82, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70]);
}

/// The peer learns why it is closed, in the words of the stage.
#[test]
fn a_farewell_has_code_and_reason() {
    let mut state = FrameState::default();
    let told = |state: &FrameState, code, reason| Farewell { code, reason }.bytes(stage(state.stored()));
    assert_eq!(told(&state, 1000, ""), b"");
    assert!(told(&state, 1009, "").starts_with(b"HTTP/1.1 431 "));
    assert!(told(&state, 1002, "").starts_with(b"HTTP/1.1 400 "));
    assert!(told(&state, 1008, "").starts_with(b"HTTP/1.1 408 "));
    set_open(&mut state);
    assert_eq!(told(&state, 1000, "by\u{e9}"), b"\x88\x06\x03\xe8by\xc3\xa9");
    assert_eq!(told(&state, 1005, ""), b"\x88\x00");
    assert_eq!(told(&state, 0, ""), b"");
    assert_eq!(told(&state, 1001, &"\u{e9}".repeat(90)).len(), 2 + 2 + 122);
    assert_eq!(Farewell::invalid(NOT_UTF8).code, 1007);
    assert_eq!(Farewell::invalid("else").code, 1002);
}

#[test]
fn a_request_is_found_wherever_it_is_cut() {
    check(framing(), &[REQUEST, &client(0x81, b"x")].concat(), r#"request "x" | "#);
    check(framing(), b"GET / HTTP/1.1\r\nA: b\r\n\r", r"| GET / HTTP/1.1\r\nA: b\r\n\r");
    check(framing(), b"\x16\x03\x01", "invalid: the first bytes are no HTTP request | ");
    let fits = [&b"GET / HTTP/1.1\r\nA: "[..], &vec![b'x'; REQUEST_MAX - 23], b"\r\n\r\n"].concat();
    assert_eq!(fits.len(), REQUEST_MAX);
    check(framing(), &fits, "request | ");
    check(framing(), &[&fits[..100], b"x", &fits[100..]].concat(), "too-long | ");
    check(framing(), &fits[..REQUEST_MAX - 1], &format!("| {}", fits[..REQUEST_MAX - 1].escape_ascii()));
}
const REQUEST_MAX: usize = request::REQUEST_BYTES_MAX;

/// Changes the sample request, and returns what it wants or why it is refused.
#[track_caller]
fn asked(from: &str, to: &str) -> Result<String, Refusal> {
    let text = std::str::from_utf8(REQUEST).unwrap();
    assert!(text.contains(from), "{from}");
    let changed = text.replacen(from, to, 1);
    let request = HttpRequest::read(changed.as_bytes())?;
    Ok(match request.wants {
        Wants::Socket(key) => format!("socket {}", key.escape_ascii()),
        Wants::Page { head_only } => format!("page {} {head_only}", request.path),
    })
}

#[test]
fn requests_are_answered_or_refused() {
    let status = |from, to| asked(from, to).map_err(|r| r.0);
    let socket = Ok("socket dGhlIHNhbXBsZSBub25jZQ==".to_owned());
    assert_eq!(status("GET", "GET"), socket);
    assert_eq!(status("websocket", "h2c, WebSocket"), socket);
    assert_eq!(status("Upgrade: websocket\r\n", ""), Ok("page /chat false".to_owned()));
    assert_eq!(
        status("GET /chat?a=b HTTP/1.1\r\nHost: h\r\nUpgrade: websocket", "HEAD /x HTTP/1.1\r\nHost: h"),
        Ok("page /x true".to_owned())
    );
    assert_eq!(
        status("GET /chat?a=b HTTP/1.1\r\nHost: h\r\nUpgrade: websocket", "GET / HTTP/1.0"),
        Ok("page / false".to_owned())
    );
    let many = format!("Host: h{}", "\r\nA: b".repeat(60));
    for (from, to, expected) in [
        ("GET", "HEAD", 405),
        ("GET", "POST", 405),
        ("GET", "G(T", 400),
        ("/chat", "chat", 400),
        ("HTTP/1.1", "HTTP/2.0", 400),
        ("HTTP/1.1", "HTTP/1.0", 400),
        ("Host: h\r\n", "", 400),
        ("Host: h", "Host: h\r\nHost: i", 400),
        ("keep-alive, Upgrade", "keep-alive", 400),
        ("Version: 13", "Version: 12", 426),
        ("Sec-WebSocket-Version: 13\r\n", "", 426),
        ("dGhl", "dG", 400),
        ("ZQ==", "ZQ!=", 400),
        ("Host: h", "Host: h\r\nContent-Length: 3", 413),
        ("Host: h", "Host: h\r\nTransfer-Encoding: chunked", 413),
        ("Host: h", &many, 431),
    ] {
        assert_eq!(status(from, to), Err(expected), "{from} {to}");
    }
    assert_eq!(status("Host: h", "Host: h\r\nContent-Length: 0"), socket);
}

#[test]
fn origins_protocols_and_facts_are_those_of_the_request() {
    let with = |headers: &str| {
        std::str::from_utf8(REQUEST).unwrap().replacen("\r\nUp", &format!("\r\n{headers}Up"), 1)
    };
    let is_from = |headers, allowed: &[&str]| {
        let allowed: Vec<_> = allowed.iter().map(|o| (*o).to_owned()).collect();
        HttpRequest::read(with(headers).as_bytes()).unwrap().is_from(&allowed)
    };
    assert!(is_from("", &[]) && is_from("", &["https://a"]));
    assert!(is_from("Origin: http://H\r\n", &[]));
    for foreign in [
        "Origin: http://x\r\n",
        "Origin: null\r\n",
        "Origin: http://h:81\r\n",
        "Origin: http://h\r\nOrigin: http://x\r\n",
    ] {
        assert!(!is_from(foreign, &[]), "{foreign}");
    }
    assert!(is_from("Origin: https://A\r\n", &["https://b", "https://a"]));
    assert!(!is_from("Origin: http://h\r\n", &["https://h"]));
    assert!(is_from("Origin: null\r\n", &["*"]));

    let text = with(
        "Sec-WebSocket-Protocol: v3, v2\r\nSec-WebSocket-Protocol: v1\r\nCookie: a=1\r\ncookie: b=2\r\n",
    );
    let request = HttpRequest::read(text.as_bytes()).unwrap();
    let spoken = ["v1".to_owned(), "v2".to_owned()];
    assert_eq!((request.protocol(&spoken), request.protocol(&[])), (Some("v2"), None));
    let facts = request.facts(Some("v2")).into_iter().map(|(n, v)| format!("{n}={}", v.escape_ascii()));
    assert_eq!(
        facts.collect::<Vec<_>>().join(" "),
        "path=/chat query=a=b protocol=v2 host=h cookie=a=1; b=2"
    );
    let mut out = Vec::new();
    request::accept(b"dGhlIHNhbXBsZSBub25jZQ==", Some("v2"), &mut out);
    let out = String::from_utf8(out).unwrap();
    // The answer of RFC 6455, section 1.3.
    assert!(out.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{out}");
    assert!(out.ends_with("\r\nSec-WebSocket-Protocol: v2\r\n\r\n"), "{out}");
}

/// Messages of any kind and cut, encoded by a client: what is decoded is equal.
#[test]
fn what_clients_encode_is_decoded_equal() {
    let mut random = fastrand::Rng::with_seed(15);
    for _ in 0..300 {
        let (mut bytes, mut expected) = (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "request ".to_owned());
        for _ in 0..random.usize(0..4) {
            let message: String = (0..random.usize(0..60)).map(|_| random.char(..)).collect();
            let mut rest = message.as_bytes();
            let mut opcode = random.u8(1..=2);
            loop {
                let (part, behind) = rest.split_at(random.usize(0..=rest.len()));
                let is_final = behind.is_empty() && random.bool();
                bytes.extend(client(opcode | u8::from(is_final) << 7, part));
                (opcode, rest) = (0, behind);
                if is_final {
                    break;
                }
                if random.u8(0..4) == 0 {
                    bytes.extend(client(0x89, b"!"));
                    expected.push_str("<\\x8a\\x01!> ");
                }
            }
            expected.push_str(&format!("\"{}\" ", message.as_bytes().escape_ascii()));
        }
        check(framing(), &bytes, &format!("{expected}| "));
    }
}

/// Streams that are damaged anywhere end in some way, whatever the cut, without a panic, and hold
/// no more than their limits.
#[test]
fn damaged_streams_end_alike_wherever_they_are_cut() {
    let mut random = fastrand::Rng::with_seed(16);
    let whole = [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &client(0x01, "\u{20ac}uro".as_bytes()),
        &client(0x89, b"ping"),
        &client(0x80, b"end"),
        &client(0x82, &[9; 130]),
        &client(0x88, b"\x03\xe8"),
    ]
    .concat();
    for _ in 0..400 {
        let mut bytes = whole.clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(0..bytes.len());
            match random.u8(0..3) {
                0 => bytes[at] = random.u8(..),
                1 => _ = bytes.remove(at),
                _ => bytes.insert(at, random.u8(..)),
            }
        }
        check(framing(), &bytes, &trace_whole(framing(), &bytes));
    }
}

/// A long message by single bytes costs each of them once: the cache is what makes it so.
#[test]
fn a_long_message_is_searched_once() {
    let framing = Framing::WebSocket { bytes_max: 1 << 20 };
    let stream = [client(0x01, &[b'a'; 100_000]), client(0x80, &[b'b'; 100_000])].concat();
    let (mut state, mut buffers) = (FrameState::default(), FrameBuffers::default());
    set_open(&mut state);
    for to in 1..stream.len() {
        assert_eq!(framing.cut(&stream[..to], &mut state, &mut buffers), Frame::More);
        let scan = state.scan();
        assert!(scan.frame == 0 || scan.payload == 100_000, "{scan:?}");
    }
    let Frame::Message { payload: Payload::Unescaped(range), consumed } =
        framing.cut(&stream, &mut state, &mut buffers)
    else {
        panic!("a message");
    };
    assert_eq!((range.len(), consumed), (200_000, stream.len()));
}
