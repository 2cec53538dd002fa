//! Candidates that misbehave while they are tried. Sessions notice nothing: their numbered replies
//! are whole, and their states are as they were.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::{Fixture, compile_c, tally_source};
use greenroom_tests::host::Host;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

const NAME: &str = "misbehaves";

/// Place in the built file that says what the candidate is to do, so that one build serves for all.
const MARK: &[u8] = b"MISBEHAVE:none    ";

/// Code of the candidate.
const MISBEHAVIOUR: &str = r##"
#[unsafe(no_mangle)]
pub static WHAT_TO_DO: [u8; 18] = *b"MISBEHAVE:none    ";

fn misbehave(at: &str) {
    let told = std::hint::black_box(&WHAT_TO_DO);
    let told = unsafe { std::ptr::read_volatile(told) };
    let told = std::str::from_utf8(&told).unwrap_or("").trim_end().to_owned();
    let Some(what) = told.strip_prefix("MISBEHAVE:").and_then(|t| t.strip_prefix(at)) else { return };
    match what {
        "segv" => unsafe { std::ptr::null_mut::<u8>().write_volatile(1) },
        "abort" => std::process::abort(),
        "exit" => std::process::exit(0),
        "loop" => loop { std::hint::black_box(()); },
        "sleep" => std::thread::sleep(std::time::Duration::from_secs(3600)),
        "alloc" => { let mut all = Vec::new(); loop { all.push(std::hint::black_box(vec![1u8; 1 << 20])); } }
        "deep" => println!("{}", deeper(1)),
        "panic" => panic!("everywhere"),
        "thread" => { std::thread::spawn(|| std::thread::sleep(std::time::Duration::from_secs(3600))); }
        "forge" => println!("\n{{\"Ok\":{{}}}}"),
        _ => {}
    }
}

#[inline(never)]
fn deeper(n: u64) -> u64 {
    let here = std::hint::black_box([n; 64]);
    deeper(here[7] + 1) + here[3]
}
"##;

/// Builds that all tests share.
struct Builds {
    good: PathBuf,
    /// The library with the mark. Written over, the mark says what it is to do.
    marked: Vec<u8>,
    _fixture: Fixture,
}

fn builds() -> &'static Builds {
    static BUILDS: OnceLock<Builds> = OnceLock::new();
    BUILDS.get_or_init(|| {
        let good = tally_source(NAME, "good");
        let fixture = Fixture::new(NAME, &good);
        let first = fixture.build_as("first.so");
        let bad = good
            .replace("#![forbid(unsafe_code)]", "")
            .replace("        Ok(Tally)\n", "        misbehave(\"c\");\n        Ok(Tally)\n")
            .replace(
                "    type State",
                "    const STATE_VERSION: u32 = 2;\n    fn migrations() -> greenroom_handler::Migrations {\n        \
                 greenroom_handler::Migrations::none().from(1, |old: Count| { misbehave(\"m\"); Ok(old) }).back(2, |new: Count| Ok(new))\n    }\n    type State",
            )
            + MISBEHAVIOUR;
        fixture.write(&bad);
        let marked = std::fs::read(fixture.build()).expect("the library");
        Builds { good: first, marked, _fixture: fixture }
    })
}

/// A host with sessions that must notice nothing.
struct Bench {
    host: Host,
    /// Clients that asked once, and ask again at the end.
    idle: Vec<Client>,
}

/// Clients that ask all the time.
const BUSY: usize = 8;
const IDLE: usize = 50;

impl Bench {
    /// Serves the good build. Rehearsals are limited to this time and to 150 MB.
    fn new(rehearsal_ms: u32) -> Bench {
        let limits = format!("rehearsal_ms = {rehearsal_ms}\nrehearsal_bytes_max = 150000000");
        let host = Host::serve_limited(NAME, &builds().good, &limits);
        let mut idle: Vec<_> = (0..IDLE).map(|_| Client::connect(host.addr(NAME))).collect();
        for client in &mut idle {
            assert_eq!(client.ask("hello"), "good 1 hello");
        }
        Bench { host, idle }
    }

