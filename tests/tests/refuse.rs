//! Builds that must not run: each is refused with its true reason, and nothing changes.

use greenroom_state::abi;
use greenroom_tests::client::Client;
use greenroom_tests::fixture::{Fixture, compile_c, install, tally_source};
use greenroom_tests::host::Host;
use greenroom_tests::{built, root, wait_for};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A host with one session that has state, half a line sent, and a generation to be proud of.
struct Live {
    host: Host,
    service: &'static str,
    client: Client,
    answered: u64,
    before: (Value, Value),
}

impl Live {
    fn new(service: &'static str, library: &Path) -> Live {
        let host = Host::serve(&[service], &[library]);
        let mut client = Client::connect(host.addr(service));
        assert_eq!(client.ask("x"), "one 1 x");
        client.send("ha");
        wait_for("half a line", || {
            (host.json(&["state", "dump"])["sessions"][0]["input"] == "ha").then_some(())
        });
        let before = Live::facts(&host, service);
        Live { host, service, client, answered: 1, before }
    }

    /// Facts that a refused reload must not change.
    fn facts(host: &Host, service: &str) -> (Value, Value) {
        let mut status = host.service(service);
        let dump = host.json(&["state", "dump"]);
        status["turns"] = Value::Null;
        (status, dump["sessions"].clone())
    }

    /// Has a file refused, for this reason and without any change.
    #[track_caller]
    fn refuses(&self, path: &Path, reason: &str) {
        let (code, report) = self.host.reload_from(self.service, path);
        assert_eq!((code, &report["outcome"]), (Some(1), &Value::from("refused")), "{report}");
        let said = report["reason"].as_str().unwrap_or_default();
        assert!(said.contains(reason), "expected {reason:?} in {said:?}");
        assert_eq!(Live::facts(&self.host, self.service), self.before, "after {reason:?}");
    }

    /// The session goes on where it was.
    #[track_caller]
    fn serves_on(&mut self) {
        self.client.send("lf\n");
        self.answered += 1;
        assert_eq!(self.client.line(), Some(format!("one {} half", self.answered)));
    }
}

#[test]
fn files_that_are_no_library_are_refused() {
    let fixture = Fixture::new("refuse_files", &tally_source("refuse-files", "one"));
    let library = fixture.build();
    let good = std::fs::read(&library).expect("the library");
    let mut live = Live::new("refuse-files", &library);
    let dir = live.host.dir().to_path_buf();
    let file = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, bytes).expect("a file");
        path
    };
    let patched = |name: &str, from: &[u8], to: &[u8]| {
        let at = good.windows(from.len()).position(|w| w == from).expect("what is to be patched");
        let mut bytes = good.clone();
        bytes[at..at + to.len()].copy_from_slice(to);
        file(name, &bytes)
    };

    live.refuses(&dir.join("absent.so"), "does not exist");
    live.refuses(&dir, "is a directory");
    let fifo = dir.join("fifo.so");
    assert!(Command::new("mkfifo").arg(&fifo).status().is_ok_and(|s| s.success()));
    live.refuses(&fifo, "is a FIFO");
    live.refuses(&file("empty.so", b""), "empty");
    live.refuses(
        &file("text.so", b"not a library at all, but long enough to be one, if length were all"),
        "not an ELF file",
    );
    for cut in [70, 4096, good.len() / 2, good.len() - 1] {
        live.refuses(&file(&format!("cut-{cut}.so"), &good[..cut]), "truncated");
    }
    let mut other = good.clone();
    other[18..20].copy_from_slice(&243u16.to_le_bytes());
    live.refuses(&file("riscv.so", &other), "another processor: riscv");
    let abi = format!("abi={}.{}", abi::MAJOR, abi::MINOR);
    live.refuses(&patched("abi.so", abi.as_bytes(), b"abi=2.0"), "ABI 2.0");
    // A later minor version has a digit more, and the version of the SDK one less.
    let note = format!("{abi}\nsdk={}", env!("CARGO_PKG_VERSION"));
    let later = format!("{abi}9\nsdk={}", env!("CARGO_PKG_VERSION"));
    let later = &later[..note.len()];
    live.refuses(&patched("minor.so", note.as_bytes(), later.as_bytes()), &format!("ABI {}9", &abi[4..]));
    live.refuses(&patched("entry.so", b"entry=greenroom", b"entry=greenhouse"), "does not export");
    live.refuses(&patched("note.so", b"MNRGGreenroom", b"MNRGGreenrook"), "without a Greenroom note");
    // A copy that broke off, padded to its length by the file system: structurally whole.
    let mut zeroed = good.clone();
    // Behind the first pages everything else is debug information, which nobody would miss.
    let from = zeroed.len() / 32;
    zeroed[from..].fill(0);
    let (code, report) = live.host.reload_from("refuse-files", &file("zeroed.so", &zeroed));
    assert_eq!((code, &report["outcome"]), (Some(1), &Value::from("refused")), "{report}");
    live.refuses(&built("greenroom"), "without a Greenroom note");
    live.serves_on();
}

