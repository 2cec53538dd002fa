//! Effects of turns as a client sees them: timers, notes, published messages, tables, jobs. Across
//! a swap, a rollback and `kill -9`; and at the limits.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::{Fixture, effects_builds};
use greenroom_tests::host::Host;
use greenroom_tests::{built, wait_for};
use serde_json::{Value, json};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// The service of every test here.
const SERVICE: &str = "effects";

/// Builds of `fixtures/effects.rs`: the first one, and one whose answers begin with `new`.
fn builds() -> &'static [PathBuf; 2] {
    static BUILDS: OnceLock<(Fixture, [PathBuf; 2])> = OnceLock::new();
    let (_, builds) = BUILDS.get_or_init(|| effects_builds(SERVICE));
    builds
}

/// Serves the first build under these limits.
#[track_caller]
fn serve(limits: &str) -> Host {
    Host::serve_limited(SERVICE, &builds()[0], limits)
}

/// Puts the second build in service.
#[track_caller]
fn reload(host: &Host) {
    let (code, report) = host.reload_from(SERVICE, &builds()[1]);
    assert_eq!(code, Some(0), "{report}");
}

/// A client and its session's number.
fn connect(host: &Host) -> (Client, u64) {
    let mut client = Client::connect(host.addr(SERVICE));
    let said = client.ask("hello");
    let number = said.rsplit(' ').next().and_then(|n| n.parse().ok());
    (client, number.unwrap_or_else(|| panic!("{said:?}")))
}

fn expect(client: &mut Client, line: &str) {
    assert_eq!(client.line().as_deref(), Some(line));
}

/// Checks that nothing else came, up to here.
fn quiet(client: &mut Client, number: u64) {
    assert!(client.ask("hello").ends_with(&format!("ok {number}")));
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    wait_for(what, || done().then_some(()));
}

/// First turns of the service under each build: once for a commit, and never for a takeover.
#[test]
fn a_service_has_a_first_turn_under_each_build() {
    let host = serve("");
    let told = || {
        let entries = host.json(&["state", "dump"])["tables"]["effects-ticks"].clone();
        let of = |key: &str| {
            let entry = entries.as_array()?.iter().find(|e| e["key"] == key)?;
            entry["value"].as_u64()
        };
        (of("Host").unwrap_or(0), of("Generation").unwrap_or(0))
    };
    wait_for("the first turn", || (told() == (1, 0)).then_some(()));
    host.kill_worker();
    reload(&host);
    wait_for("the turn of the second build", || (told() == (1, 1)).then_some(()));
    host.kill_worker();
    let (mut client, _) = connect(&host);
    // Another service's turn, behind which a turn of the takeover would have come.
    assert!(client.ask("hello").starts_with("new "));
    assert_eq!(told(), (1, 1));
    assert!(host.cli(&["rollback", SERVICE]).status.success());
    wait_for("the turn of the first build", || (told() == (1, 2)).then_some(()));
}

/// Time of the calendar: that of the machine, and the same for all turns of a batch.
#[test]
fn turns_know_the_calendar() {
    let host = serve("");
    let (mut client, _) = connect(&host);
    client.send("wall\nwall\n");
    let told: Vec<u64> = (0..2).map(|_| client.line().expect("a line").parse().expect("a time")).collect();
    assert_eq!(told[0], told[1]);
    let own = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a later time");
    assert!((own.as_millis() as u64).abs_diff(told[0]) < 60_000, "{told:?}");
}

#[test]
fn a_timer_fires_once_and_a_cancelled_one_never() {
    let host = serve("");
    let (mut a, id) = connect(&host);
    let ok = format!("ok {id}");

    assert_eq!(a.ask("timer soon 20"), ok);
    expect(&mut a, "timer soon");

    // Set again is one timer; taken off is none, also if it is due in the same pass.
    a.send("timer again 30\ntimer again 60\ntimer gone 10\nuntimer gone\n");
    for _ in 0..4 {
        expect(&mut a, &ok);
    }
    expect(&mut a, "timer again");

    // Both are due at once: each of them fires.
    a.send("both here 10\n");
    expect(&mut a, &ok);
    let mut two_of = [a.line().expect("a line"), a.line().expect("a line")];
    two_of.sort();
    assert_eq!(two_of, ["timer here", "timer other"]);
    quiet(&mut a, id);
}

/// Timers that are due while code is swapped, and while no worker lives.
#[test]
fn timers_fire_once_across_a_swap_and_a_kill() {
    let host = serve("probation_ms = 0");
    let (mut a, id) = connect(&host);

    assert_eq!(a.ask("timer swapped 3000"), format!("ok {id}"));
    reload(&host);
    expect(&mut a, "new timer swapped");

    let ok = format!("new ok {id}");
    assert_eq!(a.ask("timer killed 50"), ok);
    assert_eq!(a.ask("timer later 1500"), ok);
    let dump = host.json(&["state", "dump"]);
    let timers = dump["sessions"][0]["timers"].as_array().expect("timers");
    let later = |t: &Value| t["name"] == "later" && t["in_ms"].as_u64().is_some_and(|ms| ms <= 1500);
    assert!(timers.iter().any(later), "{dump}");
    host.kill_worker();
    expect(&mut a, "new timer killed");
    expect(&mut a, "new timer later");
    quiet(&mut a, id);
}

