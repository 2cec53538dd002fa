//! Framings of a real host: telnet, length prefix and a library's own over sockets, across a swap
//! and `kill -9` in the middle of a message and of a negotiation; and the telnet client that people
//! use.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::Fixture;
use greenroom_tests::host::Host;
use greenroom_tests::{built, root, wait_for};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// A peer whose bytes are compared as they are.
struct Peer {
    stream: TcpStream,
}

impl Peer {
    fn connect(host: &Host, service: &str) -> Peer {
        Peer::at(&host.addr(service).to_string())
    }

    fn at(addr: &str) -> Peer {
        let stream = TcpStream::connect(addr).expect("a connection");
        // A failure is no hang.
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Peer { stream }
    }

    /// Sends bytes, and waits until the host has read them: all that it read of all sessions is
    /// `total`.
    fn send(&mut self, host: &Host, bytes: &[u8], total: &mut u64) {
        self.stream.write_all(bytes).expect("the host takes bytes");
        *total += bytes.len() as u64;
        let read = || {
            let sessions = host.json(&["sessions", "--json"]);
            let all = sessions.as_array().expect("sessions").iter();
            all.map(|s| s["bytes_in"].as_u64().expect("a number")).sum::<u64>()
        };
        wait_for("the bytes to be read", || (read() == *total).then_some(()));
    }

    #[track_caller]
    fn expect(&mut self, bytes: &[u8]) {
        let mut got = vec![0; bytes.len()];
        self.stream.read_exact(&mut got).expect("so many bytes");
        assert_eq!(got.escape_ascii().to_string(), bytes.escape_ascii().to_string());
    }

    /// Nothing else has come: the host ends the stream behind what it answers to the end of ours.
    fn ends(mut self) {
        self.stream.shutdown(std::net::Shutdown::Write).expect("shut");
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("the end");
        assert_eq!(rest.escape_ascii().to_string(), "");
    }
}

/// Services of the fixture.
const SERVICES: [&str; 4] = ["framed-telnet", "framed-prefixed", "framed-own", "framed-socket"];

/// Builds of the fixture, whose answers begin with `a` and with `b`. Made once for all tests.
fn builds() -> &'static (PathBuf, PathBuf) {
    static BUILDS: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    BUILDS.get_or_init(|| {
        let source = std::fs::read_to_string(root().join("tests/fixtures/framed.rs")).expect("the fixture");
        let fixture = Fixture::new("framed", "");
        let build = |prefix: &str| {
            let named = source.replace("SERVICE-", "framed-").replace("PREFIX", prefix);
            fixture.write(&named.replace("FRAMED", prefix));
            fixture.build_as(&format!("framed{prefix}.so"))
        };
        (build("a"), build("b"))
    })
}

