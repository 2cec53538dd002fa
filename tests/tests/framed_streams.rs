//! Framed streams through the core: cut anywhere, with the core killed and recovered at each cut.

use greenroom_core::command::Command;
use greenroom_core::core::Core;
use greenroom_core::framing::Framing;
use greenroom_core::framing::custom::{CustomCut, CustomMessage};
use greenroom_core::framing::delimiter::Delimiter;
use greenroom_core::framing::length_prefix::LengthPrefix;
use greenroom_core::ids::Slot;
use greenroom_core::input::Input;
use greenroom_core::limits::host::Limits;
use greenroom_core::limits::per_service::AllLimits;
use greenroom_core::limits::trusted::TrustedProxies;
use greenroom_core::recovery::reconcile::StreamCounts;
use greenroom_core::service::offer::{Build, Offer};
use greenroom_core::session::life::Life;
use greenroom_core::session::quarantine::BlockedAction;
use greenroom_core::store::kind::Kind;
use greenroom_core::store::memory::Plain;
use greenroom_core::store::records::Store;
use greenroom_core::turn::code::{Batch, Code, CutPlace};
use greenroom_core::turn::effect::Broadcast;
use greenroom_core::turn::fault::Fault;
use greenroom_core::turn::staging::Staging;
use greenroom_state::abi::{Bytes, action, fault, status};

const TELNET: Framing = Framing::Telnet { bytes_max: 400 };
const SOCKET: Framing = Framing::WebSocket { bytes_max: 400 };
const LINES: Framing = Framing::Lines { bytes_max: 400 };

fn prefix(width: u8) -> Framing {
    let prefix = LengthPrefix::new(width, false).expect("a width");
    Framing::LengthPrefix { prefix, bytes_max: 400 }
}

fn delimiter(bytes: &[u8]) -> Framing {
    Framing::Delimiter { delimiter: Delimiter::new(bytes).expect("a delimiter"), bytes_max: 400 }
}

/// Answers each message with the message. `fail`, `close` and `hold` do so instead; `all TEXT`
/// tells TEXT to the others, `ALL TEXT` a long one, and `say TEXT` a line; `twice TEXT` sends two
/// messages, `LONG` a long one; `note N` lets session N say that it was told. `will N`, `wont N`,
/// `do N` and `dont N` negotiate a telnet option, and `faildo N` asks for one and fails. `prompt`
/// sends one.
///
/// A service with a framing of its own cuts netstrings, and numbers them with a byte of state.
struct Talk {
    /// Whether it says what its framing tells beside messages.
    tells: bool,
}

/// Reads no state, so each session waits for another build.
struct Unable;

impl Code for Unable {
    fn run(&self, batch: &Batch<'_>, staging: &mut Staging<'_>) -> u32 {
        // The service itself has no state.
        if batch.actions.first().is_some_and(|a| a.kind == action::STARTED) {
            staging.turn_ok();
            return 0;
        }
        let message = "unable".to_owned();
        staging.turn_failed(Fault { kind: fault::STATE, message, file: String::new(), line: 0 });
        0
    }
}

impl Talk {
    fn new(service: &str) -> Talk {
        Talk { tells: service.starts_with("tells") }
    }

    fn negotiate(staging: &mut Staging<'_>, verb: u32, option: &[u8]) -> u32 {
        staging.negotiate(verb, std::str::from_utf8(option).expect("a number").parse().expect("a number"))
    }

    fn answer(staging: &mut Staging<'_>, message: &[u8]) -> u32 {
        let long = b"long ".repeat(80);
        match message.splitn(2, |b| *b == b' ').collect::<Vec<_>>()[..] {
            [b"all", text] => staging.broadcast(b"room", text, Broadcast::OTHERS),
            [b"say", text] => staging.broadcast(b"room", text, Broadcast { line: true, ..Broadcast::OTHERS }),
            [b"ALL", text] => staging.broadcast(b"room", &[&long, text].concat(), Broadcast::OTHERS),
            [b"twice", text] => staging.send(text) + staging.send(text),
            [b"LONG"] => staging.send(&long),
            [b"note", to] => staging.note(u64::from(to[0] - b'0'), b""),
            [b"close"] => staging.close(),
            [b"will", option] => Talk::negotiate(staging, 251, option),
            [b"wont", option] => Talk::negotiate(staging, 252, option),
            [b"do", option] => Talk::negotiate(staging, 253, option),
            [b"dont", option] => Talk::negotiate(staging, 254, option),
            [b"faildo", option] => Talk::negotiate(staging, 253, option) + status::LIMIT,
            [b"sub", text] => staging.subnegotiate(201, text),
            [b"prompt"] => staging.prompt(b"> "),
            [b"hold"] => staging.hold(true),
            _ => staging.send(message),
        }
    }
}

impl Code for Talk {
    fn run(&self, batch: &Batch<'_>, staging: &mut Staging<'_>) -> u32 {
        for a in batch.actions {
            let message = bytes(a.data);
            let done = match a.kind {
                action::OPENED => staging.subscribe(b"room"),
                action::NOTE => staging.send(b"told\n"),
                action::NEGOTIATED | action::SUBNEGOTIATION if self.tells => {
                    staging.send(&[format!("[{} ", a.detail).as_bytes(), message, b"]"].concat())
                }
                action::MESSAGE if message == b"fail" => status::LIMIT,
                action::MESSAGE => Talk::answer(staging, message),
                _ => status::OK,
            };
            if done != status::OK {
                let message = format!("status {done}");
                staging.turn_failed(Fault { kind: 0, message, file: String::new(), line: 0 });
                return 0;
            }
            if !staging.turn_ok() {
                break;
            }
        }
        0
    }

    fn knows(&self, kind: u32) -> bool {
        self.tells || kind <= action::CONNECT
    }