/// Three ticks each, told to whoever listens. The session that set one may be gone.
#[test]
fn timers_of_the_service_fire_without_a_session() {
    let host = serve("");
    let (mut a, id) = connect(&host);
    let ok = format!("ok {id}");
    assert_eq!(a.ask("join ticks"), ok);

    let (mut b, b_id) = connect(&host);
    assert_eq!(b.ask("tick beat 10"), format!("ok {b_id}"));
    drop(b);
    for n in 1..=3 {
        expect(&mut a, &format!("published ticks 0 beat {n}"));
    }

    // Each tick starts a job, whose result the service is told.
    assert_eq!(a.ask("tick works 10"), ok);
    let mut heard: Vec<_> = (0..6).map(|_| a.line().expect("a line")).collect();
    heard.sort();
    assert_eq!(heard[..3], vec!["published ticks 0 job echo for the service"; 3]);
    assert_eq!(heard[3..], [1, 2, 3].map(|n| format!("published ticks 0 works {n}")));

    assert_eq!(a.ask("tick off 50"), ok);
    assert_eq!(a.ask("untick off"), ok);
    // It has no peer: the turn fails, and nothing of it stays.
    assert_eq!(a.ask("tick sends 1"), ok);
    host.wait_log("the host refused a send");
    quiet(&mut a, id);
}

#[test]
fn timers_of_a_session_are_limited_and_a_cancelled_one_makes_room() {
    let host = serve("timers_per_session_max = 3\ntimer_name_bytes_max = 20");
    let (mut a, id) = connect(&host);
    let ok = format!("ok {id}");

    a.send("timer 1 100000\ntimer 2 100000\ntimer 3 100000\ntimer 4 100000\ntimer 3 100000\n");
    for _ in 0..4 {
        expect(&mut a, &ok);
    }
    host.wait_log("limit timers_per_session_max");
    a.send("timer a-name-of-more-than-twenty-bytes 1\n");
    host.wait_log("limit timer_name_bytes_max");
    quiet(&mut a, id);

    // A packet of many lines that set one timer is no more than that one.
    a.send("untimer 1\nuntimer 2\nuntimer 3\n");
    a.send("timer one 100000\n".repeat(40));
    a.send("timer two 100000\nuntimer two\ntimer three 100000\ntimer four 100000\n");
    for _ in 0..47 {
        expect(&mut a, &ok);
    }
    quiet(&mut a, id);
}

/// A turn of the service itself that kills the worker waits for the next build, and no other turn
/// waits with it. That build is not blamed for it, whatever process runs it.
#[test]
fn a_timer_of_the_service_that_kills_is_blocked_until_the_next_build() {
    let host = serve("crashes_max = 100\nprobation_ms = 0");
    let (mut a, id) = connect(&host);
    assert_eq!(a.ask("join ticks"), format!("ok {id}"));

    // One that is well comes first, and its number is none of the other's.
    assert_eq!(a.ask("tick well 1"), format!("ok {id}"));
    for n in 1..=3 {
        expect(&mut a, &format!("published ticks 0 well {n}"));
    }

    assert_eq!(a.ask("tick dies 1"), format!("ok {id}"));
    host.wait_log("left out: a timer of the service itself killed the worker 2 times");
    assert_eq!(a.ask("tick other 1"), format!("ok {id}"));
    for n in 1..=3 {
        expect(&mut a, &format!("published ticks 0 other {n}"));
    }
    quiet(&mut a, id);

    reload(&host);
    // It has its turn with the new code, which survives it; also behind another takeover.
    expect(&mut a, "new published ticks 0 dies 1");
    host.kill_worker();
    for n in 2..=3 {
        expect(&mut a, &format!("new published ticks 0 dies {n}"));
    }

    assert_eq!(host.json(&["status", "--json"])["host"]["workers_before"], json!(3));
}

