//! Candidates that misbehave while they are tried. Sessions notice nothing: their numbered replies
//! are whole, and their states are as they were.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::{Fixture, compile_c, tally_source};
use greenroom_tests::host::Host;
use greenroom_tests::{built, wait_for};
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
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
        // One for all sessions: many would exhaust the memory first, which is another misbehaviour.
        "thread" => {
            static ONE: std::sync::Once = std::sync::Once::new();
            ONE.call_once(|| drop(std::thread::spawn(|| std::thread::sleep(std::time::Duration::from_secs(3600)))));
        }
        "flood" => loop { print!("{}", "x".repeat(1 << 20)); },
        "work" => work(),
        "forge" => println!("\n{{\"Ok\":{{}}}}"),
        _ => {}
    }
}

/// An ordinary start: threads that end, hash maps, clocks, files, prints, a panic that is caught.
#[inline(never)]
fn work() {
    let spawned = std::thread::spawn(|| 20).join().expect("a thread");
    let scoped = std::thread::scope(|s| s.spawn(|| 22).join().expect("a thread"));
    let times: std::collections::HashMap<_, _> = [(spawned + scoped, std::time::SystemTime::now())].into();
    let caught = std::panic::catch_unwind(|| panic!("on purpose")).is_err();
    let trace = std::backtrace::Backtrace::force_capture().to_string();
    let files = std::fs::read_dir("/").expect("a directory").count();
    println!("{times:?} {:?}", std::time::Instant::now());
    eprintln!("{files} files, {:?}", std::thread::available_parallelism().expect("processors"));
    assert!(times.contains_key(&42) && caught && trace.contains("work"), "{trace}");
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
    /// Serves the good build. Rehearsals are limited to this time and to 300 MB.
    fn new(rehearsal_ms: u32) -> Bench {
        let limits = format!("rehearsal_ms = {rehearsal_ms}\nrehearsal_bytes_max = 300000000");
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

        // None of the 64 MiB that are read without a line's end is kept.
        let before = peak_memory(bench.host.worker_pid());
        bench.refuses(&bench.candidate("cflood"), "it printed more than 64 MiB when it was loaded");
        let more = peak_memory(bench.host.worker_pid()) - before;
        assert!(more < 32 << 10, "{more} KiB");

        bench.is_unchanged();
    });
}

/// Most memory that a process had so far, in KiB.
fn peak_memory(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|peak| peak.trim().strip_suffix(" kB")).and_then(|n| n.parse().ok()).expect("its peak")
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
        ("mthread", "it has 1 threads running after it was loaded; a handler keeps none"),
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

/// Sets errors that calls of a command fail with: an older kernel, or a container that refuses.
fn without(command: &mut Command, calls: &'static [(libc::c_long, i32)]) {
    let deny = move || {
        let op = |code: u32, k: u32, jf| libc::sock_filter { code: code as u16, jt: 0, jf, k };
        // The number of the call is compared with each; the error is in the answer's lower half.
        let mut filter = vec![op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
        for (call, error) in calls {
            filter.push(op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, *call as u32, 1));
            filter.push(op(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | *error as u32, 0));
        }
        filter.push(op(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0));
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: no pointer is passed.
        unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        // SAFETY: the program lives until the call returns, which copies it.
        match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec the closure makes two calls and allocates one list, and the
    // process that forks has no thread that holds the allocator's lock for long.
    unsafe { command.pre_exec(deny) };
}

const NO_NAMESPACES: &[(libc::c_long, i32)] = &[(libc::SYS_unshare, libc::EPERM)];
const NO_LANDLOCK: &[(libc::c_long, i32)] = &[(libc::SYS_landlock_create_ruleset, libc::ENOSYS)];
const NO_SECCOMP: &[(libc::c_long, i32)] = &[(libc::SYS_seccomp, libc::ENOSYS)];

/// All that a candidate could change of a process, and of the host's directory.
fn facts(host: &Host) -> Vec<String> {
    let mut facts = Vec::new();
    for pid in [host.pid() as i32, host.worker_pid()] {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("a process");
        let stat = read("stat");
        // Behind the name: priority, nice, and at last policies.
        let fields: Vec<_> = stat.rsplit_once(") ").expect("a name").1.split(' ').collect();
        facts.push(format!("{} {} {} {}", fields[15], fields[16], fields[37], fields[38]));
        let processors = read("status").lines().find(|l| l.starts_with("Cpus_allowed")).map(str::to_owned);
        facts.extend([read("limits"), read("oom_score_adj"), processors.expect("processors")]);
    }
    for path in ["", "admin.sock", "lock", "copies"].map(|name| host.runtime().join(name)) {
        let meta = path.metadata().expect("a file of the host");
        facts.push(format!("{path:?} {:o} {} {}", meta.mode(), meta.uid(), meta.ino()));
    }
    let mut names: Vec<_> = std::fs::read_dir(host.runtime()).expect("a directory").flatten().collect();
    names.sort_by_key(|f| f.file_name());
    facts.extend(names.iter().map(|f| f.file_name().to_string_lossy().into_owned()));
    facts
}

#[test]
fn a_candidate_reaches_nothing_beyond_its_trial() {
    for missing in [&[], NO_NAMESPACES, NO_LANDLOCK] {
        let dir = tempfile::tempdir().expect("a directory");
        let (good, bad) = (dir.path().join("good.so"), dir.path().join("bad.so"));
        compile_c("upper.c", &[], &good);
        let host = Host::serve_with(&["upper"], &[&good], |c| without(c, missing));
        let mut client = Client::connect(host.addr("upper"));
        assert_eq!(client.ask("on"), "1 ON");
        let defines = [
            format!("-DKEEPER={}", host.pid()),
            format!("-DWORKER={}", host.worker_pid()),
            format!("-DRUNTIME=\"{}\"", host.runtime().display()),
        ];
        compile_c("attempts.c", &defines.each_ref().map(String::as_str), &bad);
        let before = facts(&host);

        let out =
            host.cli(&["reload", "upper", "--dry-run", "--json", "--from", bad.to_str().expect("UTF-8")]);

        let report: Value = serde_json::from_slice(&out.stdout).expect("a report");
        assert_eq!(report["reason"], "service upper: succeeded:; failed:; end", "{report}");
        assert_eq!(facts(&host), before);
        assert_eq!(client.ask("on"), "2 ON");
        assert_eq!(host.json(&["status", "--json"])["host"]["workers_before"], 0);
    }
}

/// Processes whose parent is this one.
fn children(of: i32) -> Vec<i32> {
    let pids = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let parent = |pid: &i32| -> Option<i32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    };
    pids.filter(|pid| parent(pid) == Some(of)).collect()
}

