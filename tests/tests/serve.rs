//! The command line and the host's manners, as an operator meets them.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::{Fixture, compile_c, install, tally_source};
use greenroom_tests::host::Host;
use greenroom_tests::{built, wait_for};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

fn both() -> Host {
    Host::serve(&["echo", "tally", "chat"], &[&built("libecho.so"), &built("libchat.so")])
}

#[test]
fn nc_talks_to_the_shipped_services() {
    let host = both();
    let nc = |service: &str, input: &str| {
        let port = host.addr(service).port();
        let script = format!("printf '{input}' | nc -N 127.0.0.1 {port}");
        let out = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert!(out.status.success(), "{script}");
        String::from_utf8(out.stdout).unwrap()
    };

    assert_eq!(nc("echo", "hello\\r\\nyou\\n\\nhalf"), "hello\nyou\n\n");
    assert_eq!(nc("tally", "a\\nb\\n"), "1 a\n2 b\n");
    assert_eq!(
        nc("chat", "ann\\nhi\\n/me waves\\n/who\\n/quit\\n"),
        "Welcome to the green room. What is your nick?\n* ann is here\nann: hi\n* ann waves\n  ann\n"
    );
}

#[test]
fn people_in_the_room_hear_each_other_across_a_swap() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("libchat.so");
    install(&built("libchat.so"), &live);
    let host = Host::serve(&["chat"], &[&live]);
    let (mut ann, mut bob) = (Client::connect(host.addr("chat")), Client::connect(host.addr("chat")));
    for (peer, nick) in [(&mut ann, "ann"), (&mut bob, "bob")] {
        peer.line().unwrap();
        assert_eq!(peer.ask(nick), format!("* {nick} is here"));
    }
    assert_eq!(ann.line().unwrap(), "* bob is here");

    // The same code under another hash: an ELF file may have anything behind its end.
    let mut bytes = std::fs::read(&live).unwrap();
    bytes.extend_from_slice(b"another build");
    let next = dir.path().join("next");
    std::fs::write(&next, bytes).unwrap();
    install(&next, &live);
    host.wait_generation("chat", 2);

    assert_eq!(bob.ask("still here?"), "bob: still here?");
    assert_eq!(ann.line().unwrap(), "bob: still here?");

    drop(bob);
    assert_eq!(ann.line().unwrap(), "* bob has left");
    let dump = host.json(&["state", "dump"]);
    assert_eq!(dump["sessions"][0]["names"], json!(["ann"]));
    assert_eq!(dump["sessions"][0]["topics"], json!(["chat-room"]));
}

#[test]
fn status_sessions_and_dump_serve_programs_and_people() {
    let host = both();
    let mut peer = Client::connect(host.addr("tally"));
    peer.send("one\ntwo\nha");
    assert_eq!((peer.line(), peer.line()), (Some("1 one".into()), Some("2 two".into())));

    let status = host.json(&["status", "--json"]);
    assert_eq!(status["host"]["pid"], host.pid());
    assert!(status["host"]["version"].is_string() && status["host"]["uptime_s"].is_u64());
    let tally = host.service("tally");
    assert_eq!(
        (&tally["library"], &tally["generation"], &tally["sessions"], &tally["turns"], &tally["faults"]),
        (&json!("echo"), &json!(1), &json!(1), &json!(3), &json!(0))
    );
    assert_eq!(tally["listen"], json!([format!("tcp://{}", host.addr("tally"))]));
    assert_eq!(tally["build"].as_str().map(str::len), Some(64));

    let sessions = host.json(&["sessions", "--json"]);
    let s = &sessions[0];
    assert_eq!(
        (&s["service"], &s["turns"], &s["bytes_in"], &s["bytes_out"]),
        (&json!("tally"), &json!(3), &json!(10), &json!(12))
    );
    assert_eq!((&s["state_version"], &s["quarantined"]), (&json!(1), &Value::Null));
    let id = s["id"].to_string();

    let dump = host.json(&["state", "dump", "--service", "tally"]);
    assert_eq!((&dump["format"], &dump["tables"]), (&json!(1), &json!({})));
    assert_eq!(
        dump["services"],
        json!({"tally": {"state_version": 1, "generation": 1, "timers": [], "jobs": [], "connects": []}})
    );
    assert_eq!(dump["sessions"][0]["state"], json!({"count": 2}));
    assert_eq!(dump["sessions"][0]["input"], "ha");
    assert_eq!(host.json(&["state", "dump", "--session", &id])["sessions"], dump["sessions"]);
    greenroom_state::dump::read(&host.cli(&["state", "dump"]).stdout[..]).unwrap();

    let text = |args: &[&str]| String::from_utf8(host.cli(args).stdout).unwrap();
    for word in ["SERVICE", "GENERATION", "tally", "tcp://127.0.0.1:"] {
        assert!(text(&["status"]).contains(word), "{word}");
    }
    assert!(text(&["sessions"]).contains("tally") && text(&["sessions"]).contains("127.0.0.1:"));

    for (args, says) in [
        (&["state", "dump", "--service", "nosuch"][..], "no service is called \"nosuch\""),
        (&["state", "dump", "--session", "999"], "no session has number 999"),
        (&["reload", "nosuch"], "no service or library is called \"nosuch\"; there are: "),
    ] {
        let out = host.cli(args);
        assert_eq!(out.status.code(), Some(1));
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(said.contains(says), "{said}");
    }
}

