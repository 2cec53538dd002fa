//! The host's log: formats, a file of its own, levels that change while it runs, and lines that
//! peers cause as often as they like.

use greenroom_tests::client::Client;
use greenroom_tests::host::Host;
use greenroom_tests::tls::Certificate;
use greenroom_tests::{built, wait_for};
use serde_json::Value;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

/// Command that serves chat, echo and tally with these lines of a configuration.
fn serving(dir: &Path, config: &str) -> Command {
    let path = dir.join("greenroom.toml");
    std::fs::write(&path, config).expect("a configuration");
    let mut command = Command::new(built("greenroom"));
    command.arg("serve").arg(built("libchat.so")).arg(built("libecho.so")).arg("--config").arg(path);
    for service in ["chat", "echo", "tally"] {
        command.args(["--listen", &format!("{service}=127.0.0.1:0")]);
    }
    command.env("GREENROOM_RUNTIME", dir.join("run")).env_remove("GREENROOM_LOG");
    command
}

/// Starts a host with these lines of a configuration.
#[track_caller]
fn serve(config: &str) -> Host {
    let dir = tempfile::tempdir().expect("a directory");
    let command = serving(dir.path(), config);
    Host::start(dir, command)
}

/// Enters the chat, which logs that at level info. Returns when the turn is over.
#[track_caller]
fn join(host: &Host, nick: &str) {
    let mut client = Client::connect(host.addr("chat"));
    client.send(format!("{nick}\n"));
    wait_for("the arrival", || client.line()?.contains(&format!("{nick} is here")).then_some(()));
}

/// Entries of a log in JSON: all of its lines.
#[track_caller]
fn entries(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // The last line may be under way.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    whole.lines().map(read).collect()
}

/// Entries with a message that contains a text.
fn with<'a>(entries: &'a [Value], text: &str) -> Vec<&'a Value> {
    entries.iter().filter(|e| e["message"].as_str().is_some_and(|m| m.contains(text))).collect()
}

