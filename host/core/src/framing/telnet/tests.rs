//! Telnet streams, cut anywhere.
//!
//! The first tests state each rule of the module's head by examples. The last one compares
//! random streams with a second machine, which reads single bytes and knows no limit.

use super::*;
use crate::framing::Framing;
use crate::framing::frame::Dialect;
use crate::framing::script::{check, check_encoded, check_from, trace_whole};
use std::fmt::Write;

/// Checks a stream with messages up to 8 bytes.
#[track_caller]
fn telnet(stream: &[u8], expected: &str) {
    check(Framing::Telnet { bytes_max: 8 }, stream, expected);
}

/// NUL without CR, and CR without LF or NUL, belong to the message.
#[test]
fn lines_end_in_lf_crlf_or_cr_nul() {
    telnet(b"one\ntwo\r\nthree\r\0\n\r\n\r\0half", r#""one" "two" "three" "" "" "" | half"#);
    telnet(b"a\rb\r\r\n\rc\0d\r\r\0", r#""a\rb\r" "\rc\x00d\r" | "#);
    telnet(b"\0\n", r#""\x00" | "#);
    telnet(b"", "| ");
}

/// A doubled IAC counts as one byte, and stays as it came in input that is kept.
#[test]
fn a_doubled_iac_is_a_byte_of_the_message() {
    telnet(b"a\xff\xffb\r\n\xff\xff\n\xff\xff\r\0", r#""a\xffb" "\xff" "\xff" | "#);
    telnet(b"x\xff\xff", r"| x\xff\xff");
}

/// However the stream is cut, no option is refused twice, and none is left without an answer. A
/// handler learns of each offer once.
#[test]
fn each_offered_option_is_refused_once() {
    // WILL, DO, WONT and DONT at the start of a line, and a line behind them.
    telnet(
        b"\xff\xfb\x18\xff\xfd\x01\xff\xfc\x03\xff\xfe\x05hello\r\n",
        r#"<\xff\xfe\x18> [11 24 \xfb\x00] <\xff\xfc\x01> [11 1 \xfd\x00] "hello" | "#,
    );
    // Inside lines, whole or not.
    telnet(
        b"he\xff\xfb\x18l\xff\xfd\x01lo\r\nx\xff\xfb\x05y",
        r#"<\xff\xfe\x18> [11 24 \xfb\x00] <\xff\xfc\x01> [11 1 \xfd\x00] "hello" <\xff\xfe\x05> [11 5 \xfb\x00] | x\xff\xfb\x05y"#,
    );
    // Option 255 is not IAC.
    telnet(b"\xff\xfb\xffx\n", r#"<\xff\xfe\xff> [11 255 \xfb\x00] "x" | "#);
    // Between CR and what makes an ending of it.
    telnet(
        b"a\r\xff\xfb\x01\nb\r\xff\xf1\0c\r\xff\xfd\x02d\n",
        r#"<\xff\xfe\x01> [11 1 \xfb\x00] "a" "b" <\xff\xfc\x02> [11 2 \xfd\x00] "c\rd" | "#,
    );
}

/// State of a session whose turns have asked for options, and whose peer has agreed to them.
fn agreed(verbs: &[(u8, u8)]) -> FrameState {
    let mut state = FrameState::default();
    for (verb, option) in verbs {
        wish(&mut state, Verb::new(u32::from(*verb)).unwrap(), *option).unwrap();
        let mut telnet = TelnetState::read(state.stored());
        telnet.hear(if *verb == WILL { DO } else { WILL }, *option);
        telnet.write(&mut state);
    }
    state
}

/// Options that were asked for are agreed to; an offer that crosses the request needs no answer.
#[test]
fn options_that_turns_ask_for_are_agreed_to() {
    let framing = Framing::Telnet { bytes_max: 8 };
    let mut state = FrameState::default();
    let says = wish(&mut state, Verb::new(253).unwrap(), 31).unwrap();
    assert_eq!(says[..], [IAC, DO, 31]);
    let asked = state.clone();
    check_from(framing, &asked, b"a\xff\xfb\x1fb\n", r#"[11 31 \xfb\x01] "ab" | "#);
    check_from(framing, &asked, b"\xff\xfb\x1f\xff\xfb\x1fb\n", r#"[11 31 \xfb\x01] "b" | "#);
    // Refused, then offered after all.
    check_from(
        framing,
        &asked,
        b"\xff\xfc\x1fa\xff\xfb\x1fb\n",
        r#"[11 31 \xfc\x00] <\xff\xfd\x1f> [11 31 \xfb\x01] "ab" | "#,
    );
    // The peer takes it back.
    check_from(
        framing,
        &agreed(&[(DO, 31)]),
        b"a\xff\xfc\x1fb\xff\xfc\x1f\n",
        r#"<\xff\xfe\x1f> [11 31 \xfc\x00] "ab" | "#,
    );
}

/// Only those of options that are on are told, unescaped and each once.
#[test]
fn subnegotiations_are_events() {
    let framing = Framing::Telnet { bytes_max: 8 };
    let state = agreed(&[(DO, 31), (WILL, 201)]);
    check_from(
        framing,
        &state,
        b"\xff\xfa\x1f\0\xff\xff\0\x18\xff\xf0a\xff\xfa\xc9Core.Hello {}\xff\xf0b\xff\xfa\x18x\xff\xf0\n",
        r#"[12 31 \x00\xff\x00\x18] [12 201 Core.Hello {}] "ab" | "#,
    );
    // IAC inside means nothing before another byte. No option, and an option alone.
    check_from(
        framing,
        &state,
        b"\xff\xfa\x1fa\xff\xfdb\xff\xf0\xff\xfa\xff\xf0\xff\xfa\xc9\xff\xf0",
        "[12 31 ab] [12 201 ] | ",
    );
}

/// CR NUL ends a line as long as the peer's BINARY is off, and not before a command that was dealt
/// with.
#[test]
fn binary_input_keeps_cr_nul() {
    let framing = Framing::Telnet { bytes_max: 8 };
    let binary = agreed(&[(DO, BINARY)]);
    check_from(framing, &binary, b"a\r\0b\r\nc\n\r\0", r#""a\r\x00b" "c" | \r\x00"#);
    check_from(
        framing,
        &binary,
        b"a\r\0b\xff\xfc\x00c\r\0d\r\0",
        r#"<\xff\xfe\x00> [11 0 \xfc\x00] "a\r\x00bc" "d" | "#,
    );
    let mut state = FrameState::default();
    wish(&mut state, Verb::new(253).unwrap(), BINARY).unwrap();
    check_from(framing, &state, b"a\xff\xfb\x00b\r\0c\n", r#"[11 0 \xfb\x01] "ab\r\x00c" | "#);
    // Until the peer has heard that we want it off, its bytes are binary.
    let mut state = binary.clone();
    wish(&mut state, Verb::new(254).unwrap(), BINARY).unwrap();
    check_from(framing, &state, b"a\r\0\xff\xfc\x00b\r\0", r#"[11 0 \xfc\x00] "a\r\x00b" | "#);
}

/// A line that has to wait keeps its place, and what a turn has changed meanwhile.
#[test]
fn a_place_in_the_input_has_the_newest_options() {
    let place = FrameState::new(7, &[5, 1, 9, 0, 0, 0]).unwrap();
    let now = agreed(&[(DO, 31)]);
    let back = at_place(&place, &now);
    let mut expected = TelnetState::read(now.stored());
    expected.answered = 9;
    assert_eq!((back.searched(), TelnetState::read(back.stored())), (7, expected));
}

/// Text, bytes as they are, subnegotiations, and what stands behind prompts.
#[test]
fn output_follows_what_was_negotiated() {
    let framing = Framing::Telnet { bytes_max: 8 };
    let none = FrameState::default();
    assert_eq!(framing.dialect(&none), Dialect::Plain);
    assert_eq!(end_of_prompt(&none), [IAC, GA]);
    assert_eq!(end_of_prompt(&agreed(&[(WILL, SUPPRESS_GO_AHEAD)])), b"");
    assert_eq!(end_of_prompt(&agreed(&[(WILL, SUPPRESS_GO_AHEAD), (WILL, END_OF_RECORD)])), [IAC, EOR]);
    let mut binary = agreed(&[(WILL, BINARY)]);
    let mut out = Vec::new();
    framing.encode_in(framing.dialect(&binary), b"a\nb\r\xffc", &mut out).unwrap();
    assert_eq!(out, b"a\nb\r\xff\xffc");
    // From the moment that we say WONT, the peer takes our bytes for text.
    wish(&mut binary, Verb::new(252).unwrap(), BINARY).unwrap();
    assert_eq!(framing.dialect(&binary), Dialect::Plain);
    out.clear();
    subnegotiate(201, b"a\xff", &mut out);
    assert_eq!(out, b"\xff\xfa\xc9a\xff\xff\xff\xf0");
    assert!([0, 250, 255, 256, u32::MAX].iter().all(|number| Verb::new(*number).is_none()));
}

/// NOP, GA, a lone SE, and a command without a name.
#[test]
fn other_commands_are_skipped_and_ayt_is_answered() {
    telnet(b"\xff\xf1a\xff\xf9b\xff\xf0\xff\x07\r\n", r#""ab" | "#);
    telnet(b"\xff\xf6a\xff\xf6b\n", r#"<[yes]\r\n> <[yes]\r\n> "ab" | "#);
}

/// The bound counts IAC SB and IAC SE. Both sides of it are tried at the start of a line and
/// inside.
#[test]
fn subnegotiations_are_skipped_and_bounded() {
    // A window of 255 columns has IAC doubled; one of 240 has no end in it.
    telnet(b"\xff\xfa\x1f\0\xff\xff\0\x18\xff\xf0a\xff\xfa\x1f\0\xf0\0\x18\xff\xf0b\n", r#""ab" | "#);
    telnet(b"a\xff\xfa\x1f\n\r\n", r"| a\xff\xfa\x1f\n\r\n");
    let within = |len: usize| [b"\xff\xfa".to_vec(), vec![b'x'; len - 4], b"\xff\xf0".to_vec()].concat();
    let longest = within(SUBNEGOTIATION_BYTES_MAX);
    for (before, message) in [("", "a"), ("b", "ba")] {
        let stream = [before.as_bytes(), &longest, b"a\n"].concat();
        telnet(&stream, &format!("\"{message}\" | "));
        let stream = [before.as_bytes(), &within(SUBNEGOTIATION_BYTES_MAX + 1), b"a\n"].concat();
        telnet(&stream, "invalid: a telnet subnegotiation is too long | ");
    }
}

/// Neither the ending nor commands count, and a doubled IAC counts once.
#[test]
fn the_limit_counts_the_message_alone() {
    telnet(b"12345678\n", r#""12345678" | "#);
    telnet(b"12345678\r\0x\r\n", r#""12345678" "x" | "#);
    telnet(b"1234567\xff\xff\r\n", r#""1234567\xff" | "#);
    telnet(b"1234\xff\xfb\x015678\r\n", r#"<\xff\xfe\x01> [11 1 \xfb\x00] "12345678" | "#);
    telnet(b"123456789", "too-long | ");
    telnet(b"12345678\rx", "too-long | ");
    telnet(b"12345678\xff\xff\n", "too-long | ");
    // A line that is too long has no more commands answered.
    telnet(b"123456789\xff\xfb\x01\n", "too-long | ");
    telnet(b"12345678\r\xff\xfb\x01x\xff\xfb\x02\n", r"<\xff\xfe\x01> [11 1 \xfb\x00] too-long | ");
}

/// Commands inside a line stay in the input until it is whole, so their bytes are bounded.
#[test]
fn commands_in_a_line_are_bounded() {
    let nops = b"\xff\xf1".repeat(OVERHEAD_BYTES_MAX / 2 + 8);
    let stream = |spare: usize, end: &[u8]| [b"a", &nops[spare..], end].concat();
    telnet(&stream(4, b"b\n"), r#""ab" | "#);
    telnet(&stream(2, b"b\n"), "too-long | ");
    telnet(&stream(0, b""), "too-long | ");
    // At the start of a line commands are consumed, so as many as the peer likes may come.
    let framing = Framing::Telnet { bytes_max: 8 };
    let stream = [&nops[..], &nops, b"a\n"].concat();
    let (mut left, mut state, mut buffers) = (&stream[..], FrameState::default(), FrameBuffers::default());
    while let Frame::Reply { consumed } = framing.cut(left, &mut state, &mut buffers) {
        left = &left[consumed..];
    }
    assert_eq!(left, b"a\n");
}

/// Each byte is searched once while the cache is kept: a session that drips costs what one does
/// that bursts.
#[test]
fn a_search_goes_on_where_it_stopped() {
    let framing = Framing::Telnet { bytes_max: 100 };
    let (mut state, mut buffers) = (FrameState::default(), FrameBuffers::default());
    for (input, searched) in [
        (&b"abc"[..], 3),
        (b"abc\r", 3),
        (b"abc\rd", 5),
        (b"abc\rd\xff\xf1", 7),
        (b"abc\rd\xff\xf1\xff", 7),
        (b"abc\rd\xff\xf1\xff\xff", 9),
    ] {
        assert_eq!(framing.cut(input, &mut state, &mut buffers), Frame::More);
        assert_eq!(state.searched(), searched, "{}", input.escape_ascii());
    }
    assert!(state.stored().is_empty());
}

/// Another number, another version, and three wrong lengths.
#[test]
fn stored_state_of_another_framing_counts_as_none() {
    let framing = Framing::Telnet { bytes_max: 8 };
    for stored in [
        &[6, 1, 9, 0, 0, 0][..],
        &[5, 3, 9, 0, 0, 0],
        &[5, 2, 9, 0, 0, 0, 1],
        &[5, 1],
        &[5, 1, 9, 0, 0, 0, 0],
        &[9; 64],
    ] {
        let mut state = FrameState::new(0, stored).unwrap();
        let mut buffers = FrameBuffers::default();
        assert_eq!(framing.cut(b"x\xff\xfb\x01", &mut state, &mut buffers), Frame::Reply { consumed: 0 });
        assert_eq!(buffers.replies, [IAC, DONT, 1]);
    }
}

/// LF, CR LF, CR in the middle and at the end, and IAC.
#[test]
fn output_is_what_a_terminal_expects() {
    let framing = Framing::Telnet { bytes_max: 8 };
    check_encoded(framing, b"one\ntwo\r\n\n", b"one\r\ntwo\r\n\r\n");
    check_encoded(framing, b"\xff\r\xff\xff", b"\xff\xff\r\0\xff\xff\xff\xff");
    check_encoded(framing, b"50%\r100%\r", b"50%\r\x00100%\r\0");
    check_encoded(framing, b"", b"");
}

/// Returns the trace of a machine that sees one byte at a time, with none of what makes the
/// real one fast. It knows no limits and no kept input.
fn model(stream: &[u8]) -> String {
    let (mut trace, mut message, mut command) = (String::new(), Vec::new(), Vec::new());
    for byte in stream.iter().copied() {
        if command.is_empty() && byte != IAC {
            message.push(byte);
        } else {
            command.push(byte);
            match command[..] {
                [IAC, IAC] => message.push(IAC),
                [IAC, verb @ (WILL | DO), option] => {
                    let says = [IAC, if verb == WILL { DONT } else { WONT }, option];
                    let said = [verb, 0];
                    let (says, said) = (says.escape_ascii(), said.escape_ascii());
                    write!(trace, "<{says}> [11 {option} {said}] ").unwrap();
                }
                [IAC, AYT] => trace.push_str(r"<[yes]\r\n> "),
                [IAC, WONT | DONT, _] => {}
                [IAC] | [IAC, WILL | DO | WONT | DONT] => continue,
                // Behind each IAC within comes the byte that it belongs to.
                [IAC, SB, .., SE] if ends_subnegotiation(&command) => {}
                [IAC, SB, ..] => continue,
                _ => {}
            }
            command.clear();
        }
        let ending = match message[..] {
            [.., b'\r', b'\n' | 0] => 2,
            [.., b'\n'] => 1,
            _ => continue,
        };
        write!(trace, "\"{}\" ", message[..message.len() - ending].escape_ascii()).unwrap();
        message.clear();
    }
    trace
}

/// Returns whether the last two bytes are an IAC SE that no earlier IAC escapes.
fn ends_subnegotiation(command: &[u8]) -> bool {
    let mut within = &command[2..];
    while let [first, rest @ ..] = within {
        if let (IAC, [second, after @ ..]) = (*first, rest) {
            if *second == SE {
                return after.is_empty();
            }
            within = after;
        } else {
            within = rest;
        }
    }
    false
}

/// Random streams over an alphabet of bytes that mean something to telnet.
#[test]
fn random_streams_mean_what_they_mean_byte_by_byte() {
    let mut random = fastrand::Rng::with_seed(13);
    let alphabet = [b'a', b'\r', b'\n', 0, IAC, IAC, IAC, WILL, DO, DONT, SB, SE, SE, AYT, 1];
    let mut messages = 0;
    for _ in 0..20_000 {
        let len = random.usize(0..40);
        let stream: Vec<u8> = (0..len).map(|_| *random.choice(&alphabet).unwrap()).collect();
        let trace = trace_whole(Framing::Telnet { bytes_max: 100 }, &stream);
        let (before, _) = trace.split_once("| ").unwrap();
        assert_eq!(before, model(&stream), "{}", stream.escape_ascii());
        messages += before.matches('"').count() / 2;
    }
    // Guards the test itself: random streams of commands alone would compare nothing.
    assert!(messages > 20_000, "{messages} messages were compared");
}