#[test]
fn reload_waits_for_its_outcome_and_reports_it() {
    let host = both();
    let out = host.cli(&["reload"]);
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success() && said.lines().count() == 2, "{said}");
    assert!(said.lines().all(|l| l.contains("unchanged, generation 1 runs build")), "{said}");

    let report = host.json(&["reload", "echo", "--json"]);
    assert_eq!((&report["outcome"], &report["services"]), (&json!("unchanged"), &json!(["echo", "tally"])));
    assert_eq!(report["build"], host.service("echo")["build"]);

    assert_eq!(host.cli(&["reload", "--from", "/x"]).status.code(), Some(2), "--from wants a service");
}

#[test]
fn commands_without_a_host_and_a_second_host_fail() {
    let host = both();
    let other = |args: &[&str]| {
        let dir = host.dir().join("elsewhere");
        Command::new(built("greenroom")).args(args).env("GREENROOM_RUNTIME", dir).output().unwrap()
    };
    for args in [&["status"][..], &["sessions"], &["state", "dump"], &["reload"]] {
        let out = other(args);
        assert_eq!(out.status.code(), Some(3), "{args:?}");
        assert!(String::from_utf8_lossy(&out.stderr).contains("no host answers on"));
    }

    let second = host.cli(&["serve", built("libecho.so").to_str().unwrap()]);
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains(&format!("in use by the greenroom host with pid {}", host.pid())), "{said}");

    let mode = |p: &Path| p.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&host.runtime()), 0o700);
    assert_eq!(mode(&host.runtime().join("admin.sock")), 0o600);
}

#[test]
fn serve_names_a_mistake_before_it_starts() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("greenroom.toml");
    let echo = built("libecho.so");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("echo={}", port.local_addr().unwrap());

    let toml = |text: &str| std::fs::write(&config, text).unwrap();
    let serve = |args: &[&str]| {
        let mut command = Command::new(built("greenroom"));
        let out = command
            .arg("serve")
            .args(args)
            .env("GREENROOM_RUNTIME", dir.path().join("run"))
            .output()
            .unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    #[track_caller]
    fn says((code, said): (Option<i32>, String), expected: i32, text: &str) {
        assert!(code == Some(expected) && said.contains(text), "{code:?}: {said}");
    }

    let (config, echo) = (config.to_str().unwrap(), echo.to_str().unwrap());
    says(serve(&[]), 2, "nothing to serve");
    says(serve(&["--nonsense"]), 2, "--nonsense");
    says(serve(&["--listen", "echo", echo]), 2, "SERVICE=ADDRESS:PORT");
    says(serve(&["/nonexistent/libx.so"]), 1, "/nonexistent/libx.so");
    says(serve(&["--listen", &taken, echo]), 1, "service echo can't listen on tcp://127.0.0.1:");

    toml("[limits]\nsesions_max = 1\n");
    says(serve(&["-c", config, echo]), 1, "line 2");
    toml("[service.chat]\nsettings = { colour = 1 }\n");
    says(
        serve(&["-c", config, built("libchat.so").to_str().unwrap()]),
        1,
        "service chat: settings: unknown field `colour`",
    );
    toml("[service.chat]\nsettings = { nick_max = 0 }\n");
    says(serve(&["-c", config, built("libchat.so").to_str().unwrap()]), 1, "nick_max is 0");
}

