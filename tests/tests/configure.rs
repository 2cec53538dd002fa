//! A configuration that changes while sessions stay: all of it, or nothing.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::Fixture;
use greenroom_tests::host::Host;
use greenroom_tests::{built, wait_for};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A host with a configuration file that can be written anew.
struct Live {
    host: Host,
    file: PathBuf,
    _dir: tempfile::TempDir,
}

/// All services at ports that the kernel chooses, unless the rest says otherwise.
fn text(limits: &str, chat: &str, tally: &str) -> String {
    format!(
        "[limits]\n{limits}\n[service.chat]\nlisten = [\"127.0.0.1:0\"]\n{chat}\n[service.echo]\nlisten = [\"127.0.0.1:0\"]\n\
         [service.tally]\nlisten = [\"{tally}\"]\n"
    )
}

const ANY: &str = "127.0.0.1:0";

impl Live {
    fn serve(config: &str) -> Live {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("greenroom.toml");
        std::fs::write(&file, config).expect("a file");
        let host = Host::serve_with(&[], &[&built("libecho.so"), &built("libchat.so")], |c| {
            c.arg("--config").arg(&file);
        });
        Live { host, file, _dir: dir }
    }

    fn write(&self, config: &str) {
        std::fs::write(&self.file, config).expect("a file");
    }

    fn configure(&self, config: &str) -> Output {
        self.write(config);
        self.host.cli(&["reload", "--config", "--json"])
    }

    /// Puts a configuration in force: the last report.
    #[track_caller]
    fn takes(&self, config: &str) -> Value {
        let out = self.configure(config);
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{said}{}", String::from_utf8_lossy(&out.stderr));
        let last = said.lines().last().expect("a report");
        serde_json::from_str(last).expect("JSON")
    }

    /// Has a configuration refused, for this reason and without any change.
    #[track_caller]
    fn refuses(&self, config: &str, why: &str) {
        let before = self.facts();
        let out = self.configure(config);
        let said =
            format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert_eq!(out.status.code(), Some(1), "{said}");
        assert!(said.contains(why), "{why}: {said}");
        assert_eq!(self.facts(), before, "{why}");
    }

    fn facts(&self) -> Value {
        let mut status = self.host.json(&["status", "--json"]);
        status["services"].take()
    }

    fn listens(&self, service: &str) -> SocketAddr {
        listen_of(&self.host, service)
    }
}

fn listen_of(host: &Host, service: &str) -> SocketAddr {
    let listen = host.service(service)["listen"][0].as_str().expect("an address").to_owned();
    listen.strip_prefix("tcp://").and_then(|a| a.parse().ok()).expect("an address")
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address")
}

/// Settings of the chat: its nicks are short, and its welcome is "Hi.".
const SHORT: &str = "settings = { nick_max = 3, welcome = \"Hi.\" }";

#[test]
fn limits_change_under_sessions() {
    let live = Live::serve(&text("sessions_max = 3", "", ANY));
    let host = &live.host;
    let reached = || host.json(&["status", "--json"])["host"]["limits"]["sessions_max"].clone();
    let mut all: Vec<_> = (0..3).map(|_| Client::connect(host.addr("echo"))).collect();
    all.iter_mut().for_each(|c| assert_eq!(c.ask("here"), "here"));
    assert_eq!(Client::connect(host.addr("echo")).line(), None, "three are connected");
    assert_eq!(reached(), json!(1));

    let report = live.takes(&text("sessions_max = 4\nidle_ms = 3600000", "", ANY));

    assert_eq!(
        (&report["outcome"], &report["reason"]),
        (&json!("configured"), &json!("limits.idle_ms, limits.sessions_max"))
    );
    assert_eq!(host.generation("echo"), 1);
    all.push(Client::connect(host.addr("echo")));
    all.iter_mut().for_each(|c| assert_eq!(c.ask("too"), "too"));
    assert_eq!(Client::connect(host.addr("echo")).line(), None, "four are connected");
    assert_eq!(reached(), json!(2));
}

/// Settings are another generation of the same build, with the sessions that are there.
#[test]
fn settings_change_under_sessions_and_a_rollback_brings_the_old_ones_back() {
    let live = Live::serve(&text("", "", ANY));
    let host = &live.host;
    let mut chat = Client::connect(host.addr("chat"));
    assert!(chat.line().expect("a welcome").starts_with("Welcome"));
    let build = host.service("chat")["build"].clone();

    live.takes(&text("", SHORT, ANY));

    assert_eq!((host.generation("chat"), host.generation("echo")), (2, 1));
    assert_eq!(host.service("chat")["build"], build);
    assert!(chat.ask("toolong").starts_with("! A nick"), "the new settings hold");
    assert!(chat.ask("ann").contains("ann"));
    assert_eq!(live.takes(&text("", SHORT, ANY))["outcome"], "unchanged", "said twice, it is no change");

    assert!(host.cli(&["rollback", "chat"]).status.success());

    assert_eq!(host.generation("chat"), 1);
    let mut bob = Client::connect(host.addr("chat"));
    assert!(bob.line().expect("a welcome").starts_with("Welcome"));
    assert!(bob.ask("longer").contains("longer"));
}