    fn cut(&self, _: &CutPlace, input: &[u8], state: &mut Vec<u8>) -> Result<CustomCut, String> {
        let Some(colon) = input.iter().position(|b| *b == b':') else { return Ok(CustomCut::More) };
        let len = match std::str::from_utf8(&input[..colon]).map(str::parse::<usize>) {
            Ok(Ok(len)) => len,
            _ if input[0] == b'P' => return Err("it panicked".into()),
            _ => return Ok(CustomCut::Invalid("no length".into())),
        };
        // Says what is not so: none of it may be believed.
        if len == 66 {
            return Ok(CustomCut::Skipped { consumed: 99 });
        }
        let Some(message) = input[colon + 1..].get(..len) else { return Ok(CustomCut::More) };
        let count = state.first().map_or(1, |n| n + 1);
        *state = vec![count];
        let consumed = colon + 1 + len;
        match message {
            b"skip" => Ok(CustomCut::Skipped { consumed }),
            b"plain" | b"fail" => {
                Ok(CustomCut::Message { message: CustomMessage::Input(colon + 1..consumed), consumed })
            }
            _ => {
                let message = [message, count.to_string().as_bytes()].concat();
                Ok(CustomCut::Message { message: CustomMessage::Own(message), consumed })
            }
        }
    }

    fn encode(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        match message {
            [b'!', ..] => Err("it begins with !".into()),
            _ => Ok([format!("{}:", message.len()).as_bytes(), message].concat()),
        }
    }
}

fn bytes(b: Bytes<'_>) -> &[u8] {
    if b.len == 0 {
        return b"";
    }
    // SAFETY: the core passes bytes that live as long as the batch.
    unsafe { std::slice::from_raw_parts(b.ptr, b.len) }
}