#[test]
fn the_file_configures_addresses_limits_and_handlers() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("greenroom.toml");
    let text = format!(
        "handlers = [{:?}]\n[limits]\nsessions_max = 2\n[service.chat]\nlisten = [\"127.0.0.1:0\"]\n\
         settings = {{ welcome = \"Who?\", nick_max = 3 }}\n",
        built("libchat.so")
    );
    std::fs::write(&config, text).unwrap();
    let host = Host::serve_with(&[], &[], |c| _ = c.args(["-c", config.to_str().unwrap()]));

    let mut ann = Client::connect(host.addr("chat"));
    assert_eq!(ann.line().unwrap(), "Who?");
    assert_eq!(ann.ask("anna"), "! A nick is one word of up to 3 characters. Yours?");
    let mut bob = Client::connect(host.addr("chat"));
    assert_eq!(bob.line().unwrap(), "Who?");
    let mut eve = Client::connect(host.addr("chat"));
    assert_eq!(eve.line(), None, "one session too many");
    host.wait_log("limit sessions_max");
}

#[test]
fn a_panic_is_undone_counted_and_logged_with_its_place() {
    let fixture = Fixture::new("serve_panic", &tally_source("serve-panic", "one"));
    let host = Host::serve(&["serve-panic"], &[&fixture.build()]);
    let mut peer = Client::connect(host.addr("serve-panic"));
    assert_eq!(peer.ask("a"), "one 1 a");

    // In one batch: the turns around the failed one count, and it leaves no trace.
    peer.send("b\npanic\nc\npanic\npanic\nd\n");
    for answer in ["one 2 b", "one 3 c", "one 4 d"] {
        assert_eq!(peer.line().unwrap(), answer);
    }

    let service = host.service("serve-panic");
    assert_eq!((&service["faults"], &service["turns"]), (&json!(3), &json!(8)));
    assert_eq!(host.json(&["state", "dump"])["sessions"][0]["state"], json!({"count": 4}));
    host.wait_log("panic: asked to at src/lib.rs:");

    // What it logged is kept, with its session and generation, once, and marked.
    host.wait_log("about to panic count=3");
    let log = host.log();
    let said: Vec<_> = log.lines().filter(|l| l.contains("about to panic count=3")).collect();
    assert!(
        said.len() == 1
            && ["failed=true", "service=serve-panic", "session=1", "generation=1"]
                .iter()
                .all(|w| said[0].contains(w)),
        "{log}"
    );
}

#[test]
fn a_library_that_appears_in_a_directory_is_picked_up() {
    let dir = tempfile::tempdir().unwrap();
    install(&built("libecho.so"), &dir.path().join("libecho.so"));
    std::fs::write(dir.path().join("readme.so"), "not a library").unwrap();
    compile_c("upper.c", &["-DCRASH_ON_LOAD"], &dir.path().join("libcrash.so"));

    // One that can't be loaded doesn't keep the others from serving, unless it was named itself.
    let host = Host::serve(&["echo", "tally", "upper", "chat"], &[dir.path()]);
    host.wait_log("libcrash.so: refused");
    assert_eq!(Client::connect(host.addr("echo")).ask("x"), "x");

    install(&built("libchat.so"), &dir.path().join("libchat.so"));
    host.wait_log("chat: generation 1 committed");
    let listen = host.service("chat")["listen"][0].as_str().unwrap().trim_start_matches("tcp://").to_owned();
    assert!(Client::connect(listen.parse().unwrap()).line().unwrap().contains("nick?"));

    // And one that was refused, once it is mended.
    compile_c("upper.c", &[], &dir.path().join("libcrash.so"));
    host.wait_log("upper: generation 1 committed");
}