#[test]
fn a_port_moves_and_its_sessions_stay() {
    let live = Live::serve(&text("", "", ANY));
    let mut tally = Client::connect(live.host.addr("tally"));
    assert_eq!(tally.ask("a"), "1 a");
    let (old, new) = (live.listens("tally"), free_port());

    live.takes(&text("", "", &new.to_string()));

    assert_eq!(live.listens("tally"), new);
    assert_eq!(tally.ask("b"), "2 b");
    assert_eq!(Client::connect(new).ask("x"), "1 x");
    wait_for("the old port to close", || std::net::TcpStream::connect(old).is_err().then_some(()));
}

/// A successor goes by what is in force, not by the file.
#[test]
fn a_successor_keeps_the_configuration_in_force() {
    let live = Live::serve(&text("", "", ANY));
    let host = &live.host;
    let mut tally = Client::connect(host.addr("tally"));
    assert_eq!(tally.ask("a"), "1 a");
    let new = free_port();
    live.takes(&text("sessions_max = 3", SHORT, &new.to_string()));
    live.write("nonsense");

    host.kill_worker();

    assert_eq!(live.listens("tally"), new);
    assert_eq!(tally.ask("b"), "2 b");
    let mut bob = Client::connect(host.addr("chat"));
    assert_eq!(bob.line().as_deref(), Some("Hi."));
    assert!(bob.ask("toolong").starts_with("! A nick"));
    let mut third = Client::connect(new);
    assert_eq!(third.ask("x"), "1 x");
    assert_eq!(Client::connect(new).line(), None, "three are connected");
}

