//! What a turn may ask for: timers, notes, published messages, tables, jobs. As a client sees it; across a swap, a rollback and
//! `kill -9`; and at the limits.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::Fixture;
use greenroom_tests::host::Host;
use greenroom_tests::{root, wait_for};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The builds of `fixtures/effects.rs` for a service, one for each prefix that its answers have.
fn builds(service: &str, prefixes: &[&str]) -> Vec<PathBuf> {
    let source = std::fs::read_to_string(root().join("tests/fixtures/effects.rs")).expect("the fixture");
    let fixture = Box::leak(Box::new(Fixture::new(service, "")));
    let build = |prefix: &&str| {
        fixture.write(
            &source
                .replace("SERVICE\"", &format!("{service}\""))
                .replace("SERVICE-", &format!("{service}-"))
                .replace("PREFIX", prefix),
        );
        fixture.build_as(&format!("{service}{}.so", prefix.trim()))
    };
    prefixes.iter().map(build).collect()
}

fn serve(service: &str, library: &Path, limits: &str) -> Host {
    let config = tempfile::NamedTempFile::new().expect("a file").into_temp_path().keep().expect("a file");
    std::fs::write(&config, format!("[limits]\n{limits}\n")).expect("a configuration");
    Host::serve_with(&[service], &[library], |c| {
        c.arg("--config").arg(config);
    })
}

/// A client and its session's number.
fn connect(host: &Host, service: &str) -> (Client, u64) {
    let mut client = Client::connect(host.addr(service));
    let said = client.ask("hello");
    let number = said.rsplit(' ').next().and_then(|n| n.parse().ok());
    (client, number.unwrap_or_else(|| panic!("{said:?}")))
}

fn expect(client: &mut Client, line: &str) {
    assert_eq!(client.line().as_deref(), Some(line));
}

/// Nothing else has come, up to here.
fn quiet(client: &mut Client, number: u64) {
    assert!(client.ask("hello").ends_with(&format!("ok {number}")));
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    wait_for(what, || done().then_some(()));
}

#[test]
fn timers_fire_once_and_survive_a_swap_and_a_kill() {
    let [one, two] = &builds("timed", &["", "new "])[..] else { unreachable!() };
    let host = serve("timed", one, "timers_per_session_max = 3\ntimer_name_bytes_max = 20\nprobation_ms = 0");
    let (mut a, id) = connect(&host, "timed");
    let ok = format!("ok {id}");
    assert_eq!(a.ask("timer soon 20"), ok);
    expect(&mut a, "timer soon");
    // Set again is one timer; taken off is none, also if it is due in the same pass.
    a.send("timer again 30\ntimer again 60\ntimer gone 10\nuntimer gone\n");
    for _ in 0..4 {
        expect(&mut a, &ok);
    }
    expect(&mut a, "timer again");
    // Both are due at once: in their order, and each of them.
    a.send("both here 10\n");
    expect(&mut a, &ok);
    let mut two_of = [a.line().expect("a line"), a.line().expect("a line")];
    two_of.sort();
    assert_eq!(two_of, ["timer here", "timer other"]);

    // Due while code is swapped, and while no worker lives.
    assert_eq!(a.ask("timer swapped 400"), ok);
    assert_eq!(host.reload_from("timed", two).0, Some(0));
    expect(&mut a, "new timer swapped");
    let ok = format!("new {ok}");
    assert_eq!(a.ask("timer killed 50"), ok);
    assert_eq!(a.ask("timer later 1500"), ok);
    let dump = host.json(&["state", "dump"]);
    let timers = dump["sessions"][0]["timers"].as_array().expect("timers");
    assert!(
        timers.iter().any(|t| t["name"] == "later" && t["in_ms"].as_u64().is_some_and(|ms| ms <= 1500)),
        "{dump}"
    );
    host.kill_worker();
    expect(&mut a, "new timer killed");
    expect(&mut a, "new timer later");

    // The service's own: three ticks, told to whoever listens, and the sender of one may be gone.
    assert_eq!(a.ask("join ticks"), ok);
    let (mut b, b_id) = connect(&host, "timed");
    assert_eq!(b.ask("tick beat 10"), format!("new ok {b_id}"));
    drop(b);
    for n in 1..=3 {
        expect(&mut a, &format!("new published ticks 0 beat {n}"));
    }
    assert_eq!(a.ask("tick works 10"), ok);
    let mut heard: Vec<_> = (0..6).map(|_| a.line().expect("a line")).collect();
    heard.sort();
    assert_eq!(heard[..3], vec!["new published ticks 0 job echo for the service"; 3]);
    assert_eq!(
        heard[3..],
        ["new published ticks 0 works 1", "new published ticks 0 works 2", "new published ticks 0 works 3"]
    );
    assert_eq!(a.ask("tick off 50"), ok);
    assert_eq!(a.ask("untick off"), ok);
    // It has no peer: the turn fails, and nothing of it stays.
    assert_eq!(a.ask("tick sends 1"), ok);
    host.wait_log("the host refused a send");

    // The limits.
    a.send("timer 1 100000\ntimer 2 100000\ntimer 3 100000\ntimer 4 100000\ntimer 3 100000\n");
    for _ in 0..4 {
        expect(&mut a, &ok);
    }
    host.wait_log("limit timers_per_session_max");
    a.send("timer a-name-of-more-than-twenty-bytes 1\n");
    host.wait_log("limit timer_name_bytes_max");
    quiet(&mut a, id);
    // A packet of many lines that set one timer is no more than that one; one that is taken off makes room.
    a.send("untimer 1\nuntimer 2\nuntimer 3\n");
    a.send(
        "timer one 100000\n".repeat(40)
            + "timer two 100000\nuntimer two\ntimer three 100000\ntimer four 100000\n",
    );
    for _ in 0..47 {
        expect(&mut a, &ok);
    }
    quiet(&mut a, id);
}