#[test]
fn a_directory_that_was_removed_is_watched_when_it_is_back() {
    let base = tempfile::tempdir().unwrap();
    let (dir, kept) = (base.path().join("release"), base.path().join("kept.so"));
    std::fs::create_dir(&dir).unwrap();
    let live = dir.join("libecho.so");
    install(&built("libecho.so"), &live);
    let host = Host::serve(&["echo", "tally"], &[&live]);
    let mut bytes = std::fs::read(&live).unwrap();
    bytes.push(0);
    std::fs::write(&kept, bytes).unwrap();

    std::fs::remove_dir_all(&dir).unwrap();
    std::fs::create_dir(&dir).unwrap();
    install(&kept, &live);

    host.wait_generation("echo", 2);
}

#[test]
fn sigterm_flushes_and_exits_with_0() {
    let mut host = both();
    let mut chat = Client::connect(host.addr("chat"));
    chat.line().unwrap();
    assert_eq!(chat.ask("ann"), "* ann is here");
    let mut echo = Client::connect(host.addr("echo"));

    // More than the kernel's buffers take: the rest must be flushed while the host stops.
    let line = "y".repeat(8000);
    let mut asked = 0;
    for _ in 0..100 {
        echo.send(format!("{line}\n"));
        asked += 1;
    }
    wait_for("all of it to be answered", || {
        (host.service("echo")["turns"].as_u64() >= Some(asked + 1)).then_some(())
    });

    host.signal(libc::SIGTERM);
    for _ in 0..asked {
        assert_eq!(echo.line().as_deref(), Some(&*line));
    }

    assert_eq!(echo.line(), None, "then the end, not a reset");
    assert_eq!(chat.line(), None);
    assert_eq!(host.wait(), Some(0));
    assert!(!host.runtime().join("admin.sock").exists());
}

#[test]
fn the_end_of_a_stream_behind_much_data_is_seen() {
    let host = both();
    // More than one read brings, and the end, all there before the host looks.
    let mut peers: Vec<_> = (0..20).map(|_| Client::connect(host.addr("echo"))).collect();
    wait_for("sessions", || (host.service("echo")["sessions"] == 20).then_some(()));

    host.signal(libc::SIGSTOP);
    let line = "z".repeat(999);
    for peer in &mut peers {
        for _ in 0..70 {
            peer.send(format!("{line}\n"));
        }
        peer.shutdown();
    }
    host.signal(libc::SIGCONT);

    for peer in &mut peers {
        for _ in 0..70 {
            assert_eq!(peer.line().as_deref(), Some(&*line));
        }
        assert_eq!(peer.line(), None);
    }

    wait_for("all of them gone", || (host.service("echo")["sessions"] == 0).then_some(()));
}

#[test]
fn urgent_data_is_read_in_order() {
    let host = both();
    let mut peer = Client::connect(host.addr("echo"));

    host.signal(libc::SIGSTOP);
    peer.send("abc\n");
    peer.send_urgent(b'!');
    peer.send("def\n");
    host.signal(libc::SIGCONT);

    assert_eq!((peer.line(), peer.line()), (Some("abc".into()), Some("!def".into())));
}

#[test]
fn serve_fails_if_a_named_library_does_not_load() {
    let dir = tempfile::tempdir().unwrap();
    let (bad, good) = (dir.path().join("libbad.so"), built("libecho.so"));
    std::fs::write(&bad, "not a library").unwrap();

    for order in [[&bad, &good], [&good, &bad]] {
        let mut command = Command::new(built("greenroom"));
        command.arg("serve").args(order).args([
            "--listen",
            "echo=127.0.0.1:0",
            "--listen",
            "tally=127.0.0.1:0",
        ]);
        let out = command.env("GREENROOM_RUNTIME", dir.path().join("run")).output().unwrap();

        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(
            out.status.code() == Some(1) && said.contains("greenroom: ") && said.contains("libbad.so: "),
            "{said}"
        );
        let last = said.lines().last().unwrap();
        assert!(last.contains("libbad.so") && last.contains("not an ELF file"), "{last}");
    }
}

