//! Framings of a real host: telnet and length prefix over sockets, across a swap and `kill -9` in
//! the middle of a message.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::Fixture;
use greenroom_tests::host::Host;
use greenroom_tests::{built, root, wait_for};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A peer whose bytes are compared as they are.
struct Peer {
    stream: TcpStream,
}

impl Peer {
    fn connect(host: &Host, service: &str) -> Peer {
        let stream = TcpStream::connect(host.addr(service)).expect("a connection");
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

#[test]
fn framed_sessions_survive_swaps_and_kills_in_the_middle_of_messages() {
    let source = std::fs::read_to_string(root().join("tests/fixtures/framed.rs")).expect("the fixture");
    let fixture = Fixture::new("framed", "");
    let build = |prefix: &str| {
        fixture.write(&source.replace("SERVICE-", "framed-").replace("PREFIX", prefix));
        fixture.build_as(&format!("framed{prefix}.so"))
    };
    let (one, two) = (build("a"), build("b"));
    let host = Host::serve_with(&["framed-telnet", "framed-prefixed", "framed-socket"], &[&one], |_| {});
    let mut total = 0;
    let mut telnet = Peer::connect(&host, "framed-telnet");
    let mut prefixed = Peer::connect(&host, "framed-prefixed");

    // A command within a line is answered at once, and the line waits for its end.
    telnet.send(&host, b"on\xff\xfd\x01e\xff", &mut total);
    telnet.expect(b"\xff\xfc\x01");
    prefixed.send(&host, b"\0\x03one\0\x05tw", &mut total);
    prefixed.expect(b"\0\x07a1 one\n");

    // Swapped in the middle of both.
    let (code, report) = host.reload_from("framed", &two);
    assert_eq!(code, Some(0), "{report}");
    telnet.send(&host, b"\xff!\r\n", &mut total);
    telnet.expect(b"b1 one\xff\xff!\r\n");
    prefixed.send(&host, b"o\0\xff", &mut total);
    prefixed.expect(b"\0\x09b2 two\0\xff\n");

    // Killed in the middle of a command, behind one that was answered; and behind half a length.
    telnet.send(&host, b"tw\xff\xfb\x03o\xff\xfd", &mut total);
    telnet.expect(b"\xff\xfe\x03");
    prefixed.send(&host, b"\0", &mut total);
    host.kill_worker();
    telnet.send(&host, b"\x05\xff\xf6\r\0", &mut total);
    telnet.expect(b"\xff\xfc\x05[yes]\r\nb2 two\r\n");
    prefixed.send(&host, b"\x0aall i\xff\nyou", &mut total);
    prefixed.expect(b"\0\x0eb3 all i\xff\nyou\n");
    // Framed for each: the telnet session gets the same bytes otherwise.
    telnet.expect(b"i\xff\xff\r\nyou");

    telnet.ends();
    prefixed.ends();
}

#[test]
fn a_stream_that_breaks_its_framing_is_closed_by_name() {
    let source = std::fs::read_to_string(root().join("tests/fixtures/framed.rs")).expect("the fixture");
    let fixture = Fixture::new("framed2", &source.replace("SERVICE-", "framed2-").replace("PREFIX", ""));
    let host = Host::serve_with(
        &["framed2-telnet", "framed2-prefixed", "framed2-socket"],
        &[&fixture.build()],
        |_| {},
    );
    for (service, bytes, says) in [
        ("framed2-telnet", [&b"\xff\xfa"[..], &[1; 2000]].concat(), "a telnet subnegotiation is too long"),
        ("framed2-prefixed", b"\x01\x00".to_vec(), "limit frame_bytes_max"),
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