/// A turn of the service itself that kills the worker waits for better code, and that code isn't blamed for it, whatever process runs it.
#[test]
fn a_services_own_turn_that_kills_is_withheld_until_the_next_build() {
    let [one, two] = &builds("lethal", &["", "new "])[..] else { unreachable!() };
    let host = serve("lethal", one, "crashes_max = 100\nprobation_ms = 0");
    let (mut a, id) = connect(&host, "lethal");
    assert_eq!(a.ask("join ticks"), format!("ok {id}"));
    // One that is well comes first, and its number is none of the other's.
    assert_eq!(a.ask("tick well 1"), format!("ok {id}"));
    for n in 1..=3 {
        expect(&mut a, &format!("published ticks 0 well {n}"));
    }
    assert_eq!(a.ask("tick dies 1"), format!("ok {id}"));
    host.wait_log("quarantined: a timer of the service itself killed the worker 2 times");
    quiet(&mut a, id);
    assert_eq!(host.reload_from("lethal", two).0, Some(0));
    // It has its turn with the new code, which survives it; also behind another takeover.
    expect(&mut a, "new published ticks 0 dies 1");
    host.kill_worker();
    for n in 2..=3 {
        expect(&mut a, &format!("new published ticks 0 dies {n}"));
    }
    assert_eq!(host.json(&["status", "--json"])["host"]["workers_before"], json!(3));
}

/// What others' turns make a session say isn't taken by its peer: it is closed at the limit, and the others go on.
#[test]
fn a_peer_that_does_not_read_what_others_cause_is_closed() {
    let [one] = &builds("unread_notes", &[""])[..] else { unreachable!() };
    let host = serve("unread_notes", one, "output_bytes_pause = 100000\noutput_bytes_max = 500000");
    let (slow, _) = connect(&host, "unread_notes");
    let (mut a, id) = connect(&host, "unread_notes");
    let mut slow = slow;
    slow.send("join news\n");
    slow.line().expect("ok");
    assert_eq!(a.ask("join news"), format!("ok {id}"));
    // Short enough to be told in full: 80 bytes for each.
    let text = "z".repeat(60);
    let closed = || host.log().contains("limit output_bytes_max");
    for n in 0.. {
        assert!(n < 2_000, "nobody closes it");
        a.send(format!("publish news {text}\n").repeat(100));
        for _ in 0..200 {
            a.line().expect("an answer and the message");
        }
        if closed() {
            break;
        }
    }
    quiet(&mut a, id);
}