/// Messages of others make a session produce output that its peer does not take: it is closed at
/// the limit, and the others go on.
#[test]
fn a_session_that_does_not_read_messages_of_others_is_closed() {
    let host = serve("output_bytes_pause = 100000\noutput_bytes_max = 500000");
    let (slow, _) = connect(&host);
    let (mut a, id) = connect(&host);
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
fn notes_run_once_and_a_sessions_own_before_its_next_line() {
    let host = serve("cascade_max = 5");
    let (mut a, a_id) = connect(&host);
    let (mut b, b_id) = connect(&host);
    let ok = format!("ok {a_id}");

    assert_eq!(a.ask(&format!("note {b_id} hello there")), ok);
    expect(&mut b, &format!("note {a_id} hello there"));
    assert_eq!(a.ask("note 999999 hello"), ok, "a note to nobody is lost");

    a.send("self one\nself two\ncount\n");
    for line in [&ok[..], &format!("note {a_id} one"), &ok, &format!("note {a_id} two")] {
        expect(&mut a, line);
    }
    // Opened, three lines before, three lines and their two notes.
    assert_eq!(a.line().expect("a count"), "9");

    // A cascade ends at its limit: the note that would be the sixth fails its turn.
    assert_eq!(a.ask("self again 9"), ok);
    for n in (6..=9).rev() {
        expect(&mut a, &format!("note {a_id} again {n}"));
    }
    host.wait_log("limit cascade_max");
    quiet(&mut a, a_id);
}

#[test]
fn messages_on_a_topic_run_once_at_its_subscribers() {
    let host = serve("");
    let mut all = [connect(&host), connect(&host), connect(&host)];
    for (client, id) in &mut all {
        assert_eq!(client.ask("join news"), format!("ok {id}"));
    }
    let [(a, a_id), (b, b_id), (c, c_id)] = &mut all;
    let ok = format!("ok {a_id}");

    a.send("publish news first\nothers news second\nshout news raw\n");
    for line in [&ok[..], &format!("published news {a_id} first"), &ok, "raw", &ok] {
        expect(a, line);
    }
    for client in [&mut *b, &mut *c] {
        let mut heard: Vec<_> = (0..3).map(|_| client.line().expect("a line")).collect();
        heard.sort();
        assert_eq!(
            heard,
            [format!("published news {a_id} first"), format!("published news {a_id} second"), "raw".into()]
        );
    }

    // One payload for all of them.
    assert_eq!(b.ask("large news 60000"), format!("ok {b_id}"));
    for client in [&mut *a, &mut *b, &mut *c] {
        expect(client, &format!("published news {b_id} 60000 bytes"));
    }

    // A turn that fails publishes nothing.
    assert_eq!(c.ask("join ticks"), format!("ok {c_id}"));
    a.send("fail\n");
    for (client, id) in &mut all {
        quiet(client, *id);
    }
}

#[test]
fn notes_beyond_the_limit_are_dropped_and_the_others_cross_a_swap_and_a_kill() {
    let host = serve("actions_pending_max = 50\nprobation_ms = 0");
    let (mut a, a_id) = connect(&host);
    let (mut b, b_id) = connect(&host);
    let ok = format!("ok {a_id}");

    // The sender goes on, and the log says what is lost.
    assert_eq!(a.ask(&format!("notes {b_id} 60")), ok);
    host.wait_log("limit actions_pending_max");
    let heard: Vec<_> = (0..50).map(|_| b.line().expect("a note")).collect();
    assert_eq!(heard.last(), Some(&format!("note {a_id} 49")));
    // In their place, the session is told how many.
    expect(&mut b, "missed 10");
    quiet(&mut b, b_id);

    assert_eq!(a.ask(&format!("notes {b_id} 40")), ok);
    reload(&host);
    host.kill_worker();
    for n in 0..40 {
        assert_eq!(b.line().map(|l| l.replace("new ", "")), Some(format!("note {a_id} {n}")));
    }
    quiet(&mut b, b_id);
}

/// Files by which a test and its jobs wait for each other.
struct Gates(tempfile::TempDir);

impl Gates {
    fn new() -> Gates {
        Gates(tempfile::tempdir().expect("a directory"))
    }

    /// Path of a gate, as its job is told.
    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// Lets the jobs at a gate return.
    fn open(&self, name: &str) {
        std::fs::write(self.path(name), "").expect("a file");
    }

    /// Starts of the job at a gate.
    fn begun(&self, name: &str) -> usize {
        std::fs::read_to_string(format!("{}.begun", self.path(name))).unwrap_or_default().lines().count()
    }

    fn wait_begun(&self, name: &str, times: usize) {
        wait_until(&format!("the job {name}"), || self.begun(name) == times);
    }

    /// Waits until the job at a gate notices that it is cancelled.
    fn wait_cancelled(&self, name: &str) {
        let file = format!("{}.cancelled", self.path(name));
        wait_until(&format!("{name} to notice"), || Path::new(&file).exists());
    }
}

#[test]
fn jobs_return_results_errors_and_panics_once() {
    let host = serve("job_result_bytes_max = 1000");
    let (mut a, id) = connect(&host);
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
    quiet(&mut a, id);
}

#[test]
fn jobs_return_once_across_a_swap_and_a_kill() {
    let host = serve("jobs_running_max = 2\nprobation_ms = 0");
    let gates = Gates::new();
    let (mut a, id) = connect(&host);

    // While one waits, everybody else goes on; it comes back to the build that serves then.
    assert_eq!(a.ask(&format!("job wait {}", gates.path("swap"))), format!("ok {id}"));
    gates.wait_begun("swap", 1);
    quiet(&mut a, id);
    reload(&host);
    quiet(&mut a, id);
    gates.open("swap");
    expect(&mut a, "new job wait done waited");

    // The worker is killed: the one begins anew, the other must not.
    let ok = format!("new ok {id}");
    a.send(format!("job wait {}\nonce wait {}\n", gates.path("killed"), gates.path("once")));
    expect(&mut a, &ok);
    expect(&mut a, &ok);
    gates.wait_begun("killed", 1);
    gates.wait_begun("once", 1);
    host.kill_worker();
    expect(&mut a, "new job wait lost it was to run once, and the process that ran it has ended");
    gates.wait_begun("killed", 2);
    gates.open("killed");
    expect(&mut a, "new job wait done new waited");
    assert_eq!(gates.begun("once"), 1);

    // One that kills the process does so twice.
    assert_eq!(a.ask("job abort"), ok);
    expect(&mut a, "new job abort lost its thread crashed twice");
    quiet(&mut a, id);
}

/// A build on probation whose job takes the worker with it gives way at once, as for a turn.
#[test]
fn a_build_whose_job_kills_a_worker_fails_its_probation() {
    let host = serve("probation_ms = 600000");
    let (mut a, id) = connect(&host);
    reload(&host);

    assert_eq!(a.ask("job abort"), format!("new ok {id}"));

    expect(&mut a, "job abort lost its thread crashed twice");
    let line = host.last_ledger_line();
    assert_eq!((line["generation"].as_u64(), host.generation(SERVICE)), (Some(1), 1), "{line}");
    let why = line["reason"].as_str().expect("a reason");
    assert!(why.contains("one of its jobs killed a worker"), "{why}");
    quiet(&mut a, id);
}

/// A canary whose job takes the worker with it is taken back.
#[test]
fn a_canary_whose_job_kills_a_worker_is_taken_back() {
    let host = serve("probation_ms = 0");
    let candidate = builds()[1].to_str().expect("UTF-8");
    let out = host.cli(&["reload", SERVICE, "--canary", "100%", "--from", candidate]);
    assert!(out.status.success(), "{out:?}");
    let mut a = Client::connect(host.addr(SERVICE));
    assert!(a.ask("hello").starts_with("new ok "), "the candidate runs it");

    assert!(a.ask("job abort").starts_with("new ok "));

    expect(&mut a, "job abort lost its thread crashed twice");
    let line = host.last_ledger_line();
    let why = line["reason"].as_str().expect("a reason");
    assert!(line["outcome"] == "taken-back" && why.contains("one of its jobs killed a worker"), "{line}");
}

/// A kill names no culprit. The job that causes them is found, and another one that ran at each of
/// them is not lost.
#[test]
fn a_job_whose_worker_is_killed_three_times_in_a_row_is_lost_and_no_other() {
    let host = serve("crashes_max = 1000");
    let gates = Gates::new();
    let (mut a, id) = connect(&host);
    let ok = format!("ok {id}");
    assert_eq!(a.ask(&format!("job wait {}", gates.path("innocent"))), ok);
    gates.wait_begun("innocent", 1);
    let (mut b, _) = connect(&host);
    b.send("job killed\n");
    b.line().expect("an answer");
    expect(&mut b, "job killed lost it was running at three deaths of the worker in a row");
    gates.open("innocent");
    expect(&mut a, "job wait done waited");
    quiet(&mut a, id);
}

/// A cancelled job returns nothing, whether it ran or not. The one that waits is cancelled first:
/// as soon as the second notices that it is cancelled, its place is free.
#[test]
fn jobs_beyond_the_limit_wait_and_cancelled_ones_return_nothing() {
    let host = serve("jobs_running_max = 2\njobs_per_session_max = 4");
    let gates = Gates::new();
    let (mut a, id) = connect(&host);
    let ok = format!("ok {id}");
    let [_, second, third] = ["first", "second", "third"].map(|name| {
        let said = a.ask(&format!("started wait {}", gates.path(name)));
        said.strip_prefix("number ").and_then(|n| n.parse::<u64>().ok()).expect("a number")
    });
    gates.wait_begun("first", 1);
    gates.wait_begun("second", 1);

    assert_eq!(a.ask(&format!("drop {third}")), ok);
    assert_eq!(a.ask(&format!("drop {second}")), ok);
    gates.wait_cancelled("second");

    assert_eq!(a.ask("cancelled echo never"), ok);
    assert_eq!(a.ask("job echo behind"), ok);
    expect(&mut a, "job echo done behind");
    assert_eq!(gates.begun("third"), 0);
    gates.open("first");
    expect(&mut a, "job wait done waited");
    a.send("jobs echo 5\n");
    host.wait_log("limit jobs_per_session_max");
    quiet(&mut a, id);
}

/// Jobs that block take no thread that another service's job needs. The log names them once, and
/// `status` shows them.
#[test]
fn jobs_that_block_leave_other_services_their_share() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("greenroom.toml");
    let text = "[limits]\njobs_running_max = 2\njob_warn_ms = 50\n\
                [service.proxy.settings]\npassword = \"open\"\ntarget = \"name.invalid:1\"\n";
    std::fs::write(&config, text).expect("a configuration");
    let libraries = [&*builds()[0], &*built("libproxy.so")];
    let host = Host::serve_with(&[SERVICE, "proxy"], &libraries, |c| {
        c.arg("--config").arg(&config);
    });
    let gates = Gates::new();
    let (mut a, id) = connect(&host);
    for name in ["one", "two", "three"] {
        assert_eq!(a.ask(&format!("job wait {}", gates.path(name))), format!("ok {id}"));
    }
    gates.wait_begun("one", 1);
    gates.wait_begun("two", 1);

    let mut asker = Client::connect(host.addr("proxy"));
    asker.send("open\n");
    let said = asker.line().expect("an outcome of its job");
    assert!(said.starts_with("password: proxy: "), "{said}");

    let named = || {
        let log = host.log();
        log.lines().filter(|l| l.contains("job wait has been running for 50 ms (limit job_warn_ms)")).count()
    };
    wait_until("both to be named", || named() == 2);
    let jobs = host.service(SERVICE)["jobs"].take();
    assert_eq!((&jobs["running"], &jobs["waiting"]), (&json!(2), &json!(1)), "{jobs}");
    assert!(jobs["oldest_ms"].as_u64() >= Some(50), "{jobs}");
    let text = String::from_utf8(host.cli(&["status"]).stdout).expect("a text");
    assert!(text.contains("jobs of effects: 2 running, the oldest for "), "{text}");
    let log = host.log();
    let line = log.lines().find(|l| l.contains("(limit job_warn_ms)")).expect("a line");
    assert!(line.contains("service=effects") && line.contains(&format!("session={id}")), "{line}");

    for name in ["one", "two", "three"] {
        gates.open(name);
    }
    (0..3).for_each(|_| expect(&mut a, "job wait done waited"));
    wait_until("no job to run", || host.service(SERVICE)["jobs"]["running"] == 0);
    assert!(named() <= 3, "once for each job: {}", host.log());
}