#[test]
fn libraries_that_misbehave_in_their_load_are_refused() {
    let fixture = Fixture::new("refuse_load", &tally_source("refuse-load", "one"));
    let mut live = Live::new("refuse-load", &fixture.build());
    let dir = live.host.dir().to_path_buf();
    let c = |name: &str, flags: &[&str]| {
        let path = dir.join(name);
        compile_c("upper.c", flags, &path);
        path
    };
    live.refuses(&c("crash.so", &["-DCRASH_ON_LOAD"]), "segmentation fault (SIGSEGV)");
    live.refuses(&c("exit.so", &["-DEXIT_ON_LOAD"]), "it ended the process when it was loaded");
    live.refuses(&c("child.so", &["-DLEAVE_A_CHILD"]), "abort (SIGABRT)");
    live.refuses(&c("hang.so", &["-DHANG_ON_LOAD"]), "after 10 s");
    live.refuses(&c("missing.so", &["-DMISSING_SYMBOL"]), "undefined symbol: written_next_week");

    let abort = Fixture::new("refuse_abort", &tally_source("refuse-load", "abort"));
    let library = abort.build_with(&["--config", "profile.release.panic=\"abort\""]);
    live.refuses(&library, "panic = \"abort\"");

    let source = tally_source("refuse-load", "two");
    let panics = source.replace("Ok(Tally)\n", "panic!(\"no luck today\")\n");
    let panics = Fixture::new("refuse_panics", &panics).build();
    live.refuses(&panics, "no luck today");
    let settings = source.replace("Ok(Tally)\n", "Err(\"the moon is not full\".into())\n");
    live.refuses(&Fixture::new("refuse_settings", &settings).build(), "the moon is not full");
    let other = Fixture::new("refuse_other", &source.replace("\"refuse-load\"", "\"refuse-else\"")).build();
    live.refuses(&other, "it is library refuse_other, and cannot take the place of library refuse_load");
    live.serves_on();
}

#[test]
fn builds_that_would_lose_state_are_refused() {
    let one = tally_source("refuse-state", "one");
    let fixture = Fixture::new("refuse_state", &one);
    let library = fixture.build();
    let mut live = Live::new("refuse-state", &library);
    let kept = live.host.dir().join("kept.so");
    std::fs::copy(&library, &kept).expect("a copy");
    let text = one
        .replace("count: u64,", "count: String,")
        .replace("turn.state.count += 1;", "turn.state.count.push('1');");
    let field = |from: &str, to: &str| one.replace(from, to);
    let version = |source: String, n: u32| {
        source.replace("    fn new(", &format!("    const STATE_VERSION: u32 = {n};\n    fn new("))
    };

    for (source, reason) in [
        (
            text.clone(),
            "refuse-state: field count: integer -> string; raise STATE_VERSION above 1 and add a migration",
        ),
        (
            version(text, 2),
            "STATE_VERSION is 2 and version 1 is live, but there is no migration from version 1 to 2",
        ),
        (
            field("count: u64,", "count: u64,\n    since: u64,"),
            "field since: added (integer) without a default; raise STATE_VERSION above 1",
        ),
        (
            field("count: u64,", "#[serde(rename = \"lines\")]\n    count: u64,"),
            "field count: removed (was integer); field lines: added (integer) without a default",
        ),
        (version(one.clone(), 0), "STATE_VERSION is 0"),
        (
            field("type State = Count;", "type State = ();")
                .replace("turn.state.count += 1;", "")
                .replace("&turn.state.count", "1")
                .replace("turn.state.count", "1")
                .replace("Turn<'_, Count>", "Turn<'_, ()>"),
            "the state: removed",
        ),
    ] {
        // By the watcher, as it happens every day: the file is built in its place.
        fixture.write(&source);
        let built = fixture.build();
        live.host.wait_log(reason);
        // And by hand.
        live.refuses(&built, reason);
        // The log is written by a thread of its own.
        let refusals = || live.host.log().matches(reason).count();
        wait_for("both refusals in the log", || (refusals() >= 2).then_some(()));
        // Touched, not changed: the watcher has nothing to say.
        install(&built, &built.clone());
        live.refuses(&built, reason);
        wait_for("the third in the log", || (refusals() >= 3).then_some(()));
        assert_eq!(refusals(), 3, "{reason}");
    }

    live.serves_on();
    let (code, report) = live.host.reload_from("refuse-state", &kept);
    assert_eq!((code, &report["outcome"]), (Some(0), &Value::from("unchanged")), "{report}");
}