#[test]
fn notes_and_messages_have_their_turns_once() {
    let [one, two] = &builds("noted", &["", "new "])[..] else { unreachable!() };
    let host = serve("noted", one, "cascade_max = 5\nactions_pending_max = 50\nprobation_ms = 0");
    let (mut a, a_id) = connect(&host, "noted");
    let (mut b, b_id) = connect(&host, "noted");
    let ok = format!("ok {a_id}");
    assert_eq!(a.ask(&format!("note {b_id} hello there")), ok);
    expect(&mut b, &format!("note {a_id} hello there"));
    // To nobody: no harm.
    assert_eq!(a.ask("note 999999 hello"), ok);
    // To itself: before its next line.
    a.send("self one\nself two\ncount\n");
    for line in [&ok[..], &format!("note {a_id} one"), &ok, &format!("note {a_id} two")] {
        expect(&mut a, line);
    }
    // Opened, four lines and their two notes, and two lines before.
    assert_eq!(a.line().expect("a count"), "9");
    // A cascade ends at its limit: the note that would be the sixth fails its turn.
    assert_eq!(a.ask("self again 9"), ok);
    for n in (6..=9).rev() {
        expect(&mut a, &format!("note {a_id} again {n}"));
    }
    host.wait_log("limit cascade_max");
    quiet(&mut a, a_id);

    // Topics: whoever is on it, at the time.
    let (mut c, c_id) = connect(&host, "noted");
    for client in [&mut a, &mut b, &mut c] {
        client.send("join news\n");
        client.line().expect("ok");
    }
    a.send("publish news first\nothers news second\nshout news raw\n");
    for line in [&ok[..], &format!("published news {a_id} first"), &ok, "raw", &ok] {
        expect(&mut a, line);
    }
    for client in [&mut b, &mut c] {
        let mut heard: Vec<_> = (0..3).map(|_| client.line().expect("a line")).collect();
        heard.sort();
        assert_eq!(
            heard,
            [format!("published news {a_id} first"), format!("published news {a_id} second"), "raw".into()]
        );
    }
    // One payload for all of them.
    assert_eq!(b.ask("large news 60000"), format!("ok {b_id}"));
    for client in [&mut a, &mut b, &mut c] {
        expect(client, &format!("published news {b_id} 60000 bytes"));
    }
    // What fails does nothing.
    assert_eq!(c.ask("join ticks"), format!("ok {c_id}"));
    a.send("fail\n");
    for (client, id) in [(&mut a, a_id), (&mut b, b_id), (&mut c, c_id)] {
        quiet(client, id);
    }

    // More than a session may have waiting: the sender goes on, and the log says what is lost.
    assert_eq!(a.ask(&format!("notes {b_id} 60")), ok);
    host.wait_log("limit actions_pending_max");
    let heard: Vec<_> = (0..50).map(|_| b.line().expect("a note")).collect();
    assert_eq!(heard.last(), Some(&format!("note {a_id} 49")));
    quiet(&mut b, b_id);
    // Across a swap and a kill, in order.
    assert_eq!(a.ask(&format!("notes {b_id} 40")), ok);
    assert_eq!(host.reload_from("noted", two).0, Some(0));
    host.kill_worker();
    for n in 0..40 {
        assert_eq!(b.line().map(|l| l.replace("new ", "")), Some(format!("note {a_id} {n}")));
    }
    quiet(&mut b, b_id);
}