#[test]
fn jobs_of_a_session_that_ends_are_cancelled() {
    let host = serve("");
    let gates = Gates::new();
    let (mut a, id) = connect(&host);
    assert_eq!(a.ask(&format!("job wait {}", gates.path("left"))), format!("ok {id}"));
    gates.wait_begun("left", 1);

    drop(a);

    gates.wait_cancelled("left");
}

/// Effects that a build asked for come once, to the build that a rollback put in its place: at an
/// operator's command, or by the host's own decision.
#[test]
fn effects_in_flight_cross_a_rollback() {
    let host = serve("probation_ms = 600000\nprobation_faults_max = 2");
    let dir = tempfile::tempdir().expect("a directory");
    for by_itself in [false, true] {
        let gate = dir.path().join(format!("gate {by_itself}")).display().to_string().replace(' ', "-");
        let (mut a, a_id) = connect(&host);
        let (mut b, b_id) = connect(&host);
        reload(&host);
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
            // The previous build runs each turn that fails, and then takes over.
            assert_eq!(a.ask("trip"), format!("ok {a_id}"));
            assert_eq!(b.ask("trip"), format!("ok {b_id}"));
        } else {
            assert!(host.cli(&["rollback", SERVICE]).status.success());
        }
        wait_until("the previous build", || host.service(SERVICE)["generation"] == json!(1));

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
    let host = serve("table_bytes_max = 200000");
    let (mut a, id) = connect(&host);
    let ok = format!("ok {id}");

    assert_eq!(a.ask("len"), "0");
    a.send("put b1 x\nput b2 x\nput a x\nput b3 x\nput b4 x\nput c x\ncut b2\nlen\nrange b\nrange b b3\nrange b b4\nrange z\n");
    for _ in 0..7 {
        expect(&mut a, &ok);
    }
    for line in ["5", "b1,b3,b4", "b3,b4", "b4", ""] {
        expect(&mut a, line);
    }

    // The same backwards, and keys alone: three from a bound on, and the last one of all.
    for (line, found) in [
        ("back b", "b4=x,b3=x,b1=x"),
        ("back b b3", "b1=x"),
        ("back b b1", ""),
        ("back a z", "a=x"),
        ("keys b", "b1,b3,b4,b4"),
        ("keys b b2", "b3,b4,b4"),
        ("keys z", ""),
    ] {
        assert_eq!(a.ask(line), found, "{line}");
    }

    // Bytes are stored as they are: a dump shows them so.
    assert_eq!(a.ask("blob b \u{e9}"), ok);
    assert_eq!(a.ask("blobbed b"), "Some(\"\u{e9}\u{e9}\") true");
    assert_eq!(a.ask("blobbed c"), "None false");
    let dump = host.json(&["state", "dump"]);
    assert_eq!(dump["tables"]["effects-blobs"][0]["value"], json!({ "$b64": "w6nDqQ==" }));

    assert_eq!(a.ask("fill 1000 k"), ok);
    assert_eq!(a.ask("len"), "1005");
    assert_eq!(a.ask("range k k0000998"), "k0000998,k0000999");

    // Full: the write is refused and its turn fails; nothing of it stays, and deleting makes room.
    a.send("fill 100000 m\n");
    host.wait_log("limit table_bytes_max");
    assert_eq!(a.ask("len"), "1005");
    assert_eq!(a.ask("put b1 y"), ok);
}