/// Two services have the same port of two addresses, and exchange them while connections arrive.
/// Each connection is served, by one of the two; after the exchange by the one that has its port
/// now.
#[test]
fn connections_arrive_while_two_services_exchange_their_ports() {
    let (one, two) = wait_for("a port that is free at two addresses", || {
        let one = free_port();
        let two = SocketAddr::from(([127, 0, 0, 2], one.port()));
        TcpListener::bind(two).is_ok().then_some((one, two))
    });
    let config = |echo: SocketAddr, tally: SocketAddr| {
        format!(
            "[service.chat]\nlisten = [\"{ANY}\"]\n[service.echo]\nlisten = [\"{echo}\"]\n[service.tally]\nlisten = [\"{tally}\"]\n"
        )
    };
    let served_by = |addr| match Client::connect(addr).ask("x").as_str() {
        "x" => "echo",
        "1 x" => "tally",
        other => panic!("{other:?} is no service's first answer"),
    };
    let live = Live::serve(&config(one, two));
    assert_eq!((served_by(one), served_by(two)), ("echo", "tally"));
    let (over, answered) = (AtomicBool::new(false), [AtomicUsize::new(0), AtomicUsize::new(0)]);
    std::thread::scope(|scope| {
        let arrivals = [(one, &answered[0]), (two, &answered[1])].map(|(addr, answered)| {
            let over = &over;
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    served_by(addr);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        for round in 0..6 {
            // Connections arrive at both before, during and after the exchange.
            let before = answered.each_ref().map(|n| n.load(Ordering::Relaxed));
            let (echo, tally) = if round % 2 == 0 { (two, one) } else { (one, two) };
            live.takes(&config(echo, tally));
            assert_eq!((served_by(echo), served_by(tally)), ("echo", "tally"), "round {round}");
            wait_for("connections at both addresses", || {
                let ended = arrivals.iter().any(|a| a.is_finished());
                let now = answered.each_ref().map(|n| n.load(Ordering::Relaxed));
                (ended || (now[0] > before[0] && now[1] > before[1])).then_some(())
            });
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(host_workers(&live.host), 0, "no worker has died");
}

fn host_workers(host: &Host) -> u64 {
    host.json(&["status", "--json"])["host"]["workers_before"].as_u64().expect("a number")
}

/// A build that ran without settings has none again when it is gone back to; and what a service may
/// have otherwise than the host, its rehearsals know.
#[test]
fn a_sighup_puts_a_configuration_in_force_and_the_ledger_names_who_asked() {
    let live = Live::serve(&text("sessions_max = 3", "", ANY));
    let host = &live.host;
    let mut tally = Client::connect(host.addr("tally"));
    assert_eq!(tally.ask("a"), "1 a");
    live.takes(&text("sessions_max = 3\nidle_ms = 3600000", "", ANY));
    live.write(&text("sessions_max = 5\nidle_ms = 3600000", "", ANY));

    host.signal(libc::SIGHUP);
    host.wait_log("configuration in force: limits.sessions_max");

    assert_eq!(tally.ask("b"), "2 b");
    let ledger = wait_for("both in the ledger", || {
        let ledger = host.json(&["history", "--json"]);
        let configured = ledger.as_array()?.iter().filter(|l| l["outcome"] == "configured").cloned();
        Some(configured.collect::<Vec<_>>()).filter(|lines| lines.len() >= 2)
    });
    assert_eq!(ledger.len(), 2, "{ledger:?}");
    assert!(ledger[0]["by"].as_str().is_some_and(|by| by.starts_with("uid ")), "{ledger:?}");
    assert_eq!(ledger[1]["by"], "SIGHUP");
    assert!(ledger.iter().all(|l| l["pause_us"].as_f64() > Some(0.0)), "{ledger:?}");
}

/// A build that ran without settings has none again after a rollback. Rehearsals know the limits
/// that a service has of its own.
#[test]
fn a_rollback_brings_settings_back_and_rehearsals_know_limits_of_the_service() {
    let none = "[service.chat]\nlisten = [\"127.0.0.1:0\"]\n[service.tally]\nlisten = [\"127.0.0.1:0\"]\n[service.echo]\nlisten = [\"127.0.0.1:0\"]\n";
    let live = Live::serve(none);
    let host = &live.host;
    let mut chat = Client::connect(host.addr("chat"));
    assert!(chat.line().is_some_and(|l| l.starts_with("Welcome")));

    // The room is told of another generation at any time.
    let mut ask = |line: &str| {
        chat.send(format!("{line}\n"));
        loop {
            let answer = chat.line().expect("an answer");
            if !answer.starts_with("* chat is now generation ") {
                break answer;
            }
        }
    };

    live.takes(&none.replacen("0\"]\n", "0\"]\nsettings = { nick_max = 3 }\n", 1));
    assert!(ask("toolong").starts_with("! A nick"));

    assert!(host.cli(&["rollback", "chat"]).status.success());
    assert!(ask("toolong").contains("toolong is here"));
    host.kill_worker();
    assert!(ask("/nick another").contains("is now another"));

    // The host's limit is too small for what is there; the service's own isn't.
    let tight = "[limits]\nstate_bytes_max = 5\n[service.chat.limits]\nstate_bytes_max = 1000\n";
    live.takes(&format!("{none}{tight}"));
    live.takes(&format!("{none}{tight}[service.chat.settings]\nnick_max = 9\n"));
    let refused = ask("/nick onemoreagain");
    assert!(refused.starts_with("! A nick"), "{refused}");
    assert!(ask("/nick onemore").contains("is now onemore"));
}

#[test]
fn a_configuration_that_cannot_hold_is_refused_as_a_whole() {
    let live = Live::serve(&text("", "", ANY));
    let host = &live.host;
    let mut tally = Client::connect(host.addr("tally"));
    assert_eq!(tally.ask("a"), "1 a");

    live.refuses("[limits]\nsesions_max = 1\n", "line 2");
    // What would wait for a writer, or has no end, is no configuration.
    for (make, why) in
        [(&["mkfifo"][..], "it is not a file"), (&["ln", "-s", "/dev/zero"], "it is not a file")]
    {
        std::fs::remove_file(&live.file).expect("the configuration");
        let made = std::process::Command::new(make[0]).args(&make[1..]).arg(&live.file).status();
        assert!(made.is_ok_and(|status| status.success()));
        let out = host.cli(&["reload", "--config"]);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(1) && said.contains(why), "{said}");
    }
    std::fs::remove_file(&live.file).expect("a link");
    live.refuses(&text("output_bytes_pause = 0", "", ANY), "limits.output_bytes_pause is 0");
    live.refuses(
        &text("store_bytes_max = 100000000", "", ANY),
        "limits.store_bytes_max can't change while the host runs",
    );
    live.refuses(&format!("handlers = [\"x\"]\n{}", text("", "", ANY)), "handlers can't change");
    live.refuses(&text("frame_bytes_max = 100", "", ANY), "takes frames of up to");
    live.refuses(&text("sessions_max = 9", "settings = { nick_max = 0 }", ANY), "nobody could have a nick");
    live.refuses(&text("", "settings = { nick = 3 }", ANY), "unknown field");

    // One library could change, the other can't: neither does.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("an address").to_string();
    live.refuses(&text("sessions_max = 9", "settings = { nick_max = 3 }", &taken), &taken);
    live.refuses(&text("", "", &host.addr("echo").to_string()), &host.addr("echo").to_string());

    std::fs::remove_file(&live.file).expect("there was one");
    let out = host.cli(&["reload", "--config"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("greenroom.toml: No such file"));

    assert_eq!(tally.ask("b"), "2 b");
    assert_eq!(host.cli(&["reload", "chat", "--config"]).status.code(), Some(2));
}

#[test]
fn a_configuration_is_checked_without_a_host() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("greenroom.toml");
    let check = |config: &str| {
        std::fs::write(&file, config).expect("a file");
        let out = Command::new(built("greenroom"))
            .args(["serve", "--check-config", "--config"])
            .arg(&file)
            .args([built("libecho.so"), built("libchat.so")])
            .output()
            .expect("greenroom");
        let said =
            format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        (out.status.code(), said)
    };

    let (code, said) = check(&text("", "", "127.0.0.1:4999"));
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("tally on tcp://127.0.0.1:4999") && said.contains("the configuration is good"),
        "{said}"
    );

    for (config, why) in [
        (text("", "settings = { nick_max = 0 }", ANY), "nobody could have a nick"),
        (text("frame_bytes_max = 100", "", ANY), "limit frame_bytes_max"),
        (
            "[service.tally]\nlisten = [\"127.0.0.1:4001\"]\n".into(),
            "both echo and tally want tcp://127.0.0.1:4001",
        ),
        ("[service.tally.limits]\nidle = 3\n".into(), "line 2"),
    ] {
        let (code, said) = check(&config);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(why), "{why}: {said}");
    }
}

/// Output of a command that ends with 1 and says this.
#[track_caller]
fn fails(command: &mut Command, why: &str) {
    let out = command.output().expect("greenroom");
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.code() == Some(1) && said.contains(why), "{command:?}, {why}: {said}");
}

/// A value is refused for the same reason when it is checked, at a start, and by a reload.
#[test]
fn what_no_start_takes_no_check_and_no_reload_takes() {
    let live = Live::serve(&text("", "", ANY));
    let run = live.host.dir().join("other");
    let serve = |more: &[&str], file: &Path| {
        let mut command = Command::new(built("greenroom"));
        command.arg("--runtime").arg(&run).arg("serve").args(more).arg("--config").arg(file);
        command.args([built("libecho.so"), built("libchat.so")]);
        command
    };
    for (config, why) in [
        (text("", "settings = { nick_max = inf }", ANY), "service.chat.settings.nick_max is inf"),
        (
            text("", "settings = { nick_max = [{ a = nan }] }", ANY),
            "service.chat.settings.nick_max.0.a is NaN",
        ),
        (
            format!("{}[service.later]\nsettings = {{ at = 1979-05-27 }}\n", text("", "", ANY)),
            "write it in quotes",
        ),
        (text("rehearsal_ms = 0", "", ANY), "limits.rehearsal_ms is 0"),
        (text("builds_max = 0", "", ANY), "limits.builds_max is 0"),
        (format!("[save]\nfile = \"\"\n{}", text("", "", ANY)), "save.file: \"\" names no file"),
        (
            format!("[trust]\nhashes = [\"abc\"]\n{}", text("", "", ANY)),
            "trust.hashes.0: \"abc\" is no SHA-256, which has 64 hexadecimal digits",
        ),
    ] {
        live.write(&config);
        for more in [&["--check-config"][..], &[]] {
            fails(&mut serve(more, &live.file), why);
        }
        live.refuses(&config, why);
    }
    // A reload can't change these.
    live.write(&format!("[save]\nfile = \"/\"\n{}", text("", "", ANY)));
    for more in [&["--check-config"][..], &[]] {
        fails(&mut serve(more, &live.file), "/ can't be read: ");
    }
}

/// An address that is wanted twice is refused by a check as by a start and a reload.
#[test]
fn an_address_that_is_wanted_twice_is_refused_when_it_is_checked() {
    let live = Live::serve(&text("", "", ANY));
    let run = live.host.dir().join("other");
    let serve = |more: &[&str]| {
        let mut command = Command::new(built("greenroom"));
        command.arg("--runtime").arg(&run).arg("serve").args(more).arg("--config").arg(&live.file);
        command.args([built("libecho.so"), built("libchat.so")]);
        command
    };
    let at = free_port();
    let (port, of_two) = (at.port(), |tally: &str| text("", "", tally));
    let observed = |listen: &str| format!("[observe]\nlisten = \"{at}\"\n{}", of_two(listen));
    let twice = format!("service tally wants tcp://{at} twice, as ");
    let part = format!("tally wants tcp://{at}, which is part of tcp://0.0.0.0:{port} of tally");
    let both = format!("both observe.listen and service tally want tcp://{at}");
    let overlaps =
        format!("observe.listen is tcp://{at}, which overlaps tcp://0.0.0.0:{port} of service tally");
    let started = format!("the observer listens on tcp://{at}: move observe.listen first");
    for (config, why, why_no_start) in [
        (of_two(&format!("{at}\", \"ws://{at}")), &twice, &twice),
        (of_two(&format!("{at}\", \"0.0.0.0:{port}")), &part, &part),
        (observed(&at.to_string()), &both, &started),
        (observed(&format!("0.0.0.0:{port}")), &overlaps, &started),
    ] {
        live.write(&config);
        fails(&mut serve(&["--check-config"]), why);
        fails(&mut serve(&[]), why_no_start);
        live.refuses(&config, why);
    }
    // What is good for a start is good for the check: the same endpoint by two lines, and other
    // addresses. What no library offers yet is told.
    for (config, says) in [
        (of_two(&format!("{at}\", \"{at}")), "the configuration is good"),
        (of_two(&format!("{at}\", \"[::1]:{port}\", \"udp://{at}")), "the configuration is good"),
        (
            format!("{}[service.later]\nlisten = [\"{at}\"]\n", of_two(&at.to_string())),
            "once libraries offer all services, one is refused: both later and tally want",
        ),
    ] {
        live.write(&config);
        let out = serve(&["--check-config"]).output().expect("greenroom");
        let said =
            format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success() && said.contains(says), "{config}: {said}");
    }
}