#[test]
fn jobs_come_back_once_whatever_happens() {
    let [one, two] = &builds("worked", &["", "new "])[..] else { unreachable!() };
    let host = serve(
        "worked",
        one,
        "jobs_running_max = 2\njobs_per_session_max = 4\njob_result_bytes_max = 1000\nprobation_ms = 0",
    );
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str| dir.path().join(name).display().to_string();
    let begun = |name: &str| {
        std::fs::read_to_string(format!("{}.begun", file(name))).unwrap_or_default().lines().count()
    };
    let (mut a, id) = connect(&host, "worked");
    let ok = format!("ok {id}");
    for (command, answer) in [
        ("job echo hello", "job echo done hello"),
        ("job fail hello", "job fail failed as asked: hello"),
        ("job nothing", "job nothing failed no job nothing"),
        ("job long 1000", &format!("job long done {}", "x".repeat(1000))),
        ("job long 1001", "job long failed its result is too long (limit job_result_bytes_max)"),
    ] {
        assert_eq!(a.ask(command), ok);
        expect(&mut a, answer);
    }
    assert_eq!(a.ask("job panic hello"), ok);
    let said = a.line().expect("a line");
    assert!(said.starts_with("job panic failed ") && said.contains("a job panics: hello"), "{said}");

    // While one waits, everybody else goes on; it comes back to the build that serves then.
    assert_eq!(a.ask(&format!("job wait {}", file("swap"))), ok);
    wait_until("the job", || begun("swap") == 1);
    quiet(&mut a, id);
    assert_eq!(host.reload_from("worked", two).0, Some(0));
    quiet(&mut a, id);
    std::fs::write(file("swap"), "").expect("a file");
    expect(&mut a, "new job wait done waited");

    // The worker is killed: the one begins anew, the other must not.
    let ok = format!("new {ok}");
    a.send(format!("job wait {}\nonce wait {}\n", file("killed"), file("once")));
    expect(&mut a, &ok);
    expect(&mut a, &ok);
    wait_until("both jobs", || begun("killed") == 1 && begun("once") == 1);
    host.kill_worker();
    expect(&mut a, "new job wait lost it was to run once, and the process that ran it has ended");
    wait_until("the job", || begun("killed") == 2);
    std::fs::write(file("killed"), "").expect("a file");
    expect(&mut a, "new job wait done new waited");
    assert_eq!(begun("once"), 1);
    // One that kills the process does so twice.
    assert_eq!(a.ask("job abort"), ok);
    expect(&mut a, "new job abort lost it was running at two deaths of the worker");
    quiet(&mut a, id);

    // More than may run wait; one that is cancelled tells nothing, whether it ran or not. The one that waits is cancelled
    // first: as soon as the second notices that it is, its place is free.
    let [_, second, third] = ["first", "second", "third"].map(|name| {
        let said = a.ask(&format!("started wait {}", file(name)));
        said.strip_prefix("number ").and_then(|n| n.parse::<u64>().ok()).expect("a number")
    });
    wait_until("two jobs", || begun("first") == 1 && begun("second") == 1);
    assert_eq!(a.ask(&format!("drop {third}")), ok);
    assert_eq!(a.ask(&format!("drop {second}")), ok);
    wait_until("the second to notice", || Path::new(&format!("{}.cancelled", file("second"))).exists());
    assert_eq!(a.ask("cancelled echo never"), ok);
    assert_eq!(a.ask("job echo behind"), ok);
    expect(&mut a, "new job echo done behind");
    assert_eq!(begun("third"), 0);
    std::fs::write(file("first"), "").expect("a file");
    expect(&mut a, "new job wait done new waited");
    a.send("jobs echo 5\n");
    host.wait_log("limit jobs_per_session_max");
    quiet(&mut a, id);
    // Whoever leaves wants no result.
    assert_eq!(a.ask(&format!("job wait {}", file("left"))), ok);
    wait_until("the job", || begun("left") == 1);
    drop(a);
    wait_until("it to notice", || Path::new(&format!("{}.cancelled", file("left"))).exists());
}

