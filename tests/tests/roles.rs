//! Callers of the admin socket: who may look, who may change, what the audit log says of it, and
//! how long a command waits.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::install;
use greenroom_tests::host::Host;
use greenroom_tests::{built, wait_for};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::channel;

/// Users and groups without names, as they are on any system.
const READER: (&str, &str) = ("70001", "70001");
const IN_GROUP: (&str, &str) = ("70002", "70009");
const STRANGER: (&str, &str) = ("70003", "70003");

fn is_root() -> bool {
    own_uid() == 0
}

/// A directory that others may enter, with a library.
fn open_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("a mode");
    install(&built("libecho.so"), &dir.path().join("libecho.so"));
    dir
}

/// A host with roles and an audit log, and a client of the service `tally`.
struct Bench {
    host: Host,
    audit: PathBuf,
    config: PathBuf,
    dir: tempfile::TempDir,
}

const ROLES: &str = "read = [\"70001\"]\noperate = [\"@70009\"]\naudit = \"audit.log\"\n";

impl Bench {
    #[track_caller]
    fn serve() -> Bench {
        let dir = open_dir();
        let (config, audit) = (dir.path().join("greenroom.toml"), dir.path().join("audit.log"));
        std::fs::write(&config, format!("[admin]\n{ROLES}")).expect("a configuration");
        let library = dir.path().join("libecho.so");
        let host = Host::serve_with(&["echo", "tally"], &[&library], |c| {
            c.arg("--config").arg(&config);
        });
        // The way to the runtime directory, which the harness makes for its own user alone.
        std::fs::set_permissions(host.dir(), PermissionsExt::from_mode(0o711)).expect("a mode");
        Bench { host, audit, config, dir }
    }

    /// A command as a user, with further groups, which lacks its arguments yet.
    fn as_user(&self, (uid, gid): (&str, &str), groups: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", uid, "--regid", gid]);
        match groups {
            "" => command.arg("--clear-groups"),
            _ => command.args(["--groups", groups]),
        };
        command.arg(built("greenroom")).env("GREENROOM_RUNTIME", self.host.runtime());
        command
    }

    /// Runs a command as a user, with further groups.
    fn run_as(&self, user: (&str, &str), groups: &str, args: &[&str]) -> Output {
        self.as_user(user, groups).args(args).output().expect("setpriv")
    }

    /// Lines of the audit log, without their times.
    fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.audit).expect("an audit log");
        let line = |line: &str| {
            let mut line: Value = serde_json::from_str(line).expect("JSON");
            let at = line.as_object_mut().expect("an object").remove("at").expect("a time");
            assert!(at.as_str().is_some_and(|at| at.ends_with('Z')), "{at}");
            line
        };
        text.lines().map(line).collect()
    }

    /// Lines that were added by what is done.
    #[track_caller]
    fn added(&self, act: impl FnOnce()) -> Vec<Value> {
        let before = self.lines().len();
        act();
        self.lines().split_off(before)
    }

    #[track_caller]
    fn does(&self, args: &[&str]) {
        let out = self.host.cli(args);
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    }
}

#[track_caller]
fn fails(out: &Output, says: &[&str]) {
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(1) && says.iter().all(|s| said.contains(s)), "{out:?}");
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("a file").mode() & 0o777
}

/// Connects as another user, which this thread becomes: the kernel's calls change a thread alone.
fn connect_as(uid: u32, socket: &Path, count: usize) -> Vec<UnixStream> {
    for call in [libc::SYS_setresgid, libc::SYS_setresuid] {
        // SAFETY: the call takes three numbers.
        assert_eq!(unsafe { libc::syscall(call, uid, uid, uid) }, 0);
    }
    (0..count).map(|_| UnixStream::connect(socket).expect("the socket")).collect()
}