#[test]
fn levels_change_for_a_service_while_it_runs_and_outlive_a_worker_and_an_upgrade() {
    let host = serve("[log]\nformat = \"json\"\nfile = \"host.log\"\nlevel = \"warn\"\n");
    let path = host.dir().join("host.log");
    assert_eq!(host.log(), "", "all is in the file");
    let mode = std::fs::metadata(&path).expect("a log").permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    let joined = || with(&entries(&path), "joined nick=").len();

    join(&host, "anna");
    let set = host.json(&["log", "info", "--service", "chat", "--json"]);
    assert_eq!(set["configured"], "warn");
    assert_eq!(set["levels"][0]["level"], "warn");
    assert_eq!(set["levels"][1]["service"], "chat");
    // The library that serves already follows.
    join(&host, "bert");
    wait_for("a line of the handler", || (joined() == 1).then_some(()));
    host.kill_worker();
    join(&host, "carl");
    wait_for("a line of the successor's", || (joined() == 2).then_some(()));
    let upgraded = host.cli(&["upgrade"]);
    assert!(upgraded.status.success(), "{upgraded:?}");
    join(&host, "dora");
    wait_for("a line behind the upgrade", || (joined() == 3).then_some(()));
    let status = host.json(&["status", "--json"])["host"]["log"].clone();
    assert_eq!((&status[0]["service"], &status[0]["level"]), (&"chat".into(), &"info".into()));

    let log = entries(&path);
    let joined_entry = with(&log, "joined nick=bert")[0];
    assert_eq!(joined_entry["service"], "chat", "{joined_entry}");
    assert_eq!((&joined_entry["level"], &joined_entry["process"]), (&"info".into(), &"worker".into()));
    assert!(joined_entry["session"].is_u64() && joined_entry["generation"] == 1, "{joined_entry}");
    let died = with(&log, "the worker died")[0];
    assert_eq!((&died["level"], &died["process"]), (&"error".into(), &"keeper".into()));
    assert_eq!(died["pid"], host.pid());
    assert!(log.iter().all(|e| e["level"] != "info" || e["service"] == "chat"), "{log:?}");

    // A level with an end, which then falls back, and one that is reset.
    host.json(&["log", "info", "--service", "chat", "--for", "1s", "--json"]);
    wait_for("the end of the level", || {
        host.json(&["log", "--json"])["levels"].as_array().is_some_and(|all| all.len() == 1).then_some(())
    });
    join(&host, "emil");
    host.json(&["log", "debug", "--json"]);
    wait_for("a line of the keeper's", || (!with(&entries(&path), "debug for all").is_empty()).then_some(()));
    assert_eq!(joined(), 3, "nobody wants lines of the chat meanwhile");
    join(&host, "frida");
    wait_for("a line at the level of all", || (joined() == 4).then_some(()));
    let reset = host.json(&["log", "reset", "--json"]);
    assert_eq!(
        reset["levels"],
        serde_json::json!([{"service": null, "level": "warn", "is_set": false, "left_ms": null}])
    );
    // What is wrong is said.
    let refused = |args: &[&str], code, says: &str| {
        let out = host.cli(args);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(code) && said.contains(says), "{args:?}: {out:?}");
    };
    refused(&["log", "loud"], 2, "\"loud\" is no level; those are error, warn, info, debug and trace");
    refused(&["log", "debug", "--service", "chess"], 1, "no service is named chess; the services are: ");
    refused(&["log", "debug", "--for", "0s"], 1, "--for must be more than 0");
    refused(&["log", "reset", "--for", "1s"], 2, "`reset` has none");

    // The configuration's level follows a reload; format and file do not.
    let config = host.dir().join("greenroom.toml");
    let write = |log: &str| std::fs::write(&config, format!("[log]\n{log}")).expect("a configuration");
    write("format = \"json\"\nfile = \"host.log\"\nlevel = \"info\"\n");
    assert!(host.cli(&["reload", "--config"]).status.success());
    assert_eq!(host.json(&["log", "--json"])["configured"], "info");
    write("format = \"text\"\nfile = \"host.log\"\nlevel = \"info\"\n");
    let fixed = host.cli(&["reload", "--config"]);
    let said = String::from_utf8_lossy(&[fixed.stdout, fixed.stderr].concat()).into_owned();
    assert!(fixed.status.code() == Some(1) && said.contains("log.format"), "{said}");

    // logrotate renames the file, and sends a signal.
    let rotated = host.dir().join("host.log.1");
    std::fs::rename(&path, &rotated).expect("a rename");
    host.signal(libc::SIGUSR1);
    wait_for("both processes", || (with(&entries(&path), "the log begins here").len() == 2).then_some(()));
    let old = std::fs::read(&rotated).expect("the old log");
    join(&host, "gerd");
    wait_for("a line in the new file", || {
        (!with(&entries(&path), "joined nick=gerd").is_empty()).then_some(())
    });
    assert_eq!(std::fs::read(&rotated).expect("the old log"), old);
}

#[test]
fn floods_of_peers_and_callers_are_a_bounded_number_of_lines_and_a_count() {
    let host = serve("[log]\nfile = \"host.log\"\nlevel = \"debug\"\n[limits]\nframe_bytes_max = 9000\n");
    let log = || std::fs::read_to_string(host.dir().join("host.log")).unwrap_or_default();
    // Lines that are too long, each from a session of its own: the host closes it, and says so.
    let long = vec![b'x'; 10_000];
    for _ in 0..1100 {
        let mut client = Client::connect(host.addr("tally"));
        client.send(&long);
        while client.line().is_some() {}
    }
    // Callers of the admin socket that leave before they have their answer.
    let socket = host.runtime().join("admin.sock");
    let count = |text: &str| log().lines().filter(|line| line.contains(text)).count();
    wait_for("many callers", || {
        for _ in 0..200 {
            let mut caller = UnixStream::connect(&socket).ok()?;
            let _ = caller.write_all(b"nonsense\n");
        }
        (count("admin: ") >= 1000).then_some(())
    });
    wait_for("the count of long lines", || {
        let all = log();
        let counted = all
            .lines()
            .find(|line| line.contains(" more like this in 10 s") && line.contains("service=tally"))?;
        assert!(counted.contains(" WARN ") && counted.contains("lines="), "{counted}");
        Some(())
    });
    assert_eq!(Client::connect(host.addr("tally")).ask("on"), "1 on");
}