#[test]
fn the_target_of_a_link_is_watched() {
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("real"), dir.path().join("libecho.so"));
    std::fs::create_dir(&real).unwrap();
    let target = real.join("echo-v1.so");
    install(&built("libecho.so"), &target);
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let host = Host::serve(&["echo", "tally"], &[&link]);

    let mut bytes = std::fs::read(&target).unwrap();
    bytes.push(0);
    let next = dir.path().join("next");
    std::fs::write(&next, bytes).unwrap();

    install(&next, &target);

    host.wait_generation("echo", 2);
}

#[test]
fn a_service_that_changes_its_name_keeps_its_port() {
    let dir = tempfile::tempdir().unwrap();
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let source =
        |service: &str| tally_source(service, "one").replace("PORT: u16 = 0", &format!("PORT: u16 = {port}"));
    let fixture = Fixture::new("serve_rename", &source("old-name"));
    let live = dir.path().join("libserve_rename.so");
    install(&fixture.build(), &live);
    let host = Host::serve(&[], &[&live]);

    fixture.write(&source("new-name"));
    install(&fixture.build(), &live);
    host.wait_log("serve_rename: generation 2 committed");

    let mut peer = Client::connect(([127, 0, 0, 1], port).into());
    assert_eq!(peer.ask("x"), "one 1 x");
    assert_eq!(host.service("new-name")["sessions"], 1);
}

#[test]
fn a_reload_that_the_hosts_stop_cuts_off_fails() {
    let fixture = Fixture::new("serve_stopped", &tally_source("serve-stopped", "one"));
    let mut host = Host::serve(&["serve-stopped"], &[&fixture.build()]);
    let hang = host.dir().join("hang.so");
    compile_c("upper.c", &["-DHANG_ON_LOAD"], &hang);

    std::thread::scope(|scope| {
        let asked = scope.spawn(|| host.cli(&["reload", "serve-stopped", "--from", hang.to_str().unwrap()]));
        wait_for("the trial", || (host.copies().len() == 2).then_some(()));

        host.signal(libc::SIGTERM);

        let out = asked.join().unwrap();
        assert_eq!(out.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&out.stderr).contains("the host stopped before the reload was done"));
    });
    assert_eq!(host.wait(), Some(0));
}

#[test]
fn sigint_ends_the_host_as_sigterm_does() {
    let mut host = both();

    host.signal(libc::SIGINT);

    assert_eq!(host.wait(), Some(0));
}

#[test]
fn sessions_are_answered_during_a_dump_of_many() {
    let host = both();
    let mut clients: Vec<_> = (0..3000).map(|_| Client::connect(host.addr("tally"))).collect();
    for c in &mut clients {
        c.send("x\n");
    }
    for c in &mut clients {
        assert_eq!(c.line().unwrap(), "1 x");
    }

    let mut peer = Client::connect(host.addr("tally"));
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let dumping = scope.spawn(|| {
            let mut dumps = Vec::new();
            while dumps.len() < 5 || !enough.load(Ordering::Relaxed) {
                dumps.push(host.json(&["state", "dump"]));
            }
            dumps
        });

        // Answered all along, while at least five dumps are taken.
        for answered in 1..=500 {
            assert_eq!(peer.ask("y"), format!("{answered} y"));
        }
        enough.store(true, Ordering::Relaxed);

        for dump in dumping.join().unwrap() {
            let sessions = dump["sessions"].as_array().unwrap();
            assert_eq!(sessions.len(), 3001);
            assert!(sessions[..3000].iter().all(|s| s["state"] == json!({"count": 1})));
        }
    });
}