/// Hashes name the builds that may run, so they can't leave out one that does.
#[test]
fn hashes_that_leave_out_a_build_that_runs_are_refused_by_name() {
    let live = Live::serve(&text("", "", ANY));
    let build = |service: &str| live.host.service(service)["build"].as_str().expect("a hash").to_owned();
    let (echo, chat) = (build("echo"), build("chat"));
    let with = |hashes: &[&str]| format!("[trust]\nhashes = {hashes:?}\n{}", text("", "", ANY));
    let upper = echo.to_uppercase();

    live.refuses(
        &with(&[&upper]),
        &format!("trust.hashes would leave out what runs: chat runs build {chat};"),
    );
    let other = "0".repeat(64);
    live.refuses(&with(&[&other]), &format!("echo runs build {echo}"));

    assert_eq!(live.takes(&with(&[&upper, &chat]))["reason"], "trust.hashes");
    live.refuses(&with(&[&echo]), "chat runs build");
    live.host.kill_worker();
    let mut client = Client::connect(live.host.addr("echo"));
    assert_eq!(client.ask("here"), "here");
    assert_eq!(live.takes(&with(&[]))["reason"], "trust.hashes");
}

/// Entries of the status about files of the configuration: the last part of the path, the values
/// that differ, and the reason.
fn not_in_force(host: &Host) -> Vec<(String, String, Option<String>)> {
    let status = host.json(&["status", "--json"]);
    let all = status["host"]["configuration"].as_array().expect("files");
    let entry = |file: &Value| {
        let path = Path::new(file["path"].as_str().expect("a path"));
        let values = file["values"].as_array().expect("values").iter().map(|v| v.as_str().expect("a name"));
        (
            path.file_name().expect("a name").to_string_lossy().into_owned(),
            values.collect::<Vec<_>>().join(", "),
            file["reason"].as_str().map(str::to_owned),
        )
    };
    all.iter().map(entry).collect()
}