/// Entries that are dropped while each pass deletes one of them: through a kill of the worker in
/// the middle, a swap, and a saved file.
#[test]
fn what_was_dropped_never_comes_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("tables");
    let limits = format!("pass_us = 1\nprobation_ms = 0\n[save]\nfile = {file:?}\nevery_s = 1");
    let mut host = serve(&limits);
    let (mut a, id) = connect(&host);
    for fill in ["fill 2000 k", "fill 2000 j"] {
        assert_eq!(a.ask(fill), format!("ok {id}"));
    }

    // What the same turn writes behind the drop stays.
    assert_eq!(a.ask("sweep k k1 k2"), "k1,k2");
    host.kill_worker();
    assert_eq!((a.ask("range k").as_str(), a.ask("len").as_str()), ("k1,k2", "2002"));
    assert_eq!(a.ask("sweep j"), "");
    reload(&host);
    assert_eq!((a.ask("back j").as_str(), a.ask("len").as_str()), ("", "2"));
    // A turn that fails drops nothing.
    a.send("fail\n");
    assert_eq!(a.ask("len"), "2");

    host.signal(libc::SIGTERM);
    assert_eq!(host.wait(), Some(0));
    let host = serve(&limits);
    let (mut a, _) = connect(&host);
    assert_eq!((a.ask("range k").as_str(), a.ask("len").as_str()), ("k1,k2", "2"));
}