#[test]
fn a_trial_ends_with_its_worker() {
    let bench = Bench::new(ENOUGH_MS);
    let path = bench.candidate("csleep");
    let reload = ["reload", NAME, "--from", path.to_str().expect("UTF-8")];
    let mut reload = bench.host.command(&reload).spawn().expect("greenroom");
    let trial = wait_for("a trial, with the candidate's process", || {
        let first = *children(bench.host.worker_pid()).first()?;
        let below = children(first);
        (!below.is_empty()).then(|| [vec![first], below].concat())
    });

    bench.host.kill_worker();

    wait_for("the end of the trial", || {
        trial.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
    let _ = reload.wait().expect("its end");
}

#[test]
fn a_candidate_may_do_what_an_ordinary_start_needs() {
    let bench = Bench::new(ENOUGH_MS);
    let path = bench.candidate("cwork");
    let out = bench.host.cli(&["reload", NAME, "--dry-run", "--from", path.to_str().expect("UTF-8")]);
    assert!(out.status.success(), "{out:?}");
}

#[test]
fn a_trial_of_an_upgrade_leaves_no_trace_and_threads_are_counted() {
    let dir = tempfile::tempdir().expect("a directory");
    let (library, trace) = (dir.path().join("upper.so"), dir.path().join("trace"));
    compile_c("upper.c", &[&format!("-DAPPEND_ON_LOAD=\"{}\"", trace.display())], &library);
    let host = Host::serve(&["upper"], &[&library]);
    assert_eq!(std::fs::read_to_string(&trace).expect("the worker's trace"), "x");

    let binary = built("greenroom");
    let out = host.cli(&["upgrade", "--binary", binary.to_str().expect("UTF-8")]);

    assert!(out.status.success(), "{out:?}");
    assert_eq!(std::fs::read_to_string(&trace).expect("two workers' traces"), "xx");

    let crowd = dir.path().join("crowd.so");
    compile_c("upper.c", &["-DCROWD_ON_LOAD"], &crowd);
    let (code, report) = host.reload_from("upper", &crowd);
    // The process beside it ends it, or its user namespace gives it no more threads.
    let reason = report["reason"].as_str().unwrap_or_default();
    let counted = reason.contains("threads at a time; a trial may have ");
    assert!(code == Some(1) && (counted || reason.contains("threads running")), "{report}");
}

#[test]
fn a_host_without_all_confinement_says_so_and_may_refuse_to_load() {
    let dir = tempfile::tempdir().expect("a directory");
    let (library, config) = (dir.path().join("upper.so"), dir.path().join("greenroom.toml"));
    compile_c("upper.c", &[], &library);
    let required = "[reload]\nconfinement = \"required\"\n";
    let set = |text: &str| std::fs::write(&config, text).expect("a configuration");
    for (name, missing) in [("landlock", NO_LANDLOCK), ("seccomp", NO_SECCOMP)] {
        set("[reload]\nconfinement = \"best-effort\"\n");
        let host = Host::serve_with(&["upper"], &[&library], |c| {
            c.arg("--config").arg(&config);
            without(c, missing);
        });
        let status = host.json(&["status", "--json"])["host"]["confinement"].take();
        assert!(
            status[name] == false && status["missing"][0].as_str().is_some_and(|m| m.starts_with(name)),
            "{status}"
        );
        let text = String::from_utf8_lossy(&host.cli(&["status"]).stdout).into_owned();
        assert!(text.contains(&format!("without all confinement: {name}: ")), "{text}");
        assert!(host.log().contains(&format!("may leave traces: {name}: ")));

        set(required);
        let refuses = |command: &mut Command| {
            let out = command.output().expect("greenroom");
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            let reason = format!(
                "reload.confinement is \"required\", and a candidate can't be confined in its trial: {name}: "
            );
            assert!(out.status.code() == Some(1) && said.contains(&reason), "{out:?}");
        };
        refuses(&mut host.command(&["reload", "--config"]));
        let serve = |more: &[&str]| {
            let mut command = Command::new(built("greenroom"));
            command
                .arg("serve")
                .arg(&library)
                .args(["--listen", "upper=127.0.0.1:0", "--config"])
                .arg(&config);
            command.args(more).env("GREENROOM_RUNTIME", dir.path().join("run"));
            without(&mut command, missing);
            command
        };
        refuses(&mut serve(&[]));
        refuses(&mut serve(&["--check-config"]));
    }

    // Where all of it is there, the same configuration serves.
    let host = Host::serve_with(&["upper"], &[&library], |c| _ = c.arg("--config").arg(&config));
    let status = host.json(&["status", "--json"])["host"]["confinement"].take();
    assert!(
        status["landlock"] == true && status["seccomp"] == true && status["missing"] == json!([]),
        "{status}"
    );
    assert!(host.cli(&["reload", "--config"]).status.success());
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