#[test]
fn check_predicts_a_reload_without_a_host() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = Fixture::new("checked", &tally_source("checked", "one"));
    let library = fixture.build_as("checked.so");
    let check = |path: &Path, more: &[&str]| {
        Command::new(built("greenroom")).arg("check").arg(path).args(more).output().expect("greenroom check")
    };

    let out = check(&library, &["--json"]);
    let found: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert_eq!((&found["library"], &found["services"][0]["name"]), (&"checked".into(), &"checked".into()));
    assert_eq!(found["services"][0]["state_version"], 1);
    assert_eq!(found["services"][0]["state_schema"]["properties"]["count"]["type"], "integer", "{found}");
    let text = String::from_utf8(check(&library, &[]).stdout).expect("UTF-8");
    assert!(text.contains("library checked, build ") && text.contains("v1"), "{text}");

    let refused = |path: &Path, more: &[&str], why: &str| {
        let out = check(path, more);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(1) && said.contains(why), "{said}");
    };
    refused(&root().join("README.md"), &[], "README.md: it is not an ELF file");
    refused(Path::new("/nowhere/lib.so"), &[], "does not exist");
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("greenroom.toml");
    let other = "00".repeat(32);
    std::fs::write(&config, format!("[trust]\nhashes = [\"{other}\"]\n")).expect("a configuration");
    refused(&library, &["-c", config.to_str().expect("UTF-8")], "is not among trust.hashes");

    // What others may write is refused, by a host too.
    let host = Host::serve(&["checked"], &[&library]);
    std::fs::set_permissions(&library, PermissionsExt::from_mode(0o775)).expect("its mode");
    refused(&library, &[], "may be written by its group (mode 775)");
    let (code, report) = host.reload_from("checked", &library);
    assert!(
        code == Some(1) && report["reason"].as_str().is_some_and(|why| why.contains("by its group")),
        "{report}"
    );
    std::fs::write(&config, "[trust]\ngroup_writable = true\n").expect("a configuration");
    assert!(check(&library, &["-c", config.to_str().expect("UTF-8")]).status.success());
}