/// Entries that are over are gone and told once: across a kill and a swap. Others keep their
/// deadline in a dump and in a saved file.
#[test]
fn entries_that_are_over_are_gone_and_told_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("tables");
    let limits = format!("probation_ms = 0\n[save]\nfile = {file:?}");
    let mut host = serve(&limits);
    let (mut a, id) = connect(&host);
    let ok = format!("ok {id}");
    assert_eq!(a.ask("join ticks"), ok);

    assert_eq!(a.ask("until k1 100"), ok);
    expect(&mut a, "published ticks 0 effects-guests k1");
    assert_eq!(a.ask("guest k1"), "None");
    assert_eq!((a.ask("until k2 1500"), a.ask("until late 3600000")), (ok.clone(), ok));
    host.kill_worker();
    reload(&host);
    expect(&mut a, "new published ticks 0 effects-guests k2");
    assert_eq!((a.ask("guest k2").as_str(), a.ask("guest late").as_str()), ("None", "Some(\"late\")"));
    quiet(&mut a, id);

    // An operator may change a deadline, as any part of a dump.
    let guests = |host: &Host| host.json(&["state", "dump"])["tables"]["effects-guests"].clone();
    let until = guests(&host)[0]["until_ms"].as_u64().expect("a deadline");
    let mut dump = host.json(&["state", "dump"]);
    dump["tables"]["effects-guests"][0]["until_ms"] = json!(until + 1000);
    let edited = dir.path().join("dump.json");
    std::fs::write(&edited, dump.to_string()).expect("a file");
    let edited = edited.to_str().expect("a path");
    let report = host.json(&["state", "restore", "--json", edited]);
    assert_eq!(report["restored"]["tables"]["effects-guests"]["put"], 1, "{report}");

    host.signal(libc::SIGTERM);
    assert_eq!(host.wait(), Some(0));
    let host = serve(&limits);
    assert_eq!(guests(&host), json!([{ "key": "late", "value": "late", "until_ms": until + 1000 }]));
}

/// A session whose timer killed the worker twice waits for the next build, and no other session
/// does.
#[test]
fn a_timer_of_a_session_that_kills_is_blocked() {
    let host = serve("crashes_max = 100");
    let (mut a, a_id) = connect(&host);
    let (mut b, b_id) = connect(&host);

    assert_eq!(a.ask("timer dies 1"), format!("ok {a_id}"));
    host.wait_log("quarantined: its turn");

    quiet(&mut b, b_id);
    let listed = host.json(&["sessions", "--quarantined", "--json"]);
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(listed[0]["id"], json!(a_id));
    let why: &Value = &listed[0]["quarantined"];
    assert!(why.as_str().is_some_and(|w| w.contains("action timer")), "{listed}");
}

/// A datagram whose turn kills the worker is dropped once it has killed three. Others are served.
#[test]
fn a_datagram_that_kills_is_dropped_at_last() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("greenroom.toml");
    let listen = format!("[service.{SERVICE}]\nlisten = [\"udp://127.0.0.1:0\", \"127.0.0.1:0\"]\n");
    std::fs::write(&config, listen).expect("a configuration");
    let host = Host::serve_with(&[], &[&builds()[0]], |c| {
        c.arg("--config").arg(&config);
    });
    let listen = host.service(SERVICE)["listen"].clone();
    let all = listen.as_array().expect("a list").iter().filter_map(|l| l.as_str());
    let port = all.filter_map(|l| l.strip_prefix("datagram+udp://")).next().expect("a port");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect(port).expect("an address");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a time");
    // Sent again and again, as a datagram may be lost with the worker that died of another.
    let answer = |text: &str| {
        let mut bytes = [0; 100];
        wait_for("an answer", || {
            socket.send(text.as_bytes()).expect("sent");
            socket.recv(&mut bytes).ok().map(|n| String::from_utf8_lossy(&bytes[..n]).into_owned())
        })
    };
    assert_eq!(answer("one"), "one");
    wait_for("the datagram to be dropped", || {
        socket.send(b"dies").expect("sent");
        assert!(socket.recv(&mut [0; 9]).is_err(), "an answer");
        host.log().contains("a datagram was dropped: its turn has killed the process").then_some(())
    });
    assert_eq!(answer("two"), "two");
}

/// An answer that another turn sends leaves from the address that its receiver has sent to.
#[test]
fn a_later_datagram_comes_from_where_its_receiver_has_sent() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("greenroom.toml");
    let listen = format!("[service.{SERVICE}]\nlisten = [\"udp://0.0.0.0:0\", \"127.0.0.1:0\"]\n");
    let limits = format!("[service.{SERVICE}.limits]\ndatagram_amplification_max = 0\n");
    std::fs::write(&config, listen + &limits).expect("a configuration");
    let host = Host::serve_with(&[], &[&builds()[0]], |c| {
        c.arg("--config").arg(&config);
    });
    let listen = host.service(SERVICE)["listen"].clone();
    let all = listen.as_array().expect("a list").iter().filter_map(|l| l.as_str());
    let port = all.filter_map(|l| l.strip_prefix("datagram+udp://0.0.0.0:")).next().expect("a port");
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a time");
    for ip in ["127.0.0.2", "127.0.0.3"] {
        let to = format!("{ip}:{port}").parse().expect("an address");
        socket.send_to(b"later", to).expect("sent");
        let mut bytes = [0; 9];
        let (n, from) = socket.recv_from(&mut bytes).expect("an answer");
        assert_eq!((&bytes[..n], from), (&b"later"[..], to));
    }
}