    /// Runs `act` while clients ask, and checks that each of them got every reply.
    fn while_clients_ask(&mut self, act: impl FnOnce(&mut Bench)) {
        let over = AtomicBool::new(false);
        let mut busy: Vec<_> = (0..BUSY).map(|_| Client::connect(self.host.addr(NAME))).collect();
        for client in &mut busy {
            assert_eq!(client.ask("on"), "good 1 on");
        }
        std::thread::scope(|scope| {
            let over = &over;
            let asking: Vec<_> = busy.into_iter().map(|c| scope.spawn(move || ask_until(over, c))).collect();
            // However this ends, those threads do, too.
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| act(self)));
            over.store(true, Ordering::Relaxed);
            for asking in asking {
                let (mut client, count) = asking.join().expect("whole replies");
                assert!(ended.is_err() || client.ask("last") == format!("good {} last", count + 1));
            }
            if let Err(panic) = ended {
                std::panic::resume_unwind(panic);
            }
        });
        let status = self.host.json(&["status", "--json"]);
        assert_eq!(status["host"]["workers_before"], 0, "{status}");
    }

    /// A library with this misbehaviour.
    fn candidate(&self, what: &str) -> PathBuf {
        let mut bytes = builds().marked.clone();
        let at = bytes.windows(MARK.len()).position(|w| w == MARK).expect("the mark");
        bytes[at + 10..at + MARK.len()].copy_from_slice(format!("{what:<8}").as_bytes());
        let path = self.host.dir().join(format!("{what}.so"));
        std::fs::write(&path, bytes).expect("a candidate");
        path
    }

    #[track_caller]
    fn refuses(&self, path: &Path, why: &str) {
        let (code, report) = self.host.reload_from(NAME, path);
        let reason = report["reason"].as_str().unwrap_or_default();
        assert!(code == Some(1) && reason.contains(why), "{path:?}: {report}");
        assert_eq!((self.host.generation(NAME), &report["outcome"]), (1, &json!("refused")));
    }

    /// States and replies are those of the good build.
    #[track_caller]
    fn is_unchanged(&mut self) {
        let states = self.host.json(&["state", "dump", "--service", NAME])["sessions"].clone();
        let all = states.as_array().expect("sessions");
        assert!(all.len() == BUSY + IDLE && all.iter().all(|s| s["state_version"] == 1), "{states}");
        for client in &mut self.idle {
            assert_eq!(client.ask("on"), "good 2 on");
        }
    }
}

/// Asks until it is over: the client, and the number of its replies.
fn ask_until(over: &AtomicBool, mut client: Client) -> (Client, u64) {
    let mut count = 1;
    while !over.load(Ordering::Relaxed) {
        count += 1;
        assert_eq!(client.ask("on"), format!("good {count} on"));
    }
    (client, count)
}

/// Time limit for candidates that end by themselves, on the slowest machine.
const ENOUGH_MS: u32 = 120_000;

#[test]
fn a_candidate_that_misbehaves_in_its_load_is_refused_and_no_session_notices() {
    let mut bench = Bench::new(ENOUGH_MS);
    let c = |file: &str, flag: &str| {
        let path = bench.host.dir().join(file);
        compile_c("upper.c", &[flag], &path);
        path
    };
    let in_c = [
        (c("load.so", "-DCRASH_ON_LOAD"), "it crashed when it was loaded: segmentation fault (SIGSEGV)"),
        (c("leave.so", "-DEXIT_ON_LOAD"), "it ended the process when it was loaded (exit status: 0)"),
    ];
    let in_rust = [
        ("csegv", "it crashed when it was loaded: segmentation fault (SIGSEGV)"),
        ("cexit", "it ended the process when it was loaded (exit status: 0)"),
        ("cpanic", "panicked at src/lib.rs:"),
        ("cthread", "it has 1 threads running after it was loaded"),
    ];

    bench.while_clients_ask(|bench| {
        for (path, why) in &in_c {
            bench.refuses(path, why);
        }
        for (what, why) in in_rust {
            bench.refuses(&bench.candidate(what), why);
        }

        bench.is_unchanged();
    });
}

#[test]
fn a_candidate_that_misbehaves_in_its_rehearsal_is_refused_and_no_session_notices() {
    let all = "the rehearsal failed for 58 of 58 sessions: session 1: its state can't be read: everywhere";
    let in_rehearsal = [
        ("msegv", "it crashed in its rehearsal, with session 1: segmentation fault (SIGSEGV)"),
        ("mabort", "it crashed in its rehearsal, with session 1: abort (SIGABRT)"),
        ("mexit", "it ended the process in its rehearsal, with session 1 (exit status: 0)"),
        ("malloc", "abort (SIGABRT): memory allocation of "),
        ("mdeep", "it crashed in its rehearsal, with session 1: "),
        ("mpanic", all),
        ("mthread", "threads running after it was loaded; a handler keeps none"),
    ];

    Bench::new(ENOUGH_MS).while_clients_ask(|bench| {
        for (what, why) in in_rehearsal {
            bench.refuses(&bench.candidate(what), why);
        }

        bench.is_unchanged();
    });
}

#[test]
fn a_candidate_that_does_not_return_is_ended_at_its_limit_and_no_session_notices() {
    Bench::new(4000).while_clients_ask(|bench| {
        for (what, why) in [
            ("cloop", "it was not loaded and rehearsed after 4 s (limit rehearsal_ms)"),
            ("mloop", "after 4 s (limit rehearsal_ms), in its rehearsal, with session 1"),
            ("msleep", "after 4 s (limit rehearsal_ms), in its rehearsal, with session 1"),
        ] {
            bench.refuses(&bench.candidate(what), why);
        }

        bench.is_unchanged();
    });
}

/// The same build without its mark is a good one.
#[test]
fn a_report_that_a_candidate_prints_itself_is_not_believed() {
    Bench::new(ENOUGH_MS).while_clients_ask(|bench| {
        let (code, report) = bench.host.reload_from(NAME, &bench.candidate("cforge"));

        assert_eq!((code, &report["migrated"]), (Some(0), &Value::from(58)), "{report}");
        for client in &mut bench.idle {
            assert_eq!(client.ask("on"), "good 2 on");
        }
    });
}