/// Waits until the status names one file of the configuration with these values, and a reason with
/// these words, if any.
#[track_caller]
fn wait_not_in_force(host: &Host, name: &str, values: &str, reason: Option<&str>) {
    wait_for(&format!("{name} with {values:?} and {reason:?}: {:?}", not_in_force(host)), || {
        let [(path, differ, why)] = &not_in_force(host)[..] else { return None };
        let is_why = match (why, reason) {
            (Some(why), Some(reason)) => why.contains(reason),
            (why, reason) => why.is_none() && reason.is_none(),
        };
        (path == name && differ == values && is_why).then_some(())
    });
}

fn status_text(host: &Host) -> String {
    String::from_utf8(host.cli(&["status"]).stdout).expect("UTF-8")
}

#[test]
fn the_status_names_a_configuration_that_is_not_in_force() {
    let live = Live::serve(&text("", "", ANY));
    let host = &live.host;
    assert_eq!(not_in_force(host), []);

    live.write(&text("idle_ms = 3600000", "", ANY));
    wait_not_in_force(host, "greenroom.toml", "limits.idle_ms", None);
    let said = status_text(host);
    let line = format!(
        "file {} of the configuration is not what is in force: limits.idle_ms; `greenroom reload --config` puts",
        live.file.display()
    );
    assert!(said.contains(&line), "{said}");

    // A fault of the file, and a refusal of what it holds.
    live.write("[limits]\nidle = 1\n");
    wait_not_in_force(host, "greenroom.toml", "", Some("line 2"));
    assert!(status_text(host).contains("of the configuration can't be used; /"), "{}", status_text(host));
    assert!(!host.cli(&["reload", "--config"]).status.success());
    assert!(status_text(host).contains("of the configuration can't be used; it was refused"));
    let too_small = text("frame_bytes_max = 100", "", ANY);
    assert!(!live.configure(&too_small).status.success());
    wait_not_in_force(host, "greenroom.toml", "limits.frame_bytes_max", Some("frame_bytes_max"));
    std::fs::remove_file(&live.file).expect("it is there");
    wait_not_in_force(host, "greenroom.toml", "", Some("No such file"));

    // In force, whether the host follows the file or the file the host.
    live.takes(&text("idle_ms = 3600000", "", ANY));
    wait_for("nothing that differs", || not_in_force(host).is_empty().then_some(()));
    live.write(&text("idle_ms = 1", "", ANY));
    wait_not_in_force(host, "greenroom.toml", "limits.idle_ms", None);
    live.write(&format!("# The same.\n{}", text("idle_ms = 3600000", "", ANY)));
    wait_for("nothing that differs", || not_in_force(host).is_empty().then_some(()));
}