/// Names of sessions: one holder each, across a swap and a kill, and none when the holder is gone.
#[test]
fn a_name_has_one_holder_and_goes_with_its_session() {
    let host = serve("names_per_session_max = 2");
    let ((mut a, a_id), (mut b, b_id)) = (connect(&host), connect(&host));
    assert_eq!(a.ask("name ann"), "name ann of None");
    assert_eq!(b.ask("name ann"), format!("name ann of Some({a_id})"));
    assert_eq!(b.ask("name eve"), "name eve of None");
    b.send("name max\n");
    host.wait_log("limit names_per_session_max");
    // The one that lost the name can't give it up.
    assert_eq!(a.ask("unname ann"), format!("ok {a_id}"));
    assert_eq!(a.ask("where ann"), format!("Some({b_id}) of ann,eve"));
    let names = host.json(&["state", "dump"])["sessions"][1]["names"].clone();
    assert_eq!(names, json!(["ann", "eve"]));

    reload(&host);
    host.kill_worker();
    assert_eq!(a.ask("where ann"), format!("new Some({b_id}) of ann,eve"));
    drop(b);
    wait_until("the names to be free", || {
        let (mut c, _) = connect(&host);
        c.ask("where ann") == "new None of "
    });
}

/// Topics with names that are no text, several at once, and sends to one session. No topic reaches
/// another library.
#[test]
fn topics_stay_in_their_library_and_sessions_are_sent_to_by_number() {
    let chat = built("libchat.so");
    let host = Host::serve(&[SERVICE, "chat"], &[&builds()[0], &chat]);
    let ((mut a, a_id), (mut b, b_id)) = (connect(&host), connect(&host));
    let mut ann = Client::connect(host.addr("chat"));
    ann.line().expect("a welcome");
    assert_eq!(ann.ask("ann"), "* ann is here");

    let ok = format!("ok {a_id}");
    for line in
        ["bytes", "join news", "shout chat-room hacked", "any chat-room hacked", "pass 3 hacked", "end 3"]
    {
        assert_eq!(a.ask(line), ok);
    }
    assert_eq!(ann.ask("hello"), "ann: hello");
    assert_eq!(b.ask("join news"), format!("ok {b_id}"));
    host.kill_worker();
    assert_eq!(a.ask("rooms"), "[110, 101, 119, 115] 2 [255, 10, 0] 1");

    // Behind the answers: the others of a topic hear it once, and one session by its number.
    a.send(format!("any news all\npass {b_id} one\nend {b_id}\n"));
    for line in [&ok, &ok, &ok] {
        expect(&mut a, line);
    }
    expect(&mut b, "all");
    expect(&mut b, "one");
    assert_eq!(b.line(), None);
    assert_eq!(a.ask("rooms"), "[110, 101, 119, 115] 1 [255, 10, 0] 1");
}

/// Work in slices: each turn wakes its session, and its next message comes behind all of them.
/// Deaths repeat no slice and leave none out.
#[test]
fn a_session_that_wakes_itself_loses_no_slice_to_swaps_and_kills() {
    let host = serve("probation_ms = 0");
    let ((mut a, a_id), (mut b, b_id)) = (connect(&host), connect(&host));
    // Enough that the kill and the swap come in the midst of them.
    a.send("slices 50000\nhello\n");
    expect(&mut a, &format!("ok {a_id}"));
    let mut of_new = 0;
    for n in (0..=50_000).rev() {
        match n {
            49_900 => host.kill_worker(),
            49_800 => reload(&host),
            // Others have their turns between two slices.
            49_700 => assert!(b.ask("hello").ends_with(&format!("ok {b_id}"))),
            _ => {}
        }
        let line = a.line().expect("a slice");
        of_new += usize::from(line.starts_with("new "));
        assert_eq!(line.trim_start_matches("new "), format!("woken {n}"));
    }
    assert!((1..50_000).contains(&of_new), "{of_new} of the new build");
    expect(&mut a, &format!("new ok {a_id}"));

    assert_eq!(a.ask(&format!("wake {b_id}")), format!("new ok {a_id}"));
    expect(&mut b, "new woken 0");
}

