//! Handlers that take their process with them: what an operator is told, which sessions are spared,
//! and what becomes of the message.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::{Fixture, Optimize, tally_source};
use greenroom_tests::host::Host;
use greenroom_tests::wait_for;
use serde_json::Value;

/// A tally whose lines may say how to die. `calm`: the build that survives them.
fn source(service: &str, prefix: &str, calm: bool) -> String {
    let deaths = r#"
            match &*line {
                "segv" => unsafe { std::ptr::null_mut::<u8>().write_volatile(1) },
                "abort" => std::process::abort(),
                "overflow" => println!("{}", deeper(1)),
                "exit" => std::process::exit(3),
                "nap" => spin(std::time::Instant::now()),
                "doze" => std::thread::sleep(std::time::Duration::from_millis(20)),
                "stall" => std::thread::sleep(std::time::Duration::from_secs(3600)),
                _ => {}
            }
            let count"#;
    let more = r#"
#[inline(never)]
fn spin(since: std::time::Instant) {
    while since.elapsed().as_millis() < 600 {} // here
}
#[inline(never)]
fn deeper(n: u64) -> u64 {
    let here = std::hint::black_box([n; 64]);
    deeper(here[7] + 1) + here[3]
}
"#;
    let mut source = tally_source(service, prefix);
    if !calm {
        source =
            source.replacen("            let count", deaths, 1).replace("#![forbid(unsafe_code)]", "") + more;
    }
    source
}

fn quarantined(host: &Host) -> Vec<(u64, String)> {
    let sessions = host.json(&["sessions", "--json"]);
    let all = sessions.as_array().expect("sessions").iter();
    let of = |s: &Value| Some((s["id"].as_u64()?, s["quarantined"].as_str()?.to_owned()));
    all.filter_map(of).collect()
}

fn workers_before(host: &Host) -> u64 {
    host.json(&["status", "--json"])["host"]["workers_before"].as_u64().expect("a number")
}

/// Says something that kills, and waits until it has killed twice.
fn poison(host: &Host, addr: std::net::SocketAddr, line: &str) -> Client {
    let before = workers_before(host);
    let mut client = Client::connect(addr);
    assert_eq!(client.ask("first"), "wild 1 first");
    client.send(format!("second\n{line}\nthird\n"));
    wait_for("two deaths", || (workers_before(host) == before + 2).then_some(()));
    // What came before it in the very same read was run, once.
    assert_eq!(client.line().expect("an answer"), "wild 2 second");
    client
}

#[test]
fn a_message_that_kills_is_blocked_and_named_and_other_sessions_go_on() {
    let fixture = Fixture::new("wild", &source("wild", "wild", false));
    let wild = fixture.build_as("wild.so");
    fixture.write(&source("wild", "calm", true));
    let calm = fixture.build_as("calm.so");
    // One generation may kill as often as it likes here: no other one is to take its place.
    let host = Host::serve_limited("wild", &wild, "crashes_max = 1000");
    let addr = host.addr("wild");
    let mut other = Client::connect(addr);
    let deaths = [
        ("segv", "segmentation fault (SIGSEGV)"),
        ("abort", "abort (SIGABRT)"),
        ("overflow", "SIG"),
        ("exit", "ended the process (exit code 3)"),
    ];

    let mut poisoned = Vec::new();
    for (n, (line, how)) in deaths.iter().enumerate() {
        poisoned.push(poison(&host, addr, line));
        assert_eq!(other.ask("unharmed"), format!("wild {} unharmed", n + 1));
        let list = quarantined(&host);
        assert_eq!(list.len(), n + 1, "{list:?}");
        let (id, reason) = &list[n];
        assert!(
            reason.contains("its turn 4 (action message) killed the worker 2 times") && reason.contains(how),
            "{reason}"
        );
        let is_told = |l: &&str| {
            l.contains("the worker died in a turn")
                && l.contains(how)
                && l.contains(&format!("session={id} "))
        };
        // The log is written by a thread of its own.
        wait_for("both deaths in the log", || {
            (host.log().lines().filter(is_told).count() >= 2).then_some(())
        });
        let log = host.log();
        let told: Vec<_> = log.lines().filter(is_told).collect();
        assert_eq!(told.len(), 2, "{log}");
        for field in ["service=wild", "generation=1", "action=\"message\""] {
            assert!(told[0].contains(field), "{field}: {}", told[0]);
        }
    }

    let listed = host.json(&["sessions", "--quarantined", "--json"]);
    assert_eq!(listed.as_array().map(Vec::len), Some(4), "{listed}");

    // However often a worker dies of something else, blocked actions stay blocked.
    let pid = host.json(&["status", "--json"])["host"]["worker_pid"].as_i64().expect("a pid");
    // SAFETY: kill has no preconditions.
    unsafe { libc::kill(pid as i32, libc::SIGKILL) };
    assert_eq!(other.ask("still"), "wild 5 still");
    assert_eq!(quarantined(&host).len(), 4);

    // The next build takes them on: what was kept is run, from the state before it.
    let (code, report) = host.reload_from("wild", &calm);
    assert_eq!((code, &report["outcome"]), (Some(0), &Value::from("committed")), "{report}");
    for (client, (line, _)) in poisoned.iter_mut().zip(deaths) {
        assert_eq!(client.line().expect("an answer"), format!("calm 3 {line}"));
        assert_eq!(client.line().expect("an answer"), "calm 4 third");
        assert_eq!(client.ask("on"), "calm 5 on");
    }
    assert!(quarantined(&host).is_empty());
}

