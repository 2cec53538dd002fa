//! Whatever a candidate does while it is tried, those who are connected notice nothing: their numbered replies are whole, their states as
//! they were.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::{Fixture, compile_c, tally_source};
use greenroom_tests::host::Host;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Says in the built file what the candidate is to do, so that one build serves for all.
const MARK: &[u8] = b"MISBEHAVE:none    ";

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

fn marked(library: &[u8], what: &str, to: &Path) -> PathBuf {
    let mut bytes = library.to_vec();
    let at = bytes.windows(MARK.len()).position(|w| w == MARK).expect("the mark");
    bytes[at + 10..at + MARK.len()].copy_from_slice(format!("{what:<8}").as_bytes());
    let path = to.join(format!("{what}.so"));
    std::fs::write(&path, bytes).expect("a candidate");
    path
}

#[test]
fn nobody_notices_a_candidate_that_misbehaves() {
    let name = "misbehaves";
    let good = tally_source(name, "good");
    let fixture = Fixture::new(name, &good);
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
    let library = std::fs::read(fixture.build()).expect("the library");
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("greenroom.toml");
    let limit = |ms: u32| {
        let text = format!("[limits]\nrehearsal_ms = {ms}\nrehearsal_bytes_max = 150000000\n");
        std::fs::write(&config, text).expect("a configuration");
    };
    // None of those that end by themselves is to be ended by the clock, however slow the machine.
    limit(120_000);
    let host = Host::serve_with(&[name], &[&first], |c| {
        c.arg("--config").arg(&config);
    });
    let c = |file: &str, flag: &str| {
        let path = dir.path().join(file);
        compile_c("upper.c", &[flag], &path);
        path
    };
    let in_load = [
        (c("load.so", "-DCRASH_ON_LOAD"), "it crashed when it was loaded: segmentation fault (SIGSEGV)"),
        (c("leave.so", "-DEXIT_ON_LOAD"), "it ended the process when it was loaded (exit status: 0)"),
    ];
    let over = AtomicBool::new(false);
    let addr = host.addr(name);
    std::thread::scope(|scope| {
        let busy: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = Client::connect(addr);
                    let mut count = 0u64;
                    while !over.load(Ordering::Relaxed) {
                        count += 1;
                        assert_eq!(client.ask("on"), format!("good {count} on"));
                    }
                    (client, count)
                })
            })
            .collect();
        // However this ends, those threads do, too.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut idle: Vec<_> = (0..50).map(|_| Client::connect(addr)).collect();
            for client in &mut idle {
                assert_eq!(client.ask("hello"), "good 1 hello");
            }
            let refuses = |path: &Path, why: &str| {
                let (code, report) = host.reload_from(name, path);
                let reason = report["reason"].as_str().unwrap_or_default();
                assert!(code == Some(1) && reason.contains(why), "{path:?}: {report}");
                assert_eq!((host.generation(name), &report["outcome"]), (1, &json!("refused")));
            };
            for (path, why) in &in_load {
                refuses(path, why);
            }
            for (what, why) in [
                ("csegv", "it crashed when it was loaded: segmentation fault (SIGSEGV)"),
                ("cexit", "it ended the process when it was loaded (exit status: 0)"),
                ("cpanic", "panicked at src/lib.rs:"),
                ("cthread", "it has 1 threads running after it was loaded"),
                ("msegv", "it crashed in its rehearsal, with session 1: segmentation fault (SIGSEGV)"),
                ("mabort", "it crashed in its rehearsal, with session 1: abort (SIGABRT)"),
                ("mexit", "it ended the process in its rehearsal, with session 1 (exit status: 0)"),
                ("malloc", "abort (SIGABRT): memory allocation of "),
                ("mdeep", "it crashed in its rehearsal, with session 1: "),
                (
                    "mpanic",
                    "the rehearsal failed for 58 of 58 sessions: session 1: its state can't be read: everywhere",
                ),
                ("mthread", "threads running after it was loaded; a handler keeps none"),
            ] {
                refuses(&marked(&library, what, dir.path()), why);
            }
            limit(4000);
            let out = host.cli(&["reload", "--config"]);
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            for (what, why) in [
                ("cloop", "it was not loaded and rehearsed after 4 s (limit rehearsal_ms)"),
                ("mloop", "after 4 s (limit rehearsal_ms), in its rehearsal, with session 1"),
                ("msleep", "after 4 s (limit rehearsal_ms), in its rehearsal, with session 1"),
            ] {
                refuses(&marked(&library, what, dir.path()), why);
            }
            let states = host.json(&["state", "dump", "--service", name])["sessions"].clone();
            for client in &mut idle {
                assert_eq!(client.ask("on"), "good 2 on");
            }
            let all = states.as_array().expect("sessions");
            assert!(all.len() == 58 && all.iter().all(|s| s["state_version"] == 1), "{states}");
            // What it prints is no report, and the same build without its mark is a good one.
            let (code, report) = host.reload_from(name, &marked(&library, "cforge", dir.path()));
            assert_eq!((code, &report["migrated"]), (Some(0), &Value::from(58)), "{report}");
            for client in &mut idle {
                assert_eq!(client.ask("on"), "good 3 on");
            }
        }));
        over.store(true, Ordering::Relaxed);
        for busy in busy {
            let (mut client, count) = busy.join().expect("whole replies");
            assert!(ended.is_err() || client.ask("last") == format!("good {} last", count + 1));
        }
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    });
    let status = host.json(&["status", "--json"]);
    assert_eq!(status["host"]["workers_before"], 0, "{status}");
}