#[test]
fn others_have_the_role_that_the_configuration_in_force_gives() {
    if !is_root() {
        // Nobody else can be had: what the modes say is all that is seen.
        let bench = Bench::serve();
        assert_eq!(mode(&bench.host.runtime()), 0o711);
        return;
    }
    let bench = Bench::serve();
    let mut client = Client::connect(bench.host.addr("tally"));
    assert_eq!(client.ask("x"), "1 x");
    let (run, socket) = (bench.host.runtime(), bench.host.runtime().join("admin.sock"));
    assert_eq!((mode(&run), mode(&socket)), (0o711, 0o666));

    // A reader looks, and changes nothing.
    let out = bench.run_as(READER, "", &["sessions", "--json"]);
    assert!(out.status.success() && String::from_utf8_lossy(&out.stdout).contains("tally"), "{out:?}");
    assert!(bench.run_as(READER, "", &["state", "dump"]).status.success());
    let denied = ["role `operate`", "70001", "[admin]"];
    for args in [&["session", "close", "1"][..], &["state", "set", "1", "count=5"], &["undo"]] {
        fails(&bench.run_as(READER, "", args), &denied);
    }
    fails(&bench.run_as(READER, "", &["reload", "echo"]), &denied);
    let binary = built("greenroom").display().to_string();
    fails(&bench.run_as(READER, "", &["upgrade", "--binary", &binary]), &denied);
    let last = bench.lines().pop().expect("a line");
    assert_eq!((&last["event"], &last["command"]), (&json!("denied"), &json!("upgrade")));
    assert_eq!((&last["by"]["uid"], &last["by"]["user"]), (&json!(70001), &Value::Null));

    // A further group counts as the first one does. The higher role wins.
    assert!(bench.run_as(IN_GROUP, "", &["state", "set", "1", "count=7"]).status.success());
    assert!(bench.run_as(READER, "5,70009", &["state", "set", "1", "count=8"]).status.success());
    assert_eq!(client.ask("x"), "9 x");

    // Strangers are told so, however many they are and whatever they send or do not send.
    let stranger = ["has no role", "70003"];
    fails(&bench.run_as(STRANGER, "70004", &["status"]), &stranger);
    let mute: Vec<_> = (0..100).map(|_| UnixStream::connect(&socket).expect("the socket")).collect();
    let path = socket.clone();
    let strangers = std::thread::spawn(move || connect_as(70003, &path, 200)).join().expect("a thread");
    for mut stream in strangers {
        let mut said = String::new();
        stream.read_to_string(&mut said).expect("an answer");
        assert!(said.contains("has no role"), "{said}");
    }
    drop(mute);
    wait_for("places for commands", || bench.host.cli(&["status"]).status.success().then_some(()));
    // Nothing else in the directory can be seen or used.
    let ls = Command::new("setpriv").args(["--reuid", "70001", "--clear-groups", "ls"]).arg(&run).output();
    assert!(!ls.expect("ls").status.success());

    // Another configuration counts at once, also for the modes.
    let write = |lines: &str| std::fs::write(&bench.config, format!("[admin]\n{lines}")).expect("a file");
    write("operate = [\"70003\"]\naudit = \"audit.log\"\n");
    bench.does(&["reload", "--config"]);
    assert!(bench.run_as(STRANGER, "", &["session", "close", "1"]).status.success());
    fails(&bench.run_as(READER, "", &["status"]), &["has no role"]);
    write("read = [\"no-such-user-here\"]\n");
    fails(&bench.host.cli(&["reload", "--config"]), &["admin.read: there is no user no-such-user-here"]);
    write("audit = \"nowhere/audit.log\"\n");
    fails(
        &bench.host.cli(&["reload", "--config"]),
        &["admin.audit", "nowhere/audit.log", "can't be written"],
    );
    assert!(bench.run_as(STRANGER, "", &["status"]).status.success());
    write("");
    bench.does(&["reload", "--config"]);
    wait_for("closed modes", || ((mode(&run), mode(&socket)) == (0o700, 0o600)).then_some(()));
    let out = bench.run_as(STRANGER, "", &["status"]);
    assert_eq!(out.status.code(), Some(3), "{out:?}");
}