#[test]
fn a_generation_that_keeps_killing_gives_way_to_the_previous_build() {
    let fixture = Fixture::new("rogue", &source("rogue", "calm", true));
    let calm = fixture.build_as("calm.so");
    fixture.write(&source("rogue", "wild", false));
    let wild = fixture.build_as("wild.so");
    // Without a probation, in which the first death would be enough.
    let host = Host::serve_limited("rogue", &calm, "probation_ms = 0");
    let addr = host.addr("rogue");
    let mut old = Client::connect(addr);
    assert_eq!(old.ask("hello"), "calm 1 hello");
    assert_eq!(host.reload_from("rogue", &wild).0, Some(0));
    assert_eq!((old.ask("hello"), host.generation("rogue")), ("wild 2 hello".into(), 2));

    let mut first = poison(&host, addr, "segv");

    // The third death is one too many.
    let mut second = Client::connect(addr);
    second.send("abort\n");
    assert_eq!(second.line().expect("an answer"), "calm 1 abort");
    assert_eq!(first.line().expect("an answer"), "calm 3 segv");
    assert_eq!(first.line().expect("an answer"), "calm 4 third");
    assert_eq!((old.ask("hello"), host.generation("rogue")), ("calm 3 hello".into(), 1));

    host.wait_log("generation 2 is rolled back: it killed too many workers (limit crashes_max)");
    let history = host.json(&["history", "--json"]);
    let last = &history[history.as_array().map_or(0, Vec::len) - 1];
    assert_eq!(
        (&last["outcome"], &last["generation"]),
        (&Value::from("rolled-back"), &Value::from(1)),
        "{history}"
    );
    assert!(quarantined(&host).is_empty());

    // A generation's number is not used again.
    let (code, report) = host.reload_from("rogue", &wild);
    assert_eq!((code, report["generation"].as_u64()), (Some(0), Some(3)), "{report}");
}

/// Opening and closing are turns like others.
#[test]
fn a_session_whose_first_turn_kills_waits_for_the_next_build() {
    let service = "greets";
    let with = |opened: &str, closed: &str, prefix: &str| {
        let arm = format!(
            "        match action {{\n            Action::Opened => {{ {opened} turn.send_line(\"welcome to {prefix}\"); return Ok(()); }}\n            \
             Action::Closed(_) => {{ {closed} return Ok(()); }}\n            _ => {{}}\n        }}\n        if let Action::Message"
        );
        tally_source(service, prefix).replacen("        if let Action::Message", &arm, 1)
    };
    let fixture = Fixture::new(service, &with("std::process::abort();", "", "wild"));
    let wild = fixture.build_as("wild.so");
    fixture.write(&with("", "", "calm"));
    let calm = fixture.build_as("calm.so");
    fixture.write(&with("", "std::process::abort();", "last"));
    let last = fixture.build_as("last.so");

    let host = Host::serve_limited(service, &wild, "probation_ms = 0");
    let mut client = Client::connect(host.addr(service));
    client.send("hello\n");
    wait_for("quarantine", || (quarantined(&host).len() == 1).then_some(()));

    assert_eq!(host.reload_from(service, &calm).0, Some(0));
    assert_eq!(client.line().expect("a greeting"), "welcome to calm");
    assert_eq!(client.line().expect("an answer"), "calm 1 hello");

    // One that kills at its end is closed without its last turn.
    let mut other = Client::connect(host.addr(service));
    assert_eq!(other.line().expect("a greeting"), "welcome to calm");
    assert_eq!(host.reload_from(service, &last).0, Some(0));
    client.shutdown();
    assert_eq!(client.line(), None);
    host.wait_log("its last turn was left out");
    assert_eq!(other.ask("hello"), "last 1 hello");
    let left = host.json(&["sessions", "--json"]);
    assert_eq!(left.as_array().map(Vec::len), Some(1), "{left}");
}