#[test]
fn framed_sessions_survive_swaps_and_kills_in_the_middle_of_messages() {
    let (one, two) = builds();
    let host = Host::serve_with(&SERVICES, &[one], |c| {
        c.args(["--listen", "framed-prefixed=custom://127.0.0.2:0"]);
    });
    let mut total = 0;
    let mut own = Peer::connect(&host, "framed-own");
    let mut telnet = Peer::connect(&host, "framed-telnet");
    let mut prefixed = Peer::connect(&host, "framed-prefixed");
    let listen = host.service("framed-prefixed")["listen"].clone();
    let mut all = listen.as_array().expect("a list").iter().filter_map(|l| l.as_str());
    // A framing of the library's own at a service's second endpoint.
    let mut second = Peer::at(all.find_map(|l| l.strip_prefix("custom://")).expect("such an endpoint"));

    // A command within a line is answered at once, and the line waits for its end.
    telnet.send(&host, b"on\xff\xfd\x01e\xff", &mut total);
    telnet.expect(b"\xff\xfc\x01a Do 1 false\r\n");
    own.send(&host, b"3:one5:tw", &mut total);
    own.expect(b"10:a1 one a1\n");
    prefixed.send(&host, b"\0\x03one\0\x05tw", &mut total);
    prefixed.expect(b"\0\x07a1 one\n");
    second.send(&host, b"3:o", &mut total);

    // Swapped in the middle of both.
    let (code, report) = host.reload_from("framed", two);
    assert_eq!(code, Some(0), "{report}");
    telnet.send(&host, b"\xff!\r\n", &mut total);
    telnet.expect(b"b1 one\xff\xff!\r\n");
    prefixed.send(&host, b"o\0\xff", &mut total);
    prefixed.expect(b"\0\x09b2 two\0\xff\n");
    // The new build's framing ends what the old one's began.
    own.send(&host, b"ice4:fo", &mut total);
    own.expect(b"12:b2 twice b2\n");
    // A negotiation has begun, and an offer of the peer is half there.
    telnet.send(&host, b"ask\r\n\xff\xfb\x18a\xff\xfb", &mut total);
    telnet.expect(b"\xff\xfd\x18\xff\xfd\x1f\xff\xfa\x18\x01\xff\xf0");
    let (code, report) = host.reload_from("framed", one);
    assert_eq!(code, Some(0), "{report}");
    telnet.send(&host, b"\x1f\xff\xfa\x1f\0\x50\0", &mut total);
    let (code, report) = host.reload_from("framed", two);
    assert_eq!(code, Some(0), "{report}");

    // Killed in the middle of a command, behind one that was answered; and behind half a length.
    telnet.send(&host, b"\x18\xff\xf0gain\n", &mut total);
    telnet.expect(b"b 80 by 24\r\nb2 again\r\n");
    telnet.send(&host, b"tw\xff\xfb\x03o\xff\xfa\x18\0VT1", &mut total);
    telnet.expect(b"\xff\xfe\x03b Will 3 false\r\n");
    prefixed.send(&host, b"\0", &mut total);
    host.kill_worker();
    telnet.send(&host, b"00\xff\xf0\xff\xfd\x05\xff\xf6\r\0", &mut total);
    telnet.expect(b"b terminal VT100\r\n\xff\xfc\x05b Do 5 false\r\n[yes]\r\nb3 two\r\n");
    own.send(&host, b"ur", &mut total);
    own.expect(b"11:b3 four b3\n");
    second.send(&host, b"ne", &mut total);
    second.expect(b"10:b1 one b1\n");
    prefixed.send(&host, b"\x0aall i\xff\nyou", &mut total);
    prefixed.expect(b"\0\x0eb3 all i\xff\nyou\n");
    // Framed for each: the telnet session gets the same bytes otherwise.
    telnet.expect(b"i\xff\xff\r\nyou");
    own.expect(b"6:i\xff\nyou");
    second.expect(b"6:i\xff\nyou");

    // A framing that panics ends its session, and counts as a turn that fails.
    own.stream.write_all(b"1:xpanic:").expect("sent");
    let mut rest = Vec::new();
    own.stream.read_to_end(&mut rest).expect("the end");
    assert_eq!(rest, b"8:b4 x b4\n");
    host.wait_log("closed: its framing failed: panicked at ");
    assert_eq!(host.service("framed-own")["faults"], 1);

    telnet.ends();
    prefixed.ends();
    second.ends();
}

#[test]
fn a_stream_that_breaks_its_framing_is_closed_by_name() {
    let host = Host::serve_with(&SERVICES, &[&builds().0], |_| {});
    for (service, bytes, says) in [
        ("framed-own", b"one:".to_vec(), "its framing refuses the input: there is no length"),
        ("framed-telnet", [&b"\xff\xfa"[..], &[1; 2000]].concat(), "a telnet subnegotiation is too long"),
        ("framed-prefixed", b"\x01\x00".to_vec(), "limit frame_bytes_max"),
    ] {
        let mut peer = Peer::connect(&host, service);
        peer.stream.write_all(&bytes).expect("sent");
        let mut rest = Vec::new();
        peer.stream.read_to_end(&mut rest).expect("the end");
        assert_eq!(rest, b"");
        host.wait_log(says);
    }
}