/// What a build has asked for comes to the build that is gone back to, once: be that asked for, or the host's own doing.
#[test]
fn effects_in_flight_cross_a_rollback() {
    let [one, two] = &builds("undone_effects", &["", "new "])[..] else { unreachable!() };
    let host = serve("undone_effects", one, "probation_ms = 600000\nprobation_faults_max = 2");
    let dir = tempfile::tempdir().expect("a directory");
    for by_itself in [false, true] {
        let gate = dir.path().join(format!("gate {by_itself}")).display().to_string().replace(' ', "-");
        let (mut a, a_id) = connect(&host, "undone_effects");
        let (mut b, b_id) = connect(&host, "undone_effects");
        assert_eq!(host.reload_from("undone_effects", two).0, Some(0));
        for client in [&mut a, &mut b] {
            client.send("join news\n");
            assert!(client.line().is_some_and(|l| l.starts_with("new ok ")));
        }
        let ok = format!("new ok {a_id}");
        assert_eq!(a.ask(&format!("job wait {gate}")), ok);
        assert_eq!(a.ask("timer later 3000"), ok);
        assert_eq!(a.ask("tick later 3000"), ok);
        assert_eq!(a.ask(&format!("put k{by_itself} x")), ok);
        wait_until("the job", || Path::new(&format!("{gate}.begun")).exists());
        if by_itself {
            // The build before runs each turn that fails, and then takes over.
            for _ in 0..2 {
                assert_eq!(a.ask("trip"), format!("ok {a_id}"));
            }
        } else {
            assert!(host.cli(&["rollback", "undone_effects"]).status.success());
        }
        wait_until("the build before", || host.service("undone_effects")["generation"] == json!(1));
        let ok = format!("ok {a_id}");
        assert_eq!(a.ask(&format!("note {b_id} here")), ok);
        std::fs::write(&gate, "").expect("a file");
        // In whatever order.
        let mut heard = [a.line().expect("a line"), a.line().expect("a line")];
        heard.sort();
        assert!(heard[0].starts_with("job wait done ") && heard[1].ends_with("timer later"), "{heard:?}");
        expect(&mut b, &format!("note {a_id} here"));
        quiet(&mut b, b_id);
        assert_eq!(a.ask(&format!("range k{by_itself}")), format!("k{by_itself}"));
        quiet(&mut a, a_id);
    }
}

#[test]
fn tables_are_read_by_range_and_counted() {
    let [one] = &builds("ranged", &[""])[..] else { unreachable!() };
    let host = serve("ranged", one, "table_bytes_max = 200000");
    let (mut a, id) = connect(&host, "ranged");
    let ok = format!("ok {id}");
    assert_eq!(a.ask("len"), "0");
    a.send("put b1 x\nput b2 x\nput a x\nput b3 x\nput b4 x\nput c x\ncut b2\nlen\nrange b\nrange b b3\nrange b b4\nrange z\n");
    for _ in 0..7 {
        expect(&mut a, &ok);
    }
    for line in ["5", "b1,b3,b4", "b3,b4", "b4", ""] {
        expect(&mut a, line);
    }
    assert_eq!(a.ask("fill 1000 k"), ok);
    assert_eq!(a.ask("len"), "1005");
    assert_eq!(a.ask("range k k0000998"), "k0000998,k0000999");
    // Full: the write is refused and its turn fails; nothing of it stays, and deleting makes room.
    a.send("fill 100000 m\n");
    host.wait_log("limit table_bytes_max");
    assert_eq!(a.ask("len"), "1005");
    assert_eq!(a.ask("put b1 y"), ok);
}

/// A session's timer whose turn kills the worker: after two deaths the session waits for better code, and nobody else does.
#[test]
fn a_timer_of_the_session_that_kills_is_withheld() {
    let [one] = &builds("fatal", &[""])[..] else { unreachable!() };
    let host = serve("fatal", one, "crashes_max = 100");
    let (mut a, a_id) = connect(&host, "fatal");
    let (mut b, b_id) = connect(&host, "fatal");
    assert_eq!(a.ask("timer dies 1"), format!("ok {a_id}"));
    host.wait_log("quarantined: its turn");
    quiet(&mut b, b_id);
    let listed = host.json(&["sessions", "--quarantined", "--json"]);
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(listed[0]["id"], json!(a_id));
    let why: &Value = &listed[0]["quarantined"];
    assert!(why.as_str().is_some_and(|w| w.contains("action timer")), "{listed}");
}
