//! Swaps with clients in mid-conversation: a real cargo, the real binary, real sockets.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::{Fixture, install, tally_source};
use greenroom_tests::host::Host;
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of one line of a flood: as many as a turn may send.
const FLOOD_LINE: usize = 1 << 19;

/// Lines of a flood: 8 MiB, which is more than the socket buffers hold.
const FLOOD_LINES: usize = 16;

/// The states of a dump, by session.
fn states(dump: &Value) -> Vec<(u64, Value)> {
    let sessions = dump["sessions"].as_array().expect("sessions");
    sessions.iter().map(|s| (s["id"].as_u64().expect("id"), s["state"].clone())).collect()
}

/// A session's part when the code is swapped.
#[derive(Clone, Copy)]
enum Role {
    /// Everything is answered.
    Idle,
    /// Half a line is sent.
    HalfLine,
    /// More is asked for than the socket buffers hold, and nothing is read.
    UnreadOutput,
    /// Whole lines are sent, and the answers are read after the swap.
    Talking,
}

impl Role {
    /// Role of the `i`-th session. Few have unread output: it takes 8 MiB each.
    fn of(i: usize) -> Role {
        match i % 4 {
            1 => Role::HalfLine,
            2 if i < 20 => Role::UnreadOutput,
            3 => Role::Talking,
            _ => Role::Idle,
        }
    }
}

/// Sessions in mid-conversation, each with its role.
struct House {
    clients: Vec<Client>,
}

impl House {
    /// Connects 200 clients, and has each begin its conversation.
    fn open(host: &Host, service: &str) -> House {
        let mut clients: Vec<_> = (0..200).map(|_| Client::connect(host.addr(service))).collect();
        for (i, c) in clients.iter_mut().enumerate() {
            for n in 1..=House::hellos(i) {
                assert_eq!(c.ask("hello"), format!("one {n} hello"));
            }
            match Role::of(i) {
                Role::Idle => {}
                Role::HalfLine => c.send("first ha"),
                Role::UnreadOutput => (0..FLOOD_LINES).for_each(|_| c.send(format!("flood {FLOOD_LINE}\n"))),
                Role::Talking => c.send("here\nand there\n"),
            }
        }
        House { clients }
    }

    /// Ends each conversation, with the new code and the old state.
    fn go_on(&mut self, prefix: &str) {
        for (i, c) in self.clients.iter_mut().enumerate() {
            let n = House::hellos(i);
            let lines = match Role::of(i) {
                Role::Idle => 0,
                Role::HalfLine => {
                    c.send("lf\n");
                    assert_eq!(c.line().expect("an answer"), format!("{prefix} {} first half", n + 1));
                    1
                }
                Role::UnreadOutput => House::read_flood(c, n, prefix),
                Role::Talking => {
                    answered_by_either(&c.line().expect("an answer"), prefix, &format!("{} here", n + 1));
                    answered_by_either(
                        &c.line().expect("an answer"),
                        prefix,
                        &format!("{} and there", n + 2),
                    );
                    2
                }
            };
            assert_eq!(c.ask("again"), format!("{prefix} {} again", n + lines + 1));
        }
    }

    /// Lines of the `i`-th client before it takes its role.
    fn hellos(i: usize) -> usize {
        i % 5 + 1
    }

    /// Reads a flood behind `n` lines, and returns its lines. The old code wrote the output that
    /// waited, and the new code runs the input that had to wait.
    fn read_flood(c: &mut Client, n: usize, prefix: &str) -> usize {
        for n in n + 1..=n + FLOOD_LINES {
            let line = c.line().expect("the flood");
            let (flood, answer) = line.split_at(FLOOD_LINE);
            assert!(flood.bytes().all(|b| b == b'x'));
            answered_by_either(answer, prefix, &format!("{n} flood {FLOOD_LINE}"));
        }
        FLOOD_LINES
    }
}

/// An answer of the code before the swap or after it.
#[track_caller]
fn answered_by_either(answer: &str, prefix: &str, expected: &str) {
    let (by, said) = answer.split_once(' ').expect("a prefix");
    assert!(["one", prefix].contains(&by), "{answer}");
    assert_eq!(said, expected);
}

#[test]
fn two_hundred_sessions_cross_a_cargo_build() {
    let fixture = Fixture::new("swap_build", &tally_source("swap-build", "one"));
    let host = Host::serve(&["swap-build"], &[&fixture.build()]);
    let mut house = House::open(&host, "swap-build");
    let sessions = host.json(&["sessions", "--json"]);
    assert!(
        host.json(&["state", "dump"])["sessions"]
            .as_array()
            .is_some_and(|all| all.iter().any(|s| s["output"] != "")),
        "some output waits"
    );

    fixture.write(&tally_source("swap-build", "two"));
    fixture.build();
    host.wait_generation("swap-build", 2);

    let ids = |v: &Value| v.as_array().map(|a| a.iter().map(|s| s["id"].clone()).collect::<Vec<_>>());
    assert_eq!(
        ids(&host.json(&["sessions", "--json"])),
        ids(&sessions),
        "no session was closed, none is new"
    );

    house.go_on("two");
    assert_eq!(host.service("swap-build")["faults"], 0);
}