/// Output in slices, far beyond what may be left untaken. The peer has ended its side, reads late,
/// and gets all of it, across a kill and a swap; a session that waits for its peer is still told.
#[test]
fn a_session_goes_on_when_its_output_is_taken() {
    let host = serve("output_bytes_max = 200000\noutput_bytes_pause = 50000\nprobation_ms = 0");
    let ((mut a, a_id), (mut b, b_id)) = (connect(&host), connect(&host));
    assert_eq!(b.ask("others"), format!("[{a_id}, {b_id}]"));
    a.send("stream 500\n");
    expect(&mut a, &format!("ok {a_id}"));
    a.shutdown();
    wait_until("the peer's buffers to be full", || {
        let dump = host.json(&["state", "dump"]);
        dump["sessions"][0]["output"].as_str().is_some_and(|unsent| !unsent.is_empty())
    });
    assert_eq!(b.ask(&format!("note {a_id} meanwhile")), format!("ok {b_id}"));
    for n in (0..500).rev() {
        match n {
            450 => host.kill_worker(),
            400 => reload(&host),
            _ => {}
        }
        let mut line = a.line().expect("a page");
        if line.ends_with("meanwhile") {
            line = a.line().expect("a page");
        }
        assert!(line.starts_with(&format!("page {n} p")) && line.len() > 60_000, "{n}: {line:.20}");
    }
    expect(&mut a, "new woken 0");
    assert_eq!(a.line(), None);
}

/// A bound of messages holds from the next one on, over a kill and a swap, until another one. A
/// longer message ends its session like one over the service's own bound.
#[test]
fn a_bound_of_messages_holds_over_swaps_and_kills() {
    let host = serve("probation_ms = 0");
    let ((mut a, a_id), (mut b, b_id)) = (connect(&host), connect(&host));
    let (ok, long) = (format!("ok {a_id}"), "x".repeat(20));
    assert_eq!(a.ask("bound 20"), ok);
    host.kill_worker();
    assert_eq!(a.ask(&long), ok);
    assert_eq!(host.json(&["state", "dump"])["sessions"][0]["frame_max"], 20);
    reload(&host);
    let ok = format!("new {ok}");
    a.send(format!("fail\nbound 30\n{long}{long}\n"));
    expect(&mut a, &ok);
    assert_eq!(a.line(), None);
    host.wait_log("closed: a frame was longer than its service takes (limit frame_bytes_max)");

    let ok = format!("new ok {b_id}");
    b.send(format!("bound 20\nbound 0\n{long}{long}\nbound 1000000\n"));
    (0..4).for_each(|_| expect(&mut b, &ok));
    b.send("x".repeat(20_000));
    assert_eq!(b.line(), None);
}

/// A silence is told once, and is not forgotten by a kill or a swap. It closes nothing.
#[test]
fn a_silence_is_told_once_over_swaps_and_kills() {
    let host = serve("probation_ms = 0");
    let (mut a, id) = connect(&host);
    a.send("fail\n");
    assert_eq!(a.ask("hush 300"), format!("ok {id}"));
    assert_eq!(host.json(&["state", "dump"])["sessions"][0]["idle_after_ms"], 300);
    host.kill_worker();
    expect(&mut a, "idle");
    host.kill_worker();
    // A word without an end breaks the silence, and the next one begins.
    a.send("hel");
    expect(&mut a, "idle");
    reload(&host);
    let ok = format!("new ok {id}");
    assert_eq!(a.ask("lo"), ok);
    expect(&mut a, "new idle");
    assert_eq!(a.ask("chatter"), ok);
    assert_eq!(a.ask("timer later 500"), ok);
    expect(&mut a, "new timer later");
    quiet(&mut a, id);
}

/// Tokens are one service's, and a failed turn takes none. A takeover fills all buckets.
#[test]
fn tokens_are_taken_by_turns_that_succeed() {
    let host = serve("probation_ms = 0");
    let ((mut a, _), (mut b, _)) = (connect(&host), connect(&host));
    a.send("fail\nfail\ntoken here there\n");
    expect(&mut a, "[true, true]");
    b.send("token here b\ntoken here c\ntoken other c\n");
    expect(&mut b, "[true, true]");
    // A batch has one time: the second token of `c` comes a millisecond later.
    for _ in 0..2 {
        let told = b.line().expect("an answer");
        assert!(["[false, true]", "[true, false]", "[true, true]"].contains(&&*told), "{told}");
    }
    reload(&host);
    assert!(a.ask("token here x").starts_with("new [false, "));
    host.kill_worker();
    assert!(a.ask("token here y").starts_with("new [true, "));
}

/// Random numbers are others in each turn and each session, and the same if a turn runs again: the
/// log has that of the build that failed, and the peer that of the previous one.
#[test]
fn random_numbers_are_those_of_the_turn() {
    let host = serve("");
    let ((mut a, _), (mut b, _)) = (connect(&host), connect(&host));
    let mut all: Vec<String> = Vec::new();
    for _ in 0..3 {
        let told = [a.ask("random"), b.ask("random")];
        all.extend(told.iter().flat_map(|t| t.split(' ')).map(str::to_owned));
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 12, "{all:?}");
    reload(&host);
    let told = a.ask("chance");
    assert!(told.starts_with("number "), "{told}");
    host.wait_log(&told);
}

/// Numbers of the host, and facts of an endpoint.
#[test]
fn turns_know_numbers_of_the_host_and_their_endpoint() {
    let host = serve("");
    let ((mut a, _), _b) = (connect(&host), connect(&host));
    a.send("fail\n");
    assert!(a.ask("stats").starts_with("line tcp no no [2, 2, 1, 1] true "));
    host.kill_worker();
    let told = a.ask("stats");
    let up: u64 = told.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("seconds");
    assert!(told.starts_with("line tcp no no [2, 2, 1, ") && up < 3600, "{told}");
}