/// Paths that no message can hold: refused where they are named, left out where they are found.
#[test]
fn paths_that_are_no_text_are_refused_or_left_out_by_name() {
    let base = tempfile::tempdir().expect("a directory");
    let bad = |name: &[u8]| base.path().join(OsStr::from_bytes(name));
    let (file, handlers) = (bad(b"file\xff.toml"), bad(b"handlers"));
    std::fs::write(&file, "").expect("a configuration");
    std::fs::create_dir(&handlers).expect("a directory");
    std::fs::copy(built("libecho.so"), handlers.join(OsStr::from_bytes(b"lib\xfe.so"))).expect("a copy");
    std::fs::copy(built("libecho.so"), handlers.join("libecho.so")).expect("a copy");
    let long = bad(&[b'r'; 100]);
    for check in [&["--check-config"][..], &[]] {
        let serve = |runtime: &Path, more: &[&OsStr]| {
            let mut command = Command::new(built("greenroom"));
            command
                .arg("--runtime")
                .arg(runtime)
                .arg("serve")
                .args(check)
                .arg(built("libecho.so"))
                .args(more);
            command
        };
        let (run, why) = (base.path().join("run"), "the path is not UTF-8; rename it");
        fails(&mut serve(&run, &["--config".as_ref(), file.as_os_str()]), why);
        fails(&mut serve(&run, &["--copies".as_ref(), bad(b"c\xff").as_os_str()]), why);
        fails(&mut serve(&run, &[bad(b"libx\xff.so").as_os_str()]), why);
        fails(&mut serve(&bad(b"run\xff"), &[]), why);
        fails(&mut serve(&long, &[]), "the path of a socket has at most 107 bytes");
    }

    let host = Host::serve(&["echo", "tally"], &[&handlers]);
    host.wait_log("the path is not UTF-8; rename it; it is left out");
    assert_eq!(Client::connect(host.addr("echo")).ask("served"), "served");
    let out = host.command(&["serve", "--check-config"]).arg(&handlers).output().expect("greenroom");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && said.contains("it is left out"), "{said}");
    for args in [&["check"][..], &["upgrade", "--binary"], &["reload", "echo", "--from"]] {
        let out = host.command(args).arg(handlers.join(OsStr::from_bytes(b"lib\xfe.so"))).output();
        let out = out.expect("greenroom");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && said.contains("not UTF-8; rename it"), "{args:?}: {said}");
    }
    // Later ones, too, and the host goes on.
    std::fs::copy(built("libecho.so"), handlers.join(OsStr::from_bytes(b"more\xfe.so"))).expect("a copy");
    wait_for("both in the log", || (host.log().matches("it is left out").count() >= 2).then_some(()));
    host.kill_worker();
    assert_eq!(Client::connect(host.addr("echo")).ask("on"), "on");
}

/// A signal that finds no worker, or one that dies before it answers, is obeyed by the next one. A
/// configuration that is in force already is not put in force again.
#[test]
fn a_sighup_around_the_death_of_a_worker_is_obeyed_once() {
    let limits = |n: u64| text(&format!("sessions_max = {}", 100 + n), "", ANY);
    let live = Live::serve(&limits(0));
    let host = &live.host;
    let mut tally = Client::connect(host.addr("tally"));
    for n in 1..=12 {
        live.write(&limits(n));
        let worker = host.worker_pid();
        let kill = || {
            // SAFETY: the pid is that of a child of our child, which is not reaped before it is
            // dead.
            unsafe { libc::kill(worker, libc::SIGKILL) };
        };
        if n % 2 == 0 {
            kill();
            host.signal(libc::SIGHUP);
        } else {
            host.signal(libc::SIGHUP);
            // Later each time: before it is read, while it is put in force, and behind that.
            std::thread::sleep(Duration::from_micros(200 * n));
            kill();
        }

        let by_signal = wait_for("the configuration in force", || {
            let ledger = host.cli(&["history", "--json"]);
            let ledger: Value = serde_json::from_slice(&ledger.stdout).ok()?;
            let lines = ledger.as_array()?.iter().filter(|l| l["outcome"] == "configured");
            let lines: Vec<Value> = lines.cloned().collect();
            (lines.len() as u64 >= n).then_some(lines)
        });

        assert_eq!(by_signal.len() as u64, n, "{by_signal:?}");
        assert!(by_signal.iter().all(|l| l["by"] == "SIGHUP"), "{by_signal:?}");
        assert_eq!(tally.ask("on"), format!("{n} on"));
    }
    assert!(!host.log().contains("configuration refused"), "{}", host.log());
}

/// A signal's configuration that ends three workers is given up, and the host goes on with the
/// previous one.
#[test]
fn a_configuration_that_kills_three_workers_is_dropped() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, plan) = (dir.path().join("greenroom.toml"), dir.path().join("plan"));
    std::fs::write(&file, text("", "", ANY)).expect("a file");
    // The first worker has staged its libraries once before; those behind it find theirs.
    std::fs::write(&plan, "staged 2\nstaged 0\nstaged 0\n").expect("a plan");
    let host = Host::serve_with(&[], &[&built("libecho.so"), &built("libchat.so")], |c| {
        c.arg("--config").arg(&file).env("GREENROOM_KILL_PLAN", &plan);
    });
    let mut tally = Client::connect(host.addr("tally"));
    assert_eq!(tally.ask("a"), "1 a");

    std::fs::write(&file, text("", "settings = { nick_max = 9 }", ANY)).expect("a file");
    host.signal(libc::SIGHUP);
    host.wait_log("3 workers have ended with the configuration: it isn't tried again");

    assert_eq!(tally.ask("b"), "2 b");
    let status = host.json(&["status", "--json"]);
    assert_eq!(status["host"]["workers_before"], 3, "{status}");
    assert_eq!(host.generation("chat"), 1);

    // Said again, it is tried again.
    host.signal(libc::SIGHUP);
    host.wait_generation("chat", 2);
    assert_eq!(tally.ask("c"), "3 c");
}

/// Service that answers with the words of a file in its settings, and takes no line of two words.
const HELD: &str = r#"
#![forbid(unsafe_code)]
use greenroom_handler::{Action, Fault, File, Handler, Turn, export};

export!(Held);

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    words: File,
}

pub struct Held(String);

impl Handler for Held {
    const SERVICE: &'static str = "held";
    const PORT: u16 = 0;
    type State = u64;
    type Config = Settings;