#[test]
fn states_are_equal_before_and_after_a_swap() {
    let fixture = Fixture::new("swap_equal", &tally_source("swap-equal", "one"));
    let host = Host::serve(&["swap-equal"], &[&fixture.build()]);
    let mut clients: Vec<_> = (0..50).map(|_| Client::connect(host.addr("swap-equal"))).collect();
    for (i, c) in clients.iter_mut().enumerate() {
        (0..i).for_each(|_| _ = c.ask("x"));
        c.send("half a li");
    }
    let dump = |host: &Host| {
        greenroom_tests::wait_for("all half lines", || {
            let dump = host.json(&["state", "dump"]);
            let sessions = dump["sessions"].as_array()?;
            sessions.iter().all(|s| s["input"] == "half a li").then_some(dump.clone())
        })
    };

    let before = dump(&host);

    fixture.write(&tally_source("swap-equal", "two"));
    fixture.build();
    host.wait_generation("swap-equal", 2);

    let after = dump(&host);
    assert_eq!(after["sessions"], before["sessions"]);
    assert_eq!(states(&after).len(), 50);
}

#[test]
fn a_migration_runs_at_a_sessions_next_turn() {
    let one = tally_source("swap-migrate", "one");
    let fixture = Fixture::new("swap_migrate", &one);
    let host = Host::serve(&["swap-migrate"], &[&fixture.build()]);
    let mut house = House::open(&host, "swap-migrate");

    // Fields with defaults need no version.
    let added = one.replace("count: u64,", "count: u64,\n    #[serde(default)]\n    last: Option<String>,");
    fixture
        .write(&added.replace("turn.state.count += 1;", "turn.state.count += 1;\nturn.state.last = None;"));
    fixture.build();
    host.wait_generation("swap-migrate", 2);

    // Another type does, and a migration.
    let two = tally_source("swap-migrate", "two")
        .replace("count: u64,", "count: String,")
        .replace("turn.state.count += 1;", "let n: u64 = turn.state.count.parse().unwrap_or(0);\nturn.state.count = (n + 1).to_string();")
        .replace(
            "    fn new(",
            "    const STATE_VERSION: u32 = 2;\n    fn migrations() -> greenroom_handler::Migrations {\n        \
             greenroom_handler::Migrations::none().from(1, |old: V1| Ok(Count { count: old.count.to_string() }))\n    }\n    fn new(",
        )
        + "\n#[derive(Deserialize)]\nstruct V1 { count: u64 }\n";

    fixture.write(&two);
    fixture.build();
    host.wait_generation("swap-migrate", 3);

    let dump = host.json(&["state", "dump"]);
    assert!(
        dump["sessions"].as_array().is_some_and(|s| s.iter().all(|s| s["state_version"] == 1)),
        "as stored"
    );

    house.go_on("two");
    let dump = host.json(&["state", "dump"]);
    for (id, state) in states(&dump) {
        assert!(state["count"].is_string(), "session {id}: {state}");
    }

    assert_eq!(host.service("swap-migrate")["faults"], 0);
}

#[test]
fn a_hundred_swaps_under_load() {
    let fixture = Fixture::new("swap_load", &tally_source("swap-load", "one"));
    let one = fixture.build_as("one.so");
    fixture.write(&tally_source("swap-load", "two"));
    let two = fixture.build_as("two.so");
    let dir = tempfile::tempdir().expect("a directory");
    let live = dir.path().join("libswap_load.so");
    install(&one, &live);
    let host = Host::serve(&["swap-load"], &[&live]);

    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|client| {
                let (host, stop) = (&host, &stop);
                scope.spawn(move || {
                    let mut peer = Client::connect(host.addr("swap-load"));
                    let (mut n, mut changes, mut last) = (0u64, 0, String::new());
                    while !stop.load(Ordering::Relaxed) {
                        // Sixteen in flight, cut anywhere by the kernel.
                        let batch: String = (1..=16).map(|i| format!("{client}-{}\n", n + i)).collect();
                        peer.send(batch);
                        for _ in 0..16 {
                            n += 1;
                            let line = peer.line().expect("the session lives");
                            let (prefix, rest) = line.split_once(' ').expect("an answer");
                            assert_eq!(rest, format!("{n} {client}-{n}"));
                            changes += usize::from(prefix != last);
                            last = prefix.to_owned();
                        }
                    }
                    (n, changes)
                })
            })
            .collect();

        for swap in 0..100 {
            install([&two, &one][swap % 2], &live);
            // It may wait for the watcher's reload of the same file: either way this very build
            // runs then.
            let out = host.cli(&["reload", "swap-load", "--json"]);
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
        }

        stop.store(true, Ordering::Relaxed);
        for client in clients {
            let (n, changes) = client.join().expect("every answer was right");
            assert!(n > 100 && changes > 50, "{n} answers from {changes} changes of code");
        }
    });

    assert_eq!(host.generation("swap-load"), 101);
    assert_eq!(host.service("swap-load")["faults"], 0);
}