#[test]
fn a_callback_that_stalls_is_named_with_its_line() {
    let text = source("naps", "wild", false);
    let line = text.lines().position(|l| l.contains("// here")).expect("the line") + 1;
    let fixture = Fixture::with(Optimize::NothingWithLines, "naps", &text);
    let library = fixture.build();
    let host = Host::serve_limited("naps", &library, "stall_warn_ms = 100");
    let mut client = Client::connect(host.addr("naps"));
    let said = "everybody waits for it (limit stall_warn_ms)";
    assert_eq!(client.ask("quick"), "wild 1 quick");

    client.send("nap\n");
    // While it naps, status is answered.
    host.wait_log(said);
    assert_eq!(host.service("naps")["sessions"], 1);
    assert_eq!(client.line().expect("an answer"), "wild 2 nap");
    host.wait_log("the callback returned after about");

    let log = host.log();
    // A turn that the machine kept waiting may be named as well.
    let warnings: Vec<_> = log.lines().filter(|l| l.contains(said) && l.contains("spin")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    for field in ["service=naps", "session=1", "generation=1", "src/lib.rs", &format!("line={line}")] {
        assert!(warnings[0].contains(field), "{field} in {}", warnings[0]);
    }
}

/// A pass takes long although none of its callbacks does.
#[test]
fn a_pass_that_takes_long_is_named_with_its_stage() {
    let library = Fixture::new("dozes", &source("dozes", "wild", false)).build();
    let host = Host::serve_limited("dozes", &library, "stall_warn_ms = 100");
    let mut client = Client::connect(host.addr("dozes"));
    let said = "a pass of the loop has been running for";
    // A callback that the machine keeps waiting may be named in the place of its pass.
    wait_for("the pass to be named", || {
        client.send("doze\n".repeat(20));
        (0..20).for_each(|_| assert!(client.line().is_some_and(|l| l.ends_with(" doze"))));
        host.log().contains(said).then_some(())
    });
    let log = host.log();
    let warning = log.lines().find(|l| l.contains(said)).expect("a line");
    for field in ["service=dozes", "session=1", "stage=\"read\"", "(limit stall_warn_ms)"] {
        assert!(warning.contains(field), "{field} in {warning}");
    }
    host.wait_log("the pass ended after about");
    let status = host.json(&["status", "--json"]);
    assert!(status["host"]["longest_pass_ms"].as_u64() >= Some(100), "{status}");
}

#[test]
fn a_callback_that_never_returns_is_ended_and_counts_as_one_that_kills() {
    let fixture = Fixture::new("stalls", &source("stalls", "wild", false));
    let library = fixture.build();
    let host = Host::serve_limited("stalls", &library, "stall_kill_ms = 1000");
    let mut other = Client::connect(host.addr("stalls"));
    assert_eq!(other.ask("hello"), "wild 1 hello");

    let mut client = poison(&host, host.addr("stalls"), "stall");
    assert_eq!(other.ask("hello"), "wild 2 hello");
    let list = quarantined(&host);
    assert!(list.len() == 1 && list[0].1.contains("stalled for"), "{list:?}");
    host.wait_log("(limit stall_kill_ms)");
    host.wait_log("the worker died in a turn: stalled for");

    // A session that is released kills again and is blocked again; one that is closed is gone.
    let id = list[0].0.to_string();
    let before = workers_before(&host);
    assert!(host.cli(&["session", "release", &id]).status.success());
    wait_for("another death", || (workers_before(&host) > before).then_some(()));
    wait_for("quarantine", || (quarantined(&host).len() == 1).then_some(()));

    let mut second = poison(&host, host.addr("stalls"), "stall");
    let newest = quarantined(&host).into_iter().map(|(id, _)| id).max().expect("a session");
    assert!(host.cli(&["session", "close", &newest.to_string()]).status.success());
    assert_eq!(second.line(), None);
    assert_eq!(other.ask("hello"), "wild 3 hello");

    // The peer of a quarantined session may still go away.
    client.send("never run\n");
    drop(client);
    assert_eq!(other.ask("hello"), "wild 4 hello");
}

/// A host that is stopped saves and flushes, even if the last turn of some session kills.
#[test]
fn a_stop_survives_last_turns_that_kill() {
    let service = "farewell";
    let arm = "        if let Action::Closed(_) = action {\n            if turn.state.count % 2 == 0 { std::process::abort(); }\n            return Ok(());\n        }\n        if let Action::Message";
    let source = tally_source(service, "one").replacen("        if let Action::Message", arm, 1);
    let library = Fixture::new(service, &source).build();
    let mut host = Host::serve(&[service], &[&library]);
    let mut clients: Vec<_> = (0..4).map(|_| Client::connect(host.addr(service))).collect();
    for (n, c) in clients.iter_mut().enumerate() {
        for k in 0..=n {
            assert_eq!(c.ask("on"), format!("one {} on", k + 1));
        }
        c.send("half a line");
    }

    host.signal(libc::SIGTERM);
    for c in &mut clients {
        assert_eq!(c.line(), None);
    }
    assert_eq!(host.wait(), Some(0));

    assert_eq!(host.log().matches("its last turn was left out").count(), 2, "{}", host.log());
    assert!(host.runtime().join("tables.saved").exists());
}