    fn new(settings: Settings) -> Result<Self, String> {
        let words = settings.words.text()?;
        match words.lines().position(|line| line.contains(' ')) {
            Some(at) => Err(format!("{}:{}: two words", settings.words.path(), at + 1)),
            None => {
                let words = words.lines().filter(|line| !line.starts_with('#'));
                Ok(Held(words.collect::<Vec<_>>().join(",")))
            }
        }
    }

    fn handle(&self, turn: &mut Turn<'_, u64>, action: Action<'_>) -> Result<(), Fault> {
        if let Action::Message(_) = action {
            *turn.state += 1;
            let count = *turn.state;
            turn.send_line(format!("{count} {}", self.0));
        }
        Ok(())
    }
}
"#;

/// A file in settings: its change is a reload, which the handler may refuse by its line. What a
/// build was built with is held with it, through a rollback, a death and an upgrade.
#[test]
fn files_of_settings_are_held_with_the_build() {
    let library = Fixture::new("held", HELD).build();
    let dir = tempfile::tempdir().expect("a directory");
    let (file, words) = (dir.path().join("greenroom.toml"), dir.path().join("words"));
    // The path is relative to the configuration's file.
    let config =
        "[service.held]\nlisten = [\"127.0.0.1:0\"]\nsettings = { words = { read_file = \"words\" } }\n";
    std::fs::write(&file, config).expect("a file");
    std::fs::write(&words, "one\ntwo\n").expect("a file");
    let host = Host::serve_with(&[], &[&library], |c| {
        c.arg("--config").arg(&file);
    });
    let mut client = Client::connect(host.addr("held"));
    assert_eq!(client.ask("?"), "1 one,two");
    std::fs::write(&words, "three\n").expect("a file");
    host.wait_generation("held", 2);
    assert_eq!(client.ask("?"), "2 three");
    let line = host.last_ledger_line();
    assert_eq!((&line["outcome"], &line["by"]), (&json!("committed"), &json!("watcher")), "{line}");

    // A line that the handler refuses changes nothing, and says which.
    std::fs::write(&words, "four\nfour five\n").expect("a file");
    host.wait_log(&format!("{}:2: two words", words.display()));
    wait_not_in_force(&host, "words", "", Some(":2: two words"));
    let said = status_text(&host);
    let line = format!("file {} of settings is not what is in force; it was refused", words.display());
    assert!(said.contains(&line), "{said}");
    assert_eq!((client.ask("?"), host.generation("held")), ("3 three".to_owned(), 2));
    let check = host.command(&["serve", "--check-config", "-c"]).arg(&file).arg(&library).output();
    let check = check.expect("greenroom");
    assert!(!check.status.success() && String::from_utf8_lossy(&check.stderr).contains(":2: two words"));

    // The path is never read again for what is in force.
    std::fs::remove_file(&words).expect("it is there");
    host.wait_log("configuration refused, nothing has changed: service.held.settings.words: ");
    host.kill_worker();
    assert_eq!(client.ask("?"), "4 three");
    assert!(host.cli(&["rollback", "held"]).status.success());
    assert_eq!(client.ask("?"), "5 one,two");
    let upgrade = host.cli(&["upgrade"]);
    assert!(upgrade.status.success(), "{upgrade:?}");
    assert_eq!(client.ask("?"), "6 one,two");
    host.kill_worker();
    assert_eq!((client.ask("?"), host.generation("held")), ("7 one,two".to_owned(), 1));

    // A death in the middle loses no change, also of a file as large as may be.
    let mut text = "six\n".to_owned();
    text.extend(std::iter::repeat_n('#', (1 << 20) - text.len()));
    std::fs::write(&words, &text).expect("a file");
    host.kill_worker();
    host.wait_generation("held", 3);
    assert_eq!(client.ask("?"), "8 six");
    host.kill_worker();
    assert_eq!(client.ask("?"), "9 six");
    std::fs::write(&words, text + "#").expect("a file");
    host.wait_log("words the files of all settings have more than 1048576 bytes");
    assert_eq!(client.ask("?"), "10 six");

    // Without a watch the status alone tells of it.
    std::fs::write(&words, "six\n").expect("a file");
    let host = Host::serve_with(&[], &[&library], |c| {
        c.arg("--no-watch").arg("--config").arg(&file);
    });
    assert_eq!(not_in_force(&host), []);
    std::fs::write(&words, "seven\n").expect("a file");
    wait_not_in_force(&host, "words", "", None);
    std::fs::remove_file(&words).expect("it is there");
    wait_not_in_force(&host, "words", "", Some("No such file"));
    std::fs::write(&words, "seven\n").expect("a file");
    wait_not_in_force(&host, "words", "", None);
    assert!(host.cli(&["reload", "--config"]).status.success());
    assert_eq!(not_in_force(&host), []);
    assert_eq!(Client::connect(host.addr("held")).ask("?"), "1 seven");
}

const SLOW: &str = r#"
#![forbid(unsafe_code)]
use greenroom_handler::{Action, Fault, Handler, Turn, export};

export!(LIST);

#[derive(Default, serde::Deserialize)]
#[serde(default)]
pub struct Settings {
    sleep_ms: u64,
    word: String,
}

pub struct Slow;

impl Handler for Slow {
    const SERVICE: &'static str = "NAME";
    const PORT: u16 = 0;
    type State = ();
    type Config = Settings;