/// Requests, PROXY headers and handshakes that fail are lines of one kind each, whoever writes.
#[test]
fn floods_before_a_session_has_begun_are_a_bounded_number_of_lines_and_a_count() {
    let certificates = tempfile::tempdir().expect("a directory");
    let tls = Certificate::make(certificates.path(), "localhost").toml();
    let listen = |kind: &str| format!("listen = [\"{kind}://127.0.0.1:0\"]");
    let dir = tempfile::tempdir().expect("a directory");
    let config = format!(
        "[log]\nfile = \"host.log\"\nlevel = \"debug\"\n[service.chat]\n{}\nproxy_from = [\"127.0.0.1\"]\n\
         [service.echo]\n{}\n[service.tally]\n{}\ntls = {tls}\n",
        listen("proxy+line"),
        listen("ws"),
        listen("tls"),
    );
    std::fs::write(dir.path().join("greenroom.toml"), config).expect("a configuration");
    let mut command = Command::new(built("greenroom"));
    command.arg("serve").arg(built("libchat.so")).arg(built("libecho.so")).arg("--config");
    command.arg(dir.path().join("greenroom.toml")).env("GREENROOM_RUNTIME", dir.path().join("run"));
    command.env_remove("GREENROOM_LOG");
    let host = Host::start(dir, command);
    for (service, kind) in [
        ("chat proxy+line", "closed: it begins with no PROXY header"),
        ("echo ws", "closed: its request is refused"),
        ("tally tls", "a handshake of TLS has failed"),
    ] {
        for _ in 0..12 {
            let mut clients: Vec<_> = (0..100).map(|_| Client::connect(host.addr(service))).collect();
            clients.iter_mut().for_each(|client| client.send("Mumble.\r\n\r\n"));
            for client in &mut clients {
                while client.line().is_some() {}
            }
        }
        let lines = || {
            let all = std::fs::read_to_string(host.dir().join("host.log")).unwrap_or_default();
            all.lines().filter(|line| line.contains(kind)).map(str::to_owned).collect::<Vec<_>>()
        };
        let is_count = |line: &String| line.contains(" more like this in 10 s: ");
        wait_for("the count of lines left out", || lines().iter().any(is_count).then_some(()));
        let (counted, single) = lines().into_iter().partition::<Vec<_>, _>(is_count);
        let left_out: usize = counted
            .iter()
            .filter_map(|line| line.split(" lines=").nth(1)?.split_whitespace().next()?.parse::<usize>().ok())
            .sum();
        assert!(single.len() >= 1000, "{kind}: {}", single.len());
        assert_eq!(single.len() + left_out, 1200, "{kind}");
    }
}

#[test]
fn a_log_that_cannot_be_opened_ends_the_start_and_a_full_disk_stops_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    for (log, says) in [
        ("file = \"none/host.log\"", "none/host.log"),
        ("file = \".\"", "directory"),
        ("format = \"journald\"\nfile = \"a\"", "the journal takes no file"),
    ] {
        for check in [false, true] {
            let mut command = serving(dir.path(), &format!("[log]\n{log}\n"));
            command.args(check.then_some("--check-config"));
            let out = command.output().expect("greenroom");
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            assert!(out.status.code() == Some(1) && said.contains("log") && said.contains(says), "{said}");
        }
    }
    assert!(!dir.path().join("host.log").exists());

    let mut host = serve("[log]\nfile = \"/dev/full\"\nlevel = \"trace\"\n");
    let mut client = Client::connect(host.addr("tally"));
    for n in 1..200 {
        assert_eq!(client.ask("on"), format!("{n} on"));
    }
    host.kill_worker();
    assert_eq!(client.ask("on"), "200 on");
    host.signal(libc::SIGTERM);
    assert_eq!(host.wait(), Some(0));
}

/// A cleaner of directories sends no signal. Lines that come later are in a file all the same, of
/// the keeper and of the worker.
#[test]
fn a_log_that_was_deleted_is_made_anew() {
    let host = serve("[log]\nfile = \"host.log\"\n");
    let log = host.dir().join("host.log");
    std::fs::remove_file(&log).expect("a log");
    let mut number = 0;
    wait_for("both processes", || {
        number += 1;
        join(&host, &format!("n{number}"));
        host.cli(&["reload", "--config"]);
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        (text.matches("was gone from its path").count() >= 1 && text.contains(&format!("n{number}")))
            .then_some(())
    });
}