/// A line that grows by a byte in each pass, which is appended in place. No byte is lost across a
/// reload and a kill.
#[test]
fn a_long_message_grows_by_single_bytes() {
    let host = Host::serve_limited("tally", &built("libecho.so"), "");
    let long: Vec<u8> = (0..6_000u32).map(|n| b'a' + (n % 23) as u8).collect();
    let mut peer = Peer::connect(&host, "tally");
    let mut total = 0;
    peer.send(&host, &long, &mut total);
    let mut other = Client::connect(host.addr("tally"));
    // Each answer is of another pass than the byte before.
    let mut grows = |bytes: &[u8]| {
        for b in bytes {
            peer.stream.write_all(&[*b]).expect("the host takes bytes");
            other.ask("on");
        }
    };

    let mut library = std::fs::read(built("libecho.so")).expect("the library");
    library.push(0);
    let copy = host.dir().join("libecho-2.so");
    std::fs::write(&copy, library).expect("a copy");
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| host.reload_from("tally", &copy));
        while !reload.is_finished() && total < 8_000 {
            grows(b"+");
            total += 1;
        }
        let (code, report) = reload.join().expect("a report");
        assert_eq!(code, Some(0), "{report}");
    });
    grows(b"before");
    host.kill_worker();
    grows(b"after\n");

    let grown = total as usize - long.len();
    let expected = [b"1 ", &long[..], &vec![b'+'; grown], b"beforeafter\n"].concat();
    peer.expect(&expected);
}

/// The telnet client that Debian has, on a terminal of its own. It agrees to what the handler asks
/// for, and shows what is typed unless it is asked not to: before and behind a swap, and a kill
/// between the question and the answer.
#[test]
fn a_telnet_client_is_asked_for_its_terminal_and_a_password() {
    let (one, two) = builds();
    let host = Host::serve_with(&SERVICES, &[one], |_| {});
    let mut client = Terminal::telnet(host.addr("framed-telnet").port());
    client.types("ask");
    client.shows("a 77 by 33");
    client.shows("a terminal XTERM");
    client.types("login");
    client.shows("a password: ");
    client.shows("a Do 1 true");
    let (code, report) = host.reload_from("framed", two);
    assert_eq!(code, Some(0), "{report}");
    client.types("hidden");
    client.shows("b1 hidden");
    host.kill_worker();
    client.types("secret");
    client.shows("b welcome");
    client.shows("b Dont 1 false");
    client.types("shown");
    client.shows("b2 shown");
    // What is typed is shown by the terminal, so that it is there twice.
    let screen = client.screen();
    let count = |text: &str| screen.matches(text).count();
    assert_eq!((count("hidden"), count("secret"), count("shown")), (1, 0, 2), "{screen}");
    drop(client);
}

/// A client on a terminal of its own, which is one of util-linux's `script`.
struct Terminal {
    script: Child,
    keys: ChildStdin,
    screen: Arc<Mutex<Vec<u8>>>,
    /// Bytes of the screen that a check has passed.
    seen: usize,
}

impl Terminal {
    fn telnet(port: u16) -> Terminal {
        let run = format!("stty rows 33 cols 77; exec telnet 127.0.0.1 {port}");
        let mut script = Command::new("script");
        script.args(["-qfc", &run, "/dev/null"]).env("TERM", "xterm");
        script.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut script = script.spawn().expect("script, of util-linux");
        let (keys, mut output) = (script.stdin.take().expect("stdin"), script.stdout.take().expect("stdout"));
        let screen = Arc::new(Mutex::new(Vec::new()));
        let to = screen.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 1024];
            while let Ok(n @ 1..) = output.read(&mut bytes) {
                to.lock().expect("the screen").extend(&bytes[..n]);
            }
        });
        let mut terminal = Terminal { script, keys, screen, seen: 0 };
        terminal.shows("Escape character is");
        terminal
    }

    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().expect("the screen")).into_owned()
    }

    fn types(&mut self, line: &str) {
        self.keys.write_all(format!("{line}\n").as_bytes()).expect("it takes keys");
    }

    /// Waits until a text is on the screen, behind those that were waited for.
    #[track_caller]
    fn shows(&mut self, text: &str) {
        let seen = self.seen;
        let at = wait_for(&format!("{text:?} on the screen"), || {
            let at = self.screen().get(seen..)?.find(text)?;
            Some(seen + at + text.len())
        });
        self.seen = at;
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}