/// Turns are shown as long as their reader may look, and not until the reader ends the trace.
#[test]
fn a_trace_ends_with_the_role_of_its_caller() {
    if !is_root() {
        return; // Nobody else can be had.
    }
    let bench = Bench::serve();
    let mut client = Client::connect(bench.host.addr("tally"));
    // An end of its own is no failure: a trace that kept on would exit with 0.
    let trace = |user, groups| {
        let mut trace = bench.as_user(user, groups);
        trace.args(["trace", "--service", "tally", "--for", "30s"]);
        let mut trace = trace.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("setpriv");
        let shown = BufReader::new(trace.stdout.take().expect("a pipe"));
        let (lines, shows) = channel();
        std::thread::spawn(move || shown.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
        (trace, shows)
    };
    let (ends, shows_end) = trace(READER, "");
    let (mut stays, shows_on) = trace(IN_GROUP, "70009");
    for shows in [&shows_end, &shows_on] {
        wait_for("a turn in the trace", || {
            client.ask("open to all");
            shows.try_iter().any(|line| line.contains("open to all")).then_some(())
        });
    }

    let roles = ROLES.replace("70001", "70003");
    std::fs::write(&bench.config, format!("[admin]\n{roles}")).expect("a file");
    bench.does(&["reload", "--config"]);
    client.ask("secret");
    fails(&ends.wait_with_output().expect("an end"), &["70001 has no role"]);
    let rest: Vec<_> = shows_end.iter().collect();
    assert!(!rest.iter().any(|line| line.contains("secret")), "{rest:?}");
    assert!(shows_on.iter().any(|line| line.contains("secret")), "a caller that keeps its role goes on");
    stays.kill().expect("a trace that goes on");
    stays.wait().expect("its end");
}

/// Readers that take all places that they may have keep no operator from a change, neither in the
/// keeper nor in the worker.
#[test]
fn readers_leave_places_to_those_who_change_something() {
    let bench = Bench::serve();
    let mut client = Client::connect(bench.host.addr("tally"));
    assert_eq!(client.ask("x"), "1 x");
    let socket = bench.host.runtime().join("admin.sock");
    // Without root there is no other user. Commands that only look have readers' places, too.
    let callers = |count| {
        let socket = socket.clone();
        let connect = move || (0..count).map(|_| UnixStream::connect(&socket).expect("the socket")).collect();
        match is_root() {
            true => {
                let socket = bench.host.runtime().join("admin.sock");
                std::thread::spawn(move || connect_as(70001, &socket, count)).join().expect("a thread")
            }
            false => connect(),
        }
    };
    // A build on probation, whose end readers wait for.
    let next = [std::fs::read(built("libecho.so")).expect("a library"), vec![0]].concat();
    std::fs::write(bench.dir.path().join("next.so"), next).expect("a library");
    install(&bench.dir.path().join("next.so"), &bench.dir.path().join("libecho.so"));
    bench.does(&["reload", "echo"]);
    let history = bench.host.cli(&["history", "--json"]).stdout;
    let history: Value = serde_json::from_slice(&history).expect("JSON");
    let line = &history.as_array().expect("lines").last().expect("a line")["line"];
    let waiting: Vec<_> = (0..24)
        .map(|_| {
            let mut caller = callers(1).pop().expect("a caller");
            writeln!(caller, "{{\"await\":{line}}}").expect("a request");
            caller
        })
        .collect();
    let too_many = ["24 commands are under way already"];
    wait_for("readers in all their places", || {
        (!bench.host.cli(&["sessions"]).status.success()).then_some(())
    });
    fails(&bench.host.cli(&["sessions"]), &too_many);
    let silent = is_root().then(|| callers(24));
    if is_root() {
        fails(&bench.run_as(READER, "", &["status"]), &too_many);
    }
    bench.does(&["session", "message", "1", "hello"]);
    bench.does(&["status"]);
    assert_eq!(client.line().as_deref(), Some("hello"));
    drop((waiting, silent));
    wait_for("places for readers", || bench.host.cli(&["sessions"]).status.success().then_some(()));
}

#[test]
fn the_audit_log_has_who_asked_for_what_and_what_was_before() {
    let bench = Bench::serve();
    let mut client = Client::connect(bench.host.addr("tally"));
    assert_eq!(client.ask("x"), "1 x");
    let first = wait_for("the line of the start", || {
        let text = std::fs::read_to_string(&bench.audit).ok()?;
        text.ends_with('\n').then(|| bench.lines().remove(0))
    });
    assert_eq!(
        (&first["event"], &first["by"], &first["command"]),
        (&json!("changed"), &json!("start"), &json!("reload"))
    );
    assert_eq!(first["after"]["generation"], 1);

    // Who only looks leaves no line.
    assert!(bench.added(|| bench.does(&["sessions"])).is_empty());

    // A change says what it is about, also if it is refused.
    for (args, name, mut entries) in [
        (
            &["table", "put", "fruit", "pear", "1", "--new"][..],
            "table put",
            json!({"deletes": false, "new": true}),
        ),
        (&["table", "del", "fruit", "pear"], "table del", json!({"deletes": true})),
    ] {
        let lines = bench.added(|| bench.does(args));
        entries["table"] = json!("fruit");
        entries["keys"] = json!(["pear"]);
        assert!(
            lines.iter().all(|l| l["command"] == name && l["request"]["entries"] == entries),
            "{lines:?}"
        );
    }
    let stopped = Command::new("kill").args(["-STOP", &bench.host.worker_pid().to_string()]).status();
    assert!(stopped.is_ok_and(|status| status.success()));
    // From then on the keeper refuses commands.
    wait_for("a stall of five seconds", || {
        let stalled = bench.host.json(&["status", "--json"])["host"]["stalled"].take();
        (stalled["for_ms"].as_u64()? >= 5000).then_some(())
    });
    let before = bench.lines().len();
    assert_eq!(bench.host.cli(&["session", "close", "1"]).status.code(), Some(1));
    let refused = wait_for("the end of what was asked", || {
        Some(bench.lines().split_off(before)).filter(|lines| lines.len() > 1)
    });
    let ends: Vec<_> = refused.iter().map(|l| l["event"].as_str().unwrap_or_default()).collect();
    assert_eq!(ends, ["asked", "failed"], "{refused:?}");
    bench.host.kill_worker();

    let by = json!({"uid": own_uid(), "user": user()});
    let set = bench.added(|| bench.does(&["state", "set", "1", "count=5"]));
    assert_eq!(
        set.iter().map(|l| l["event"].as_str().unwrap_or_default()).collect::<Vec<_>>(),
        ["asked", "done"]
    );
    for line in &set {
        assert_eq!((&line["by"]["uid"], &line["by"]["user"]), (&by["uid"], &by["user"]));
        assert!(
            line["command"] == "state set" && line["request"]["fields"] == json!([["count", 5]]),
            "{line}"
        );
    }
    assert_eq!(
        (&set[1]["before"][0]["value"]["count"], &set[1]["after"][0]["value"]["count"]),
        (&json!(1), &json!(5))
    );
    assert_eq!(set[1]["after"][0]["session"], 1);

    let undone = bench.added(|| bench.does(&["undo"]));
    assert_eq!(
        (&undone[1]["before"][0]["value"]["count"], &undone[1]["after"][0]["value"]["count"]),
        (&json!(5), &json!(1))
    );
    let refused = bench.added(|| _ = bench.host.cli(&["state", "set", "1", "count=x"]));
    assert!(refused[1]["event"] == "refused" && !refused[1]["reason"].is_null(), "{refused:?}");
    let failed = bench.added(|| _ = bench.host.cli(&["session", "close", "99"]));
    assert!(failed[1]["event"] == "refused" && failed[1]["before"] == json!([]), "{failed:?}");
    assert_eq!(failed[1]["reason"], "session 99: no session has number 99");

    // A reload that loads the same file changes nothing; a rollback without a build before fails.
    let reload = bench.added(|| bench.does(&["reload", "echo"]));
    assert!(reload[1]["event"] == "done" && reload[1]["before"].is_null(), "{reload:?}");
    let mut bytes = std::fs::read(bench.dir.path().join("libecho.so")).expect("a library");
    bytes.extend(b"another build");
    let other = bench.dir.path().join("other.so");
    std::fs::write(&other, bytes).expect("a library");
    let other = other.display().to_string();
    let reload = bench.added(|| bench.does(&["reload", "echo", "--from", &other]));
    let last = reload.last().expect("a line");
    assert_eq!(
        (&last["before"]["tally"]["generation"], &last["after"]["tally"]["generation"]),
        (&json!(1), &json!(2))
    );
    assert_ne!(last["before"]["echo"]["build"], last["after"]["echo"]["build"]);

    // A worker that dies leaves what was asked, and no end.
    let mut second = Client::connect(bench.host.addr("echo"));
    assert_eq!(second.ask("x"), "x");
    let upgrade =
        bench.added(|| bench.does(&["upgrade", "--binary", &built("greenroom").display().to_string()]));
    let done = upgrade.last().expect("a line");
    assert!(
        done["event"] == "done" && done["before"]["worker_pid"] != done["after"]["worker_pid"],
        "{upgrade:?}"
    );
    let close = bench.added(|| bench.does(&["session", "close", "1"]));
    assert!(close[1]["before"][0]["peer"].is_string() && close[1]["after"]["done"] == 1, "{close:?}");

    // The file may go, and may take no line: the change is made all the same, and the log says so.
    std::fs::remove_file(&bench.audit).expect("a file");
    std::fs::create_dir(&bench.audit).expect("a directory");
    bench.does(&["session", "close", "2"]);
    bench.host.wait_log("audit: a line is missing in ");
    let failing = || {
        let status = bench.host.json(&["status", "--json"]);
        status["host"]["failing"].as_array().expect("parts").iter().any(|part| part["what"] == "audit log")
    };
    assert!(failing());
    std::fs::remove_dir(&bench.audit).expect("a directory");
    bench.does(&["reload", "--config"]);
    wait_for("the audit log to be whole", || (!failing()).then_some(()));
}

/// Number of the user that runs this.
fn own_uid() -> u32 {
    // SAFETY: the call has no preconditions.
    unsafe { libc::geteuid() }
}

/// Name of the user that runs this.
fn user() -> String {
    let out = Command::new("id").arg("-un").output().expect("id");
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

#[test]
fn a_command_waits_as_long_as_it_is_told_and_says_what_the_host_does() {
    let dir = tempfile::tempdir().expect("a directory");
    let (config, audit) = (dir.path().join("greenroom.toml"), dir.path().join("audit.log"));
    std::fs::write(&config, "[admin]\naudit = \"audit.log\"\n").expect("a configuration");
    let host = Host::serve_with(&["echo", "tally"], &[&built("libecho.so")], |c| {
        c.arg("--config").arg(&config);
    });
    let worker = host.worker_pid();
    // SAFETY: kill has no preconditions.
    let signal = |signal| assert_eq!(unsafe { libc::kill(worker, signal) }, 0);
    signal(libc::SIGSTOP);
    // The watchdog sees it a second later.
    wait_for("the stall", || (!host.json(&["status", "--json"])["host"]["stalled"].is_null()).then_some(()));
    let out = host.cli(&["sessions", "--timeout", "1500ms"]);
    fails(&out, &["no end of the answer within 1s 500ms (--timeout)", "stopped"]);
    let out = host.cli(&["sessions", "--timeout", "11s"]);
    fails(&out, &["still waiting after 10 s: ", "within 11s"]);
    // One that changes something is asked for once, and refused once, however long it waits.
    let out = host.cli(&["session", "close", "7", "--timeout", "3s"]);
    fails(&out, &["stopped"]);
    let lines = || std::fs::read_to_string(&audit).expect("an audit log");
    let of = |event: &str| lines().lines().filter(|l| l.contains(event) && l.contains("close")).count();
    wait_for("the end in the audit log", || (of("\"failed\"") > 0).then_some(()));
    assert_eq!((of("\"asked\""), of("\"failed\"")), (1, 1), "{}", lines());
    // Without a limit of its own a command does not wait for a stopped worker.
    fails(&host.cli(&["sessions"]), &["it is stalled", "stopped"]);
    let waits = host.command(&["sessions", "--timeout", "2m"]).spawn().expect("greenroom");
    signal(libc::SIGCONT);
    let out = waits.wait_with_output().expect("an answer");
    assert!(out.status.success(), "{out:?}");
    let out = host.cli(&["sessions", "--timeout", "soon"]);
    assert_eq!(out.status.code(), Some(2), "{out:?}");
}