/// A candidate reads a copy of every live session's state first, in a child process.
#[test]
fn a_build_that_fails_its_rehearsal_never_meets_a_session() {
    let migrating = |step: &str| {
        let migrations = format!(
            "    const STATE_VERSION: u32 = 2;\n    fn migrations() -> greenroom_handler::Migrations {{\n        \
             greenroom_handler::Migrations::none().from(1, |old: Count| {{ {step} }})\n    }}\n"
        );
        tally_source("rehearsed", "two").replacen("    type State", &(migrations + "    type State"), 1)
    };

    let fixture = Fixture::new("rehearsed", &tally_source("rehearsed", "one"));
    let first = fixture.build_as("first.so");
    let host = Host::serve(&["rehearsed"], &[&first]);
    let mut clients: Vec<_> = (0..5).map(|_| Client::connect(host.addr("rehearsed"))).collect();
    for (n, c) in clients.iter_mut().enumerate() {
        for k in 0..=n {
            assert_eq!(c.ask("on"), format!("one {} on", k + 1));
        }
    }

    let refuses = |step: &str, why: &str| {
        fixture.write(&migrating(step));
        let (code, report) = host.reload_from("rehearsed", &fixture.build());
        assert!(code == Some(1) && report["reason"].as_str().is_some_and(|r| r.contains(why)), "{report}");
        assert_eq!(host.generation("rehearsed"), 1);
    };
    refuses(
        "if old.count == 3 { Err(\"three is not a count\".to_owned()) } else { Ok(old) }",
        "the rehearsal failed for 1 of 5 sessions: session 3: its state can't be read: migration from version 1: three is",
    );
    refuses("assert!(old.count < 2); Ok(old)", "the rehearsal failed for 4 of 5 sessions: session 2: ");
    refuses("if old.count == 4 { std::process::abort() } Ok(old)", "abort (SIGABRT)");
    refuses("if old.count == 4 { std::process::exit(0) } Ok(old)", "it ended the process");
    refuses("while old.count == 4 { std::hint::black_box(()); } Ok(old)", "after 10 s");

    for (n, c) in clients.iter_mut().enumerate() {
        assert_eq!(c.ask("on"), format!("one {} on", n + 2));
    }

    fixture.write(&migrating("Ok(old)"));
    let (code, report) = host.reload_from("rehearsed", &fixture.build());
    assert_eq!(code, Some(0), "{report}");
    host.wait_log("rehearsed with 5 sessions, 5 migrated");
    for (n, c) in clients.iter_mut().enumerate() {
        assert_eq!(c.ask("on"), format!("two {} on", n + 3));
    }
}

/// Whatever a candidate does while it is tried, nobody outside sees it.
#[test]
fn a_candidate_is_confined_while_it_is_tried() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("written");
    let doing = |what: &str| {
        let new = format!("fn new(_: NoConfig) -> Result<Self, String> {{ {what}; ");
        let source = tally_source("confined", "one").replacen(
            "fn new(_: NoConfig) -> Result<Self, String> {",
            &new,
            1,
        );
        source.replace(
            "#![forbid(unsafe_code)]",
            "unsafe extern \"C\" { fn kill(pid: i32, signal: i32) -> i32; }",
        )
    };

    let fixture = Fixture::new("confined", &tally_source("confined", "one"));
    let host = Host::serve(&["confined"], &[&fixture.build_as("first.so")]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();

    let refused = |what: &str, why: &str| {
        fixture.write(&doing(what));
        let (code, report) = host.reload_from("confined", &fixture.build());
        assert!(
            code == Some(1) && report["reason"].as_str().is_some_and(|r| r.contains(why)),
            "{what}: {report}"
        );
    };

    let path = file.display();
    refused(&format!("std::fs::write(\"{path}\", \"x\").map_err(|e| e.to_string())?"), "Permission denied");
    refused(
        &format!(
            "std::fs::remove_file(\"{}\").map_err(|e| e.to_string())?",
            host.runtime().join("lock").display()
        ),
        "Permission denied",
    );
    refused(
        &format!("std::net::TcpStream::connect((\"127.0.0.1\", {port})).map_err(|e| e.to_string())?"),
        "not permitted",
    );
    refused("std::process::Command::new(\"/bin/true\").status().map_err(|e| e.to_string())?", "ermi");
    refused(
        &format!("if unsafe {{ kill({}, 9) }} != 0 {{ return Err(\"no kill\".into()) }}", host.pid()),
        "no kill",
    );

    assert!(!file.exists() && host.runtime().join("lock").exists());
    listener.set_nonblocking(true).expect("no waiting");
    assert!(listener.accept().is_err(), "nobody came");
    assert_eq!(host.generation("confined"), 1);
}

/// A library that every host would refuse fails its check, too.
#[test]
fn a_library_that_no_host_would_serve_fails_its_check() {
    let tables = "    fn tables() -> Tables {\n        Tables::none().own(&T).own(&T)\n    }\n\n    fn new(";
    let source = tally_source("clash", "x").replacen("    fn new(", tables, 1);
    let source = source.replacen("NoConfig, Turn,", "NoConfig, Table, Tables, Turn,", 1);
    let fixture = Fixture::new("clash", &(source + "\nconst T: Table<u64> = Table::new(\"t\");\n"));
    let build = fixture.build();
    let out = Command::new(built("greenroom")).arg("check").arg(&build).output().expect("a check");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    let why = format!("greenroom: {}: table t has two owners; a table has one\n", build.display());
    assert_eq!((out.status.code(), said), (Some(1), why));
}