/// A step of a script. Sessions are named by their slots.
#[derive(Clone, Debug)]
enum Step {
    /// A library begins to offer its service with this framing, or goes on with another framing.
    Serve(&'static str, Framing),
    /// The same, by a build that can't read its sessions' states.
    Break(&'static str, Framing),
    Open(u32, &'static str),
    /// The same, through an endpoint of this kind.
    OpenAs(u32, &'static str, &'static str),
    In(u32, Vec<u8>),
    /// The same, and the core dies before the commit: a successor gets the bytes again.
    InTwice(u32, Vec<u8>),
    /// The core dies, and a successor goes on.
    Kill,
    /// The peer takes all output, and says nothing.
    Take(u32),
}
use Step::{Break, In, InTwice, Kill, Open, OpenAs, Serve, Take};

struct World {
    core: Core,
    limits: Limits,
    now_ns: u64,
    served: Vec<(&'static str, Framing)>,
    read: Vec<u64>,
    /// Output that the peers took.
    taken: Vec<Vec<u8>>,
    told: Vec<String>,
}

impl World {
    fn serve(&mut self, name: &'static str, framing: Framing, code: Box<dyn Code>) {
        self.served.retain(|(served, _)| *served != name);
        self.served.push((name, framing));
        self.adopt(name, code);
    }

    /// Adopts a build of one library with all services, whose sessions share their topics. One of
    /// them has code of its own.
    fn adopt(&mut self, name: &str, code: Box<dyn Code>) {
        let mut code = Some(code);
        let offers = self.served.iter().map(|(served, framing)| {
            let own = if *served == name { code.take() } else { None };
            (Offer::new(*served, *framing), own.unwrap_or_else(|| Box::new(Talk::new(served))))
        });
        let build = Build { library: "l".into(), generation: 1, hash: String::new() };
        self.core.adopt(&build, offers.collect());
    }

    fn begin(&mut self) {
        self.now_ns += 1;
        self.core.handle(Input::PassBegins { now_ns: self.now_ns });
    }

    fn commit(&mut self) {
        self.core.handle(Input::Cascade);
        self.core.handle(Input::Commit);
        let mut commands = Vec::new();
        self.core.take_commands(&mut commands);
        for command in commands {
            match command {
                Command::Notice { message, .. } => self.told.push(message),
                Command::Fault { fault, .. } => self.told.push(fault.message),
                _ => {}
            }
        }
    }

    /// Passes until nothing is due at once: a session with its share used goes on in the next one.
    fn settle(&mut self) {
        self.commit();
        while self.core.next_wake_ns() == Some(0) {
            let (mut sendable, mut begun) = (Vec::new(), self.core.sessions().len() + 1);
            self.core.take_sendable(&mut sendable);
            begun -= sendable.len().min(begun);
            self.begin();
            self.commit();
            assert!(begun < 100 && self.now_ns < 100_000, "it hangs");
        }
    }

    fn receive(&mut self, slot: u32, bytes: &[u8]) {
        self.begin();
        self.core.handle(Input::Received { slot: Slot(slot), bytes });
    }

    fn kill(&mut self) -> Vec<u64> {
        let image = Plain::cut_after(self.core.store().image(), None);
        let found = Store::recover(Box::new(image), self.limits.store_bytes_max).expect("a store");
        let successor = Core::recover(self.limits.clone(), found, self.now_ns);
        assert_eq!(successor.lost, Vec::<String>::new());
        self.core = successor.core;
        self.core.set_limits(trusting(self.limits.clone()));
        self.adopt("", Box::new(Unable));
        let sessions = successor.survivors.into_iter();
        let missing = sessions.map(|s| {
            let at = s.slot.0 as usize;
            self.core
                .reconcile(
                    s.slot,
                    StreamCounts::Kernel { read: self.read[at], sent: Some(self.taken[at].len() as u64) },
                )
                .expect("it is whole")
        });
        missing.collect()
    }

    fn step(&mut self, step: Step) {
        match step {
            Serve(name, framing) => {
                self.begin();
                self.serve(name, framing, Box::new(Talk::new(name)));
                // A build is recorded with the framings that it brings, in one commit.
                self.commit();
            }
            Break(name, framing) => self.serve(name, framing, Box::new(Unable)),
            Open(slot, name) => self.step(OpenAs(slot, name, "")),
            OpenAs(slot, name, kind) => {
                let service = self.core.service_named(name).expect("it is served");
                let (peer, id) = ("127.0.0.1:9".parse().expect("an address"), u64::from(slot) + 1);
                self.begin();
                self.core.handle(Input::Opened {
                    slot: Slot(slot),
                    id,
                    service,
                    kind,
                    peer,
                    at_ms: 0,
                    tls: None,
                });
                self.settle();
                self.read.push(0);
                self.taken.push(Vec::new());
            }
            In(slot, bytes) => {
                self.receive(slot, &bytes);
                self.read[slot as usize] += bytes.len() as u64;
                self.settle();
            }
            InTwice(slot, bytes) => {
                self.receive(slot, &bytes);
                self.read[slot as usize] += bytes.len() as u64;
                let missing = self.kill();
                let open = self.core.sessions().get(Slot(slot)).is_some_and(|s| s.life == Life::Open);
                assert_eq!(missing[slot as usize], if open { bytes.len() as u64 } else { 0 });
                self.receive(slot, &bytes);
                self.settle();
            }
            Kill => {
                self.kill();
                self.begin();
                self.settle();
            }
            Take(slot) => {
                self.begin();
                let slot_ = Slot(slot);
                while let Some(bytes) = self.core.output(slot_, |pieces| pieces.concat()) {
                    self.core.handle(Input::Sent { slot: slot_, bytes: bytes.len(), blocked: false });
                    self.taken[slot as usize].extend(bytes);
                }
                self.settle();
            }
        }
    }

    /// Output of each session, `closed` behind it if it is not open, and notices; a line each.
    fn outcome(&self) -> String {
        let mut lines = Vec::new();
        for (at, taken) in self.taken.iter().enumerate() {
            let slot = Slot(at as u32);
            let rest = self.core.output(slot, |pieces| pieces.concat()).unwrap_or_default();
            let output = [&taken[..], &rest].concat().escape_ascii().to_string();
            let open = self.core.sessions().get(slot).is_some_and(|s| s.life == Life::Open);
            lines.push(
                output.replace("long ".repeat(80).as_str(), "LONG ") + if open { "" } else { " closed" },
            );
        }
        lines.extend(self.told.iter().cloned());
        lines.join("\n")
    }
}

/// Limits under which every peer may be a proxy.
fn trusting(limits: Limits) -> AllLimits {
    let peers = TrustedProxies::read(&["127.0.0.0/8".into()]).expect("a network");
    AllLimits { proxies: [("s".into(), peers)].into(), ..AllLimits::from(limits) }
}

fn run_with(limits: Limits, script: &[Step]) -> World {
    let mut core = Core::new(limits.clone());
    core.set_limits(trusting(limits.clone()));
    let (read, taken) = (Vec::new(), Vec::new());
    let mut world = World { core, limits, now_ns: 0, served: Vec::new(), read, taken, told: Vec::new() };
    script.iter().for_each(|step| world.step(step.clone()));
    world
}

#[track_caller]
fn check(script: &[Step], expected: &str) {
    assert_eq!(run_with(Limits::default(), script).outcome(), expected, "{script:?}");
}

/// Checks that a stream gives the expected outcome as a whole, cut in two at every byte, and cut
/// into single bytes; the core is killed at each cut, before or after the commit.
#[track_caller]
fn check_stream(framing: Framing, stream: &[u8], expected: &str) {
    check_stream_of("s", framing, stream, expected);
}

/// The same, with a service of another name.
#[track_caller]
fn check_stream_of(name: &'static str, framing: Framing, stream: &[u8], expected: &str) {
    check_stream_behind([Serve(name, framing), Open(0, name)], stream, expected);
}

/// The same, behind these steps.
#[track_caller]
fn check_stream_behind(begin: [Step; 2], stream: &[u8], expected: &str) {
    let with = |more: Vec<Step>| check(&[&begin[..], &more].concat(), expected);
    for at in 0..=stream.len() {
        let (a, b) = (stream[..at].to_vec(), stream[at..].to_vec());
        with(vec![In(0, a.clone()), In(0, b.clone())]);
        with(vec![In(0, a.clone()), Kill, In(0, b.clone())]);
        with(vec![InTwice(0, a.clone()), InTwice(0, b.clone())]);
        with(vec![In(0, a), Take(0), Kill, Kill, In(0, b)]);
    }
    with(stream.iter().flat_map(|b| [In(0, vec![*b]), Kill]).collect());
    with(stream.iter().map(|b| InTwice(0, vec![*b])).collect());
}

#[test]
fn a_telnet_stream_may_be_cut_anywhere() {
    let stream = b"one\r\n\xff\xfd\x01tw\xff\xfb\x22o\xff\xff!\r\0\xff\xfa\x18\0x\xff\xf0\xff\xf6three\xff\xf1\xff\xfe\x05\n";
    let replies = r#"one\xff\xfc\x01\xff\xfe\"two\xff\xff![yes]\r\nthree"#;
    check_stream(TELNET, stream, replies);
}

/// Input that is long enough to grow in place, by single bytes: across deaths of the core, with
/// commands of telnet in it, and where it must wait.
#[test]
fn long_input_grows_in_place() {
    let long: Vec<u8> = (0..5000u32).map(|n| b'a' + (n % 23) as u8).collect();
    let text = String::from_utf8(long.clone()).expect("ASCII");
    let telnet = Framing::Telnet { bytes_max: 10_000 };
    let lines = Framing::Lines { bytes_max: 10_000 };
    for framing in [telnet, lines] {
        let begin = [Serve("s", framing), Open(0, "s"), In(0, long.clone())];
        let each = |step: fn(u32, Vec<u8>) -> Vec<Step>| {
            let more = b"on\nshort\n".iter().flat_map(|b| step(0, vec![*b]));
            let script: Vec<_> = begin.iter().cloned().chain(more).collect();
            check(&script, &format!("{text}onshort"));
        };
        each(|slot, b| vec![In(slot, b)]);
        each(|slot, b| vec![In(slot, b), Kill]);
        each(|slot, b| vec![InTwice(slot, b)]);
        each(|slot, b| vec![InTwice(slot, b), Kill, Kill]);
    }
    // Grown in place, then held: nothing is cut until the session goes on.
    let held = [
        Serve("s", lines),
        Open(0, "s"),
        In(0, b"hold\n".to_vec()),
        In(0, long.clone()),
        In(0, b"on".to_vec()),
        Kill,
        In(0, b"\nshort\n".to_vec()),
    ];
    check(&held, "");
    // A command of telnet is answered inside the line, once.
    let asks = [
        &[Serve("s", telnet), Open(0, "s"), In(0, long.clone())][..],
        &[
            In(0, b"\xff".to_vec()),
            In(0, b"\xfd\x01".to_vec()),
            Kill,
            In(0, b"o".to_vec()),
            In(0, b"n\n".to_vec()),
        ],
    ]
    .concat();
    check(&asks, &format!("\\xff\\xfc\\x01{text}on"));
}

/// A reader of a pinned epoch is not pushed out by a peer that sends byte by byte: what dies for
/// each byte is small, however long the message is.
#[test]
fn a_message_that_grows_by_bytes_leaves_a_pin_in_place() {
    let limits = Limits { pin_bytes_max: 1_000_000, ..Limits::default() };
    let lines = Framing::Lines { bytes_max: 100_000 };
    let mut world = run_with(limits, &[Serve("s", lines), Open(0, "s"), In(0, vec![b'x'; 60_000])]);
    let epoch = world.core.pin();
    for _ in 0..2000 {
        world.step(In(0, b"+".to_vec()));
    }
    assert!(world.core.unpin(epoch), "what died since the pin is within its limit");
    world.step(In(0, b"\n".to_vec()));
    assert_eq!(world.outcome(), "x".repeat(60_000) + &"+".repeat(2000));
}

/// Frame of a WebSocket client. The mask is zero: it changes nothing, and the bytes are readable.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0][..], payload].concat()
}

/// Request that opens a session of WebSocket.
const OPENS: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
/// Answer to it.
const OPENED: &str = "HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\\r\\n\\r\\n";

/// A header of either version, and what stands behind it in the framing of the session.
#[test]
fn a_stream_behind_a_proxy_header_may_be_cut_anywhere() {
    let binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\x0a\0\0\x01\x0f\xa0\0\x50";
    let hello = [OPENS, &frame(0x81, b"hi")].concat();
    for header in [&b"PROXY TCP4 203.0.113.7 10.0.0.1 4000 80\r\n"[..], &binary[..]] {
        for (kind, stream, answers) in [
            ("proxy", &b"one\n"[..], "one".to_owned()),
            ("proxy+telnet", b"tw\xff\xfd\x01o\r\n", r"\xff\xfc\x01two".to_owned()),
            ("proxy+ws", &hello, format!(r"{OPENED}\x82\x02hi")),
        ] {
            let begin = [Serve("s", LINES), OpenAs(0, "s", kind)];
            check_stream_behind(begin, &[header, stream].concat(), &answers);
        }
    }
    let begin = [Serve("s", LINES), OpenAs(0, "s", "proxy")];
    let refused = " closed\nclosed: it begins with no PROXY header (limit proxy_header)";
    check_stream_behind(begin, b"PROXIES", refused);
}

#[test]
fn a_websocket_stream_may_be_cut_anywhere() {
    let stream = |frames: &[(u8, &[u8])]| {
        let frames: Vec<u8> = frames.iter().flat_map(|(first, payload)| frame(*first, payload)).collect();
        [OPENS, &frames].concat()
    };
    let messages = stream(&[
        (0x81, b"one"),
        (0x01, b"tw\xc3"),
        (0x89, b"p"),
        (0x80, b"\xa9"),
        (0x8a, b""),
        (0x82, b"three"),
    ]);
    check_stream(SOCKET, &messages, &format!(r"{OPENED}\x82\x03one\x8a\x01p\x82\x04tw\xc3\xa9\x82\x05three"));
    let closes = stream(&[(0x01, b"half"), (0x88, b"\x03\xe8bye")]);
    check_stream(SOCKET, &closes, &format!(r"{OPENED}\x88\x02\x03\xe8 closed"));
    check_stream(SOCKET, &stream(&[(0x81, b"prompt")]), &format!(r"{OPENED}\x81\x02> "));
    check_stream(SOCKET, &stream(&[(0x81, b"close")]), &format!(r"{OPENED}\x88\x02\x03\xe8 closed"));
    let invalid = format!(
        "{OPENED}\\x88\\x1d\\x03\\xefa text message is not UTF-8 closed\nclosed: a text message is not UTF-8"
    );
    check_stream(SOCKET, &stream(&[(0x01, b"\xff")]), &invalid);
    let foreign = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    check_stream(
        SOCKET,
        foreign.as_bytes(),
        "HTTP/1.1 404 Not Found\\r\\nContent-Type: text/plain; charset=utf-8\\r\\nContent-Length: 28\\r\\n\
         Connection: close\\r\\n\\r\\n404 Not Found: no such page\\n closed",
    );
}

/// Bytes of a stream in frames of a client: each part in one of its own.
fn carried(parts: &[&[u8]]) -> Vec<u8> {
    parts.iter().flat_map(|part| frame(0x82, part)).collect()
}

/// Messages whose parts stand in frames of WebSocket, however the two are cut: the service's
/// framing cuts the stream, and each message to the peer is a frame.
#[test]
fn a_stream_in_websocket_may_be_cut_anywhere() {
    let check_in = |kind: &'static str, framing: Framing, frames: &[u8], answers: &str| {
        let begin = [Serve("s", framing), OpenAs(0, "s", kind)];
        check_stream_behind(begin, &[OPENS, frames].concat(), &format!("{OPENED}{answers}"));
    };
    let lines = carried(&[b"o", b"ne\ntw", b"", b"o\nthr"]);
    let lines = [lines, frame(0x89, b"p"), frame(0x01, b"e"), frame(0x80, b"e\n")].concat();
    check_in("ws+line", LINES, &lines, r"\x82\x03one\x82\x03two\x8a\x01p\x82\x05three");
    // No pong may come before the answers to what stands before the ping in the same bytes.
    let packets = carried(&[b"\0\x03on", b"e\0\0\0", b"\x03two\0"]);
    check_in("ws+prefix", prefix(2), &packets, r"\x82\x05\x00\x03one\x82\x02\x00\x00\x82\x05\x00\x03two");
    let own = Framing::Custom { version: 1, bytes_max: 400 };
    check_in("ws+custom", own, &carried(&[b"3:o", b"ne4:sk", b"ip1:a"]), r"\x82\x064:one1\x82\x042:a3");
    // Input waits for the session's turn, and a close behind it waits for the input.
    let closes = [carried(&[b"one\ntw"]), frame(0x88, b"\x03\xe8bye")].concat();
    check_in("ws+line", LINES, &closes, r"\x82\x03one\x88\x02\x03\xe8 closed");
    check_in("ws+line", LINES, &carried(&[b"close\nx"]), r"\x88\x02\x03\xe8 closed");
    let broken = r"\x82\x03one\x88\x17\x03\xeaa frame is not masked closed";
    let broken = format!("{broken}\nclosed: a frame is not masked");
    check_in("ws+line", LINES, &[&carried(&[b"one\n"])[..], b"\x82\x01x"].concat(), &broken);
    let long = carried(&[&[b'x'; 90][..]; 2]);
    let told = r"\x88\x19\x03\xf1the message is too long closed";
    let told = format!("{told}\nclosed: a frame was longer than its service takes (limit frame_bytes_max)");
    check_in("ws+line", Framing::Lines { bytes_max: 100 }, &long, &told);
}

/// A broadcast reaches sessions on a stream and in streams of WebSocket, each in its own form, as
/// does what a session is told before its request.
#[test]
fn streams_in_websocket_hear_what_others_send() {
    let own = Framing::Custom { version: 1, bytes_max: 400 };
    let script = [
        Serve("lines", LINES),
        Serve("own", own),
        Open(0, "lines"),
        OpenAs(1, "lines", "ws+line"),
        Open(2, "own"),
        OpenAs(3, "own", "ws+custom"),
        OpenAs(4, "lines", "ws"),
        In(1, OPENS.to_vec()),
        In(3, OPENS.to_vec()),
        In(4, OPENS.to_vec()),
        Kill,
        In(0, b"all bc\n".to_vec()),
        Kill,
        In(1, carried(&[b"all d\n"])),
    ];
    let heard = |framed: [&str; 2]| framed.concat();
    let expected = [
        "d".to_owned(),
        OPENED.to_owned() + r"\x82\x02bc",
        heard(["2:bc", "1:d"]),
        OPENED.to_owned() + &heard([r"\x82\x042:bc", r"\x82\x031:d"]),
        OPENED.to_owned() + &heard([r"\x82\x02bc", r"\x82\x01d"]),
    ];
    check(&script, &expected.join("\n"));
    for kind in ["ws", "ws+line"] {
        let note = In(0, b"note 2\n".to_vec());
        let early =
            [Serve("s", LINES), Open(0, "s"), OpenAs(1, "s", kind), note, Kill, In(1, OPENS.to_vec())];
        check(&early, &format!("\n{OPENED}\\x82\\x05told\\n"));
    }
}

/// A session in a stream of WebSocket keeps the framings that it needs: one for its request, one
/// inside.
#[test]
fn a_stream_in_websocket_outlives_its_endpoint() {
    let begin = [Serve("s", prefix(2)), OpenAs(0, "s", "ws+prefix")];
    let packet = carried(&[b"\0\x01a"]);
    let next = [Serve("s", LINES), Kill, Open(1, "s"), In(1, b"one\n".to_vec())];
    for at in [0, 20, OPENS.len(), OPENS.len() + 3] {
        let stream = [OPENS, &packet].concat();
        let (a, b) = stream.split_at(at);
        let parts = [In(0, a.to_vec()), In(0, b.to_vec())];
        let [first, second] = parts;
        let script = [&begin[..], &[first], &next, &[second]].concat();
        check(&script, &format!("{OPENED}\\x82\\x03\\x00\\x01a\none"));
    }
}

/// A long message by single bytes, which grows in place, and a request whose turn has to wait.
#[test]
fn a_websocket_session_waits_for_better_code() {
    let long = vec![b'x'; 5000];
    let socket = Framing::WebSocket { bytes_max: 10_000 };
    let begin = [Serve("s", socket), Open(0, "s"), In(0, OPENS.to_vec())];
    let head = [0x82, 0xfe, 0x13, 0x8a, 0, 0, 0, 0];
    for kill in [vec![], vec![Kill]] {
        let bytes = b"by single\n".iter().flat_map(|b| [vec![In(0, vec![*b])], kill.clone()].concat());
        let grows = [In(0, [&head[..], &long[..4990]].concat())];
        let rest = [In(0, b"yy".to_vec())];
        let script: Vec<_> = begin.iter().cloned().chain(grows).chain(bytes).chain(rest).collect();
        check(&script, &format!("{OPENED}\\x82~\\x13\\x8a{}by single\\nyy", "x".repeat(4990)));
    }
    let waits = [
        Break("s", socket),
        Open(0, "s"),
        In(0, [OPENS, &frame(0x81, b"hi")].concat()),
        Kill,
        Serve("s", socket),
        In(0, frame(0x81, b"on")),
    ];
    check(&waits, &format!("{OPENED}\\x82\\x02hi\\x82\\x02on\nunable"));
}

/// A session that is told something before its request has its first turn all the same, and then
/// the turn of that.
#[test]
fn what_others_tell_waits_for_the_request() {
    let begin = [Serve("s", LINES), Open(0, "s"), OpenAs(1, "s", "ws")];
    let tell = [In(0, b"note 2\n".to_vec()), Kill];
    let stream = [OPENS, &frame(0x81, b"hello")].concat();
    for at in [0, 9, OPENS.len(), stream.len()] {
        let (a, b) = stream.split_at(at);
        for before in [0, at] {
            let (early, late) = a.split_at(before);
            let part = |part: &[u8]| (!part.is_empty()).then(|| In(1, part.to_vec()));
            let script = begin.iter().cloned().chain(part(early)).chain(tell.clone());
            let script: Vec<_> = script.chain(part(late)).chain(part(b)).collect();
            let outcome = run_with(Limits::default(), &script).outcome();
            let (_, answer) = outcome.split_once('\n').expect("two sessions");
            let (_, frames) = answer.split_once("\\r\\n\\r\\n").expect("an answer");
            let (told, hello) = (r"\x82\x05told\n", r"\x82\x05hello");
            let expected = if before == stream.len() { [hello, told] } else { [told, hello] };
            assert_eq!(frames, expected.concat(), "told behind {before} of {at} bytes");
        }
    }
}

#[test]
fn replies_stay_between_the_messages_around_them() {
    // Two options in one line, and a line behind it in the same bytes.
    check_stream(
        TELNET,
        b"a\n\xff\xfd\x01\xff\xfd\x02b\xff\xfd\x03c\xff\xfd\x04\nd\n",
        r"a\xff\xfc\x01\xff\xfc\x02\xff\xfc\x03\xff\xfc\x04bcd",
    );
}

#[test]
fn a_stream_with_lengths_or_delimiters_may_be_cut_anywhere() {
    check_stream(prefix(2), b"\0\x03one\0\0\0\x03tw", r"\x00\x03one\x00\x00");
    check_stream(prefix(1), b"\x07twice x\x03end", r"\x01x\x01x\x03end");
    check_stream(delimiter(b"--"), b"one--two---three--", r"one--two---three--");
}

#[test]
fn a_stream_that_breaks_its_framing_ends_its_session() {
    let long = [&b"a\n\xff\xfa"[..], &[7; 1100]].concat();
    check(
        &[Serve("s", TELNET), Open(0, "s"), In(0, long)],
        "a closed\nclosed: a telnet subnegotiation is too long",
    );
    check(
        &[Serve("s", prefix(2)), Open(0, "s"), In(0, b"\0\x01a\xff\xff".to_vec())],
        "\\x00\\x01a closed\nclosed: a frame was longer than its service takes (limit frame_bytes_max)",
    );
}

#[test]
fn a_turn_in_the_middle_of_a_batch_keeps_the_state_of_its_place() {
    check_stream(
        TELNET,
        b"a\nfail\nb\xff\xfd\x01c\n\xff\xfd\x02d\n",
        "a\\xff\\xfc\\x01bc\\xff\\xfc\\x02d\nstatus 2",
    );
    check_stream(TELNET, b"a\nb\xff\xffb\nclose\nb\xff\xfd\x01c\n", "ab\\xff\\xffb closed");
    // Held in front of a line with a command in it, which is answered when the line comes on.
    for kill in [false, true] {
        let mut script = vec![Serve("s", TELNET), Open(0, "s"), In(0, b"a\nhold\nb\xff\xfd\x01c\n".to_vec())];
        script.extend(kill.then_some(Kill));
        check(&script, "a");
        let world = run_with(Limits::default(), &script);
        assert_eq!(world.core.store().count(Kind::Framing), 0);
    }
    check_stream(prefix(1), b"\x01a\x04fail\x01b\x05close\x01c", "\\x01a\\x01b closed\nstatus 2");
}

/// A command that was answered before the line was whole is not answered again when the line runs
/// late.
#[test]
fn a_line_that_has_to_wait_keeps_what_was_answered() {
    let line = |rest: &[u8]| In(0, rest.to_vec());
    for kill in [vec![], vec![Kill]] {
        let begin = vec![
            Serve("s", TELNET),
            Open(0, "s"),
            line(b"a\xff\xfd\x01b"),
            Break("s", TELNET),
            line(b"c\nd\n"),
        ];
        let end = vec![Serve("s", TELNET), line(b"e\n")];
        check(&[begin, kill, end].concat(), "\\xff\\xfc\\x01abcde\nunable");
    }
}

#[test]
fn a_message_that_the_framing_cannot_express_fails_its_turn() {
    check_stream(prefix(1), b"\x01a\x04LONG\x01b", "\\x01a\\x01b\nstatus 3");
    check_stream(delimiter(b"g l"), b"ag lLONGg lbg l", "ag lbg l\nstatus 3");
    check_stream(prefix(2), b"\0\x04LONG", r"\x01\x90LONG ");
}

#[test]
fn a_broadcast_is_framed_for_each_subscriber() {
    let open = |slot, name| Open(slot, name);
    let script = |text: &[u8]| {
        vec![
            Serve("lines", LINES),
            Serve("telnet", TELNET),
            Serve("short", prefix(1)),
            Serve("wide", prefix(2)),
            open(0, "lines"),
            open(1, "telnet"),
            open(2, "lines"),
            open(3, "short"),
            open(4, "wide"),
            open(5, "wide"),
            In(0, text.to_vec()),
            Kill,
        ]
    };
    // Two in one batch stay two messages.
    check(
        &script(b"all a\xffb\nall c\n"),
        "\na\\xff\\xffbc\na\\xffbc\n\\x03a\\xffb\\x01c\n\\x00\\x03a\\xffb\\x00\\x01c\n\\x00\\x03a\\xffb\\x00\\x01c",
    );
    // A long one is one record for each framing; a prefix of one byte can't express it.
    let long = script(b"ALL x\n");
    check(
        &long,
        "\nLONG x\nLONG x\n\n\\x01\\x91LONG x\n\\x01\\x91LONG x\n\
         a broadcast to it is left out: the message is longer than its length prefix can express",
    );
    // Shared by the two of `wide`; the other two are alone with theirs.
    let world = run_with(Limits::default(), &long);
    assert_eq!(world.core.store().count(Kind::Payload), 1);
    assert_eq!(world.core.store().count(Kind::Shared), 2);
}

#[test]
fn a_peer_that_asks_and_does_not_read_is_paused() {
    let limits = Limits { output_bytes_pause: 300, output_bytes_max: 600, ..Limits::default() };
    let asks = b"\xff\xf6".repeat(1000);
    let mut script = vec![Serve("s", TELNET), Open(0, "s"), In(0, asks)];
    let world = run_with(limits.clone(), &script);
    let unsent = world.core.sessions().get(Slot(0)).map(|s| s.unsent());
    // The reply that goes over the limit is the last one.
    assert_eq!(unsent, Some(301));
    assert!(!world.core.wants_input(Slot(0)));
    script.extend((0..30).flat_map(|_| [Take(0), Kill]));
    let world = run_with(limits, &script);
    assert_eq!(world.outcome(), "[yes]\\r\\n".repeat(1000));
    assert!(world.core.wants_input(Slot(0)));
}

/// In the middle of a message, and for those behind it. Sessions that open later have the new one.
#[test]
fn a_session_keeps_the_framing_that_it_began_with() {
    let line = || In(0, b"ab\xff\xfd\x01c".to_vec());
    for kill in [vec![], vec![Kill]] {
        let script = |framing| {
            let begin = vec![Serve("s", TELNET), Open(0, "s"), line()];
            let serve = vec![Serve("s", framing)];
            let rest = vec![In(0, b"d\nx\xff\xff\n".to_vec()), Open(1, "s"), In(1, b"y\xff\xff\n".to_vec())];
            [begin, kill.clone(), serve, kill.clone(), rest, kill.clone(), vec![In(1, b"z\n".to_vec())]]
                .concat()
        };
        let telnet = "\\xff\\xfc\\x01abcdx\\xff\\xff\n";
        // The same with a longer message is no other framing.
        check(&script(Framing::Telnet { bytes_max: 500 }), &format!("{telnet}y\\xff\\xffz"));
        check(&script(LINES), &format!("{telnet}y\\xff\\xffz"));
        check(&script(delimiter(b"\xff\n")), &format!("{telnet}y\\xff\\xff\\n"));
        let world = run_with(Limits::default(), &script(LINES));
        assert_eq!(
            (world.core.store().count(Kind::Framing), world.core.store().count(Kind::Framings)),
            (0, 1)
        );
    }
}

/// A service is had in several kinds at once. A broadcast is framed for each.
#[test]
fn endpoints_of_a_service_have_their_own_framings() {
    for kill in [vec![], vec![Kill]] {
        let begin = vec![
            Serve("s", LINES),
            OpenAs(0, "s", "telnet"),
            OpenAs(1, "s", ""),
            OpenAs(2, "s", "raw"),
            OpenAs(3, "s", "prefix"),
        ];
        let say =
            vec![In(0, b"one\xff\xff\r\n".to_vec()), In(1, b"tw\xffo\r\n".to_vec()), In(2, b"th\n".to_vec())];
        let all = vec![In(1, b"all a\xff\n".to_vec())];
        let script = [begin, kill.clone(), say, kill.clone(), all, kill].concat();
        // A kind that the service has not is closed, and operators are told.
        let refused = "connection from 127.0.0.1:9 refused \
                       (the service has no such kind of endpoint, or too many framings in use)";
        let sent = "one\\xff\\xffa\\xff\\xff\ntw\\xffo\nth\\na\\xff\n closed";
        check(&script, &format!("{sent}\n{refused}"));
    }
}

/// Telnet, WebSocket and lines in one service, and a framing of the library's own in another.
#[test]
fn a_line_to_all_is_written_once_for_each_framing() {
    let own = Framing::Custom { version: 1, bytes_max: 400 };
    for kill in [vec![], vec![Kill]] {
        let begin = vec![
            Serve("s", TELNET),
            Serve("own", own),
            OpenAs(0, "s", ""),
            OpenAs(1, "s", "ws"),
            OpenAs(2, "s", "line"),
            Open(3, "own"),
            In(1, OPENS.to_vec()),
        ];
        let tell =
            vec![In(0, b"say a\xff\xff\n".to_vec()), In(2, b"say b\n".to_vec()), In(2, b"all c\n".to_vec())];
        let script = [begin, kill.clone(), tell, kill].concat();
        let socket = format!("{OPENED}\\x81\\x04a\\xef\\xbf\\xbd\\x81\\x01b\\x82\\x01c");
        check(&script, &format!("b\\r\\nc\n{socket}\na\\xff\\n\n3:a\\xff\\n2:b\\n1:c"));
    }
}

#[test]
fn a_lost_framing_state_is_noticed() {
    let script = [Serve("s", TELNET), Open(0, "s"), In(0, b"ab\xff\xfd\x01c".to_vec())];
    let world = run_with(Limits::default(), &script);
    assert_eq!(world.core.store().count(Kind::Framing), 1);
    let mut image = world.core.store().image().to_vec();
    // The stored bytes: version 1, and 5 bytes that were answered.
    let stored = [1, 5, 0, 0, 0];
    let at: Vec<_> = image.windows(5).enumerate().filter(|(_, w)| *w == stored).map(|(at, _)| at).collect();
    for at in at {
        image[at + 1] = 4;
        let found = Store::recover(Box::new(Plain::from(image.clone())), world.limits.store_bytes_max);
        let lost = Core::recover(world.limits.clone(), found.expect("a store"), world.now_ns).lost;
        let expected =
            ["session 1: the state of the framing is damaged", "session 1: its framing state is lost"];
        if lost == expected {
            return;
        }
        image[at + 1] = 5;
    }
    panic!("the stored bytes are nowhere");
}

/// Requests of a turn, answers of the peer within a line, and a subnegotiation.
#[test]
fn a_negotiation_may_be_cut_anywhere() {
    check_stream_of(
        "tells",
        TELNET,
        b"do 31\nx\xff\xfb\x1fy\n\xff\xfa\x1f\0P\0\x18\xff\xf0dont 31\na\xff\xfc\x1fb\n",
        "\\xff\\xfd\\x1f[31 \\xfb\\x01]xy[31 \\x00P\\x00\\x18]\\xff\\xfe\\x1f[31 \\xfc\\x00]ab",
    );
    // A handler may ask for what was refused.
    check_stream_of(
        "tells",
        TELNET,
        b"\xff\xfb\x18do 24\n\xff\xfb\x18sub \xff\xff\n",
        "\\xff\\xfe\\x18[24 \\xfb\\x00]\\xff\\xfd\\x18[24 \\xfb\\x01]\\xff\\xfa\\xc9\\xff\\xff\\xff\\xf0",
    );
    // Prompts follow what is agreed, also within one batch.
    check_stream(
        TELNET,
        b"prompt\nwill 3\nprompt\n\xff\xfd\x03prompt\nwill 25\n\xff\xfd\x19prompt\nwont 25\nprompt\n",
        "> \\xff\\xf9\\xff\\xfb\\x03> \\xff\\xf9> \\xff\\xfb\\x19> \\xff\\xef\\xff\\xfc\\x19> ",
    );
}

/// A turn that fails has asked for nothing. Later messages of its batch find what the earlier ones
/// asked for, and commands within their lines are dealt with once.
#[test]
fn a_turn_that_fails_negotiates_nothing() {
    check_stream_of(
        "tells",
        TELNET,
        b"a\ndo 31\nfaildo 24\nb\xff\xfb\x18\xff\xfb\x1fc\n",
        "a\\xff\\xfd\\x1f\\xff\\xfe\\x18[24 \\xfb\\x00][31 \\xfb\\x01]bc\nstatus 2",
    );
    check_stream_of(
        "tells",
        TELNET,
        b"will 1\nx\nfail\n\xff\xfd\x01hold\nb\n",
        "\\xff\\xfb\\x01x[1 \\xfd\\x01]\nstatus 2",
    );
    // More options than a session holds.
    let most: String = (100..130).map(|n| format!("do {n}\n")).collect();
    let world = run_with(Limits::default(), &[Serve("s", TELNET), Open(0, "s"), In(0, most.into_bytes())]);
    assert_eq!(world.told, ["status 3"]);
}

/// Bytes to a peer that takes them as they are; a broadcast reaches each session in its way.
#[test]
fn binary_and_text_sessions_share_a_topic() {
    let agree = |slot| In(slot, b"will 0\n\xff\xfd\0".to_vec());
    let begin = vec![
        Serve("lines", LINES),
        Serve("telnet", TELNET),
        Open(0, "lines"),
        Open(1, "telnet"),
        Open(2, "telnet"),
        Open(3, "telnet"),
        agree(2),
        agree(3),
    ];
    for kill in [vec![], vec![Kill]] {
        let long =
            vec![In(0, b"all a\rb\n".to_vec()), In(2, b"wont 0\n".to_vec()), In(0, b"all c\rd\n".to_vec())];
        let said = "\\xff\\xfb\\x00";
        check(
            &[begin.clone(), kill, long].concat(),
            &format!("\na\\r\\x00bc\\r\\x00d\n{said}a\\rb\\xff\\xfc\\x00c\\r\\x00d\n{said}a\\rbc\\rd"),
        );
    }
}

/// A build that knows no such action has no turn for it, and its peer is refused all the same.
#[test]
fn an_older_build_gets_no_events() {
    for (name, turns) in [("s", 2), ("tells", 3)] {
        let offer = In(0, b"a\xff\xfb\x18b\n".to_vec());
        let world = run_with(Limits::default(), &[Serve(name, TELNET), Open(0, name), offer]);
        assert!(world.outcome().starts_with("\\xff\\xfe\\x18"), "{}", world.outcome());
        assert_eq!(world.core.sessions().get(Slot(0)).map(|s| s.turns), Some(turns));
    }
}

/// Options and half a message go on with the next build, in another process.
#[test]
fn what_was_negotiated_outlives_its_build() {
    let ask = In(0, b"do 31\n\xff\xfb\x1fhalf".to_vec());
    for kill in [vec![], vec![Kill]] {
        let begin = vec![Serve("tells", TELNET), Open(0, "tells"), ask.clone()];
        let swap = vec![Serve("tells", Framing::Telnet { bytes_max: 300 })];
        let end = vec![In(0, b"\xff\xfb\x1f\n\xff\xfa\x1f1234\xff\xf0".to_vec())];
        let script = [begin, kill.clone(), swap, kill, end].concat();
        check(&script, "\\xff\\xfd\\x1f[31 \\xfb\\x01]half[31 1234]");
    }
}

/// A framing of the library's own, with a byte of state that counts.
#[test]
fn a_framing_of_the_librarys_own_may_be_cut_anywhere() {
    let own = Framing::Custom { version: 1, bytes_max: 400 };
    check_stream(own, b"3:one4:skip5:plain0:9:twice 2x!12:twi", "4:one15:plain1:44:2x!54:2x!5");
    check_stream(own, b"1:a4:fail1:b", "2:a12:b3\nstatus 2");
    check_stream(own, b"1:!1:ax:", "2:a2 closed\nstatus 3\nclosed: its framing refuses the input: no length");
    for (input, why) in [(&b"1:aP:"[..], "it panicked"), (b"1:a66:", "it consumes 99 bytes, and there are 3")]
    {
        check_stream(
            own,
            input,
            &format!("2:a1 closed\nclosed: its framing failed: {why}\nits framing failed: {why}"),
        );
    }
    // A broadcast is framed by the library once, and left out where that fails.
    let all = |text: &[u8]| {
        vec![
            Serve("lines", LINES),
            Serve("own", own),
            Serve("other", own),
            Open(0, "lines"),
            Open(1, "own"),
            Open(2, "own"),
            Open(3, "other"),
            In(0, text.to_vec()),
            Kill,
        ]
    };
    check(&all(b"all a\nall bc\n"), "\n1:a2:bc\n1:a2:bc\n1:a2:bc");
    let left_out = "a broadcast to it is left out: it begins with !";
    check(&all(b"all !\n"), &format!("\n\n\n\n{left_out}\n{left_out}\n{left_out}"));
    // A build with another version begins anew, in the middle of a message.
    for (version, expected) in [(1, "2:a12:b2"), (2, "2:a12:b1")] {
        let next = Framing::Custom { version, bytes_max: 400 };
        check(
            &[
                Serve("s", own),
                Open(0, "s"),
                In(0, b"1:a1:".to_vec()),
                Serve("s", next),
                In(0, b"b".to_vec()),
            ],
            expected,
        );
    }
}

/// Sessions wait while no library serves them, and end with a build that has no such framing. The
/// list of framings is recorded, as it is not that of the first build alone.
#[test]
fn a_framing_of_the_librarys_own_comes_and_goes_with_its_code() {
    let own = |version| Framing::Custom { version, bytes_max: 400 };
    let waits = "\nno library offers this service, whose code cuts its messages";
    let reason = "closed: the build that serves has no framing of its own any more";
    for (next, expected) in [
        (own(1), "2:a12:b22:c3".to_owned() + waits),
        (own(2), "2:a12:b12:c2".to_owned() + waits),
        (LINES, format!("2:a1 closed{waits}\n{reason}")),
    ] {
        let more = [In(0, b"1:".to_vec()), Serve("s", next), In(0, b"b1:c".to_vec())];
        let begin = [Serve("s", LINES), Serve("s", own(1)), Open(0, "s"), In(0, b"1:a".to_vec())];
        let mut world = run_with(Limits::default(), &begin);
        world.served.clear();
        world.step(Kill);
        more.into_iter().for_each(|step| world.step(step));
        assert_eq!(world.outcome(), expected);
    }
}

/// A message whose cut has killed the process is not cut again: its session waits, behind the
/// messages before it.
#[test]
fn a_cut_that_kills_quarantines_its_session() {
    let own = Framing::Custom { version: 1, bytes_max: 400 };
    let mut world = run_with(Limits::default(), &[Serve("s", own), Open(0, "s")]);
    let reason = "it kills".to_owned();
    world.core.block(BlockedAction { session: 1, turn: 2, action: action::MESSAGE, reason });
    world.step(In(0, b"1:a1:b1:c".to_vec()));
    assert_eq!(world.outcome(), "2:a1\nquarantined: it kills");
}

/// Messages of a packet protocol, whose type stands before their length.
#[test]
fn a_stream_of_packets_may_be_cut_anywhere() {
    let mqtt = LengthPrefix::base_128(4).and_then(|prefix| prefix.behind(1)).expect("a prefix");
    let mqtt = Framing::LengthPrefix { prefix: mqtt, bytes_max: 400 };
    check_stream(mqtt, b"\xc0\0\x30\x03one\x30\x0212\x31", r"\xc0\x000\x03one0\x0212");
    check_stream(mqtt, b"f\x03ailc\x04lose0\0", " closed\nstatus 2");
}