    fn new(settings: Settings) -> Result<Self, String> {
        std::thread::sleep(std::time::Duration::from_millis(settings.sleep_ms));
        if settings.word == "bad" { Err("it has a bad word".into()) } else { Ok(Slow) }
    }

    fn handle(&self, turn: &mut Turn<'_, ()>, action: Action<'_>) -> Result<(), Fault> {
        if let Action::Message(line) = action {
            turn.send_line(line);
        }
        Ok(())
    }
}

pub struct Added(String);

impl Handler for Added {
    const SERVICE: &'static str = "added";
    const PORT: u16 = 0;
    type State = ();
    type Config = Settings;

    fn new(settings: Settings) -> Result<Self, String> {
        if settings.word.is_empty() { Err("it has no word".into()) } else { Ok(Added(settings.word)) }
    }

    fn handle(&self, turn: &mut Turn<'_, ()>, action: Action<'_>) -> Result<(), Fault> {
        if let Action::Message(_) = action {
            turn.send_line(&self.0);
        }
        Ok(())
    }
}
"#;

/// Reloads during a change of configuration are tried with the new one.
#[test]
fn reloads_wait_for_the_configuration_under_way() {
    let source = |name: &str, list: &str| SLOW.replace("NAME", name).replace("LIST", list);
    let first = Fixture::new("slow", &source("slow", "Slow")).build();
    let other = Fixture::new("waits", &source("waits", "Slow"));
    let before = other.build_as("before.so");
    other.write(&source("waits", "Slow, Added"));
    let after = other.build_as("after.so");

    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("greenroom.toml");
    let listens = |name: &str| format!("[service.{name}]\nlisten = [\"127.0.0.1:0\"]\n");
    let old = listens("slow") + &listens("waits");
    std::fs::write(&file, &old).expect("a file");
    let host = Host::serve_with(&["slow", "waits"], &[&first, &before], |c| {
        c.arg("--config").arg(&file);
    });
    let mut client = Client::connect(host.addr("waits"));
    assert_eq!(client.ask("here"), "here");
    let (code, report) = host.reload_from("waits", &after);
    assert!(code == Some(1) && report["reason"].as_str().is_some_and(|r| r.contains("no word")), "{report}");

    let slow = listens("slow") + "settings = { sleep_ms = 1500 }\n";
    std::fs::write(&file, slow + &listens("waits") + &listens("added") + "settings = { word = \"new\" }\n")
        .expect("a file");
    let mut configures =
        host.command(&["reload", "--config"]).stdout(Stdio::null()).spawn().expect("greenroom");
    let worker = host.worker_pid();
    wait_for("a trial", || children(worker).iter().any(|(_, c)| c.contains("trial")).then_some(()));

    let (code, report) = host.reload_from("waits", &after);
    assert_eq!((code, &report["outcome"]), (Some(0), &json!("committed")), "{report}");
    assert!(configures.wait().expect("its end").success());
    assert_eq!(Client::connect(listen_of(&host, "added")).ask("?"), "new");
    assert_eq!(client.ask("here"), "here");
    let ledger = host.json(&["history", "--json"]);
    let told: Vec<_> = ledger.as_array().expect("lines").iter().map(|l| &l["library"]).collect();
    assert_eq!(told[told.len() - 3..], ["configuration", "slow", "waits"], "{ledger}");

    // One that is refused lets them go on, too: also of a library that was tried for it already.
    let listens = listens("slow") + "settings = { sleep_ms = 1 }\n" + &listens("waits");
    let bad = "settings = { sleep_ms = 3000, word = \"bad\" }\n";
    std::fs::write(&file, listens + bad).expect("a file");
    let mut configures =
        host.command(&["reload", "--config"]).stdout(Stdio::null()).spawn().expect("greenroom");
    let mut seen: Option<(i32, Instant)> = None;
    wait_for("the second trial, which takes longer", || {
        let (pid, _) = children(worker).into_iter().find(|(_, c)| c.contains("trial"))?;
        let (_, since) = *seen.insert(seen.filter(|(p, _)| *p == pid).unwrap_or((pid, Instant::now())));
        (since.elapsed() > Duration::from_millis(500)).then_some(())
    });

    let other = dir.path().join("other.so");
    std::fs::copy(&first, &other).expect("a copy");
    std::fs::OpenOptions::new()
        .append(true)
        .open(&other)
        .and_then(|mut f| std::io::Write::write_all(&mut f, b"other content, same code"))
        .expect("some bytes more");

    let (code, report) = host.reload_from("slow", &other);
    assert_eq!((code, &report["outcome"]), (Some(0), &json!("committed")), "{report}");
    assert!(!configures.wait().expect("its end").success());
    assert_eq!(client.ask("here"), "here");
}

/// The numbers and command lines of a process's children.
fn children(pid: i32) -> Vec<(i32, String)> {
    let Ok(all) = std::fs::read_dir("/proc") else { return Vec::new() };
    let read = |path: PathBuf| std::fs::read_to_string(path).ok();
    let of = all.flatten().filter_map(|entry| {
        let stat = read(entry.path().join("stat"))?;
        let parent: i32 = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
        let child = entry.file_name().to_str()?.parse().ok()?;
        (parent == pid).then(|| Some((child, read(entry.path().join("cmdline"))?)))?
    });
    of.collect()
}
