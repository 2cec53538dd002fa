//! The operator's commands: lists of sessions, messages, search, forms of tables, and what a peer's
//! or an operator's bytes do to a terminal. One host serves all of it.

use greenroom_tests::built;
use greenroom_tests::client::Client;
use greenroom_tests::host::Host;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

/// Standard output of a command that succeeds.
#[track_caller]
fn out(host: &Host, args: &[&str]) -> String {
    let out = host.cli(args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("UTF-8")
}

/// Exit code and standard error of a command that fails.
#[track_caller]
fn fails(host: &Host, args: &[&str]) -> (i32, String) {
    let out = host.cli(args);
    let code = out.status.code().filter(|code| *code != 0).unwrap_or_else(|| panic!("{args:?} succeeds"));
    (code, String::from_utf8(out.stderr).expect("UTF-8"))
}

/// Numbers of the sessions that a list has, in its order.
#[track_caller]
fn ids(host: &Host, args: &[&str]) -> Vec<u64> {
    let list = host.json(&[&["sessions", "--json"], args].concat());
    list.as_array().expect("a list").iter().map(|s| s["id"].as_u64().expect("a number")).collect()
}

/// Output with what differs from run to run replaced: times, ports, and spaces for their widths.
fn golden(text: &str) -> String {
    let word = |word: &str| {
        let is_time = word.len() == 24 && word.ends_with('Z') && word.contains('T');
        let is_pid = word.parse::<u32>().is_ok_and(|n| n > 999);
        match word.split_once(':') {
            _ if is_time => "TIME".to_owned(),
            _ if is_pid => "PID".to_owned(),
            Some((host @ "127.0.0.1", _)) => format!("{host}:PORT"),
            _ => word.to_owned(),
        }
    };
    let line = |line: &str| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ");
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Output of a command on a terminal of so many columns.
#[track_caller]
fn on_terminal(host: &Host, columns: u32, command: &str) -> String {
    let line = format!("stty cols {columns} rows 24; exec {} {command}", built("greenroom").display());
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null());
    script.env("GREENROOM_RUNTIME", host.runtime());
    let out = script.output().expect("script");
    String::from_utf8_lossy(&out.stdout).replace("\r\n", "\n")
}

fn tally(host: &Host, lines: usize) -> Client {
    let mut client = Client::connect(host.addr("tally"));
    for n in 1..=lines {
        assert_eq!(client.ask("x"), format!("{n} x"));
    }
    client
}

#[test]
fn operators_see_and_reach_sessions() {
    let host = Host::serve_with(&["echo", "tally"], &[&built("libecho.so")], |_| {});
    let mut clients: Vec<_> = (0..3).map(|n| tally(&host, n * 10)).collect();
    let mut echo = Client::connect(host.addr("echo"));
    assert_eq!(echo.ask("hello"), "hello");

    lists_are_searched_and_sorted(&host);
    tables_fit_the_terminal(&host);
    messages_reach_peers(&host, &mut clients, &mut echo);
    followers_hear_of_sessions(&host);
    rounds_follow_each_other(&host);
    sessions_are_closed_by_filter(&host, clients);
}

fn lists_are_searched_and_sorted(host: &Host) {
    assert_eq!(
        golden(&out(host, &["session", "list", "--service", "tally", "--older-than", "0s"])),
        "ID SERVICE BY PEER OPENED IDLE STATE TURNS IN OUT\n\
         1 tally line 127.0.0.1:PORT TIME 0s - 1 0 0\n\
         2 tally line 127.0.0.1:PORT TIME 0s v1 11 20 41\n\
         3 tally line 127.0.0.1:PORT TIME 0s v1 21 40 91"
    );
    assert_eq!(ids(host, &["--where", "count>=10"]), [2, 3]);
    assert_eq!(ids(host, &["--where", "count>=10", "--where", "count!=10"]), [3]);
    assert_eq!(ids(host, &["--sort", "turns"]), [3, 2, 4, 1]);
    assert_eq!(ids(host, &["--sort", "turns", "--limit", "2", "--reverse"]), [1, 4]);
    assert_eq!(ids(host, &["--peer", "127.0.0.1", "--service", "echo"]), [4]);
    assert_eq!(ids(host, &["--peer", "10.1.2.3"]), [0u64; 0]);
    assert_eq!(ids(host, &["--idle-for", "1h"]), [0u64; 0]);
    // A slip of the pen is told, and a wrong form is an error of usage.
    let slip = host.cli(&["sessions", "--where", "cuont=1"]);
    let said = String::from_utf8_lossy(&slip.stderr);
    assert_eq!((slip.status.code(), &*said), (Some(0), "greenroom: no stored state has a field cuont\n"));
    for (args, code, why) in [
        (["sessions", "--where", "count"], 2, "compares nothing"),
        (["sessions", "--where", "a..b=1"], 2, "is no path to a field; write it as"),
        (["sessions", "--sort", "size"], 2, "possible values"),
        (["sessions", "--service", "tahly"], 1, "no service is called \"tahly\"; there are: "),
    ] {
        let (found, said) = fails(host, &args);
        assert!(found == code && said.contains(why), "{args:?}: {found}: {said}");
    }
}

fn tables_fit_the_terminal(host: &Host) {
    let piped = out(host, &["history"]);
    assert!(!piped.contains("QUARANTINED") && piped.contains("BUILD ID"), "{piped}");
    assert!(out(host, &["history", "--wide"]).contains("QUARANTINED"));
    let narrow = on_terminal(host, 80, "history");
    assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
    assert!(narrow.contains("LINE") && narrow.contains("\n      ") && narrow.contains("BUILD "), "{narrow}");
    let wide = on_terminal(host, 80, "history --wide");
    assert!(wide.lines().next().is_some_and(|head| head.trim_end().len() > 150), "{wide}");
    // Columns of another terminal: nothing need be folded.
    assert_eq!(on_terminal(host, 400, "sessions").lines().count(), 5);
    let narrow = on_terminal(host, 60, "sessions");
    assert!(narrow.lines().all(|line| line.chars().count() <= 60) && narrow.lines().count() > 5, "{narrow}");
}

fn messages_reach_peers(host: &Host, clients: &mut [Client], echo: &mut Client) {
    assert_eq!(out(host, &["session", "message", "4", "Hello, you"]), "");
    assert_eq!(echo.line().as_deref(), Some("Hello, you"));
    let text = ["session", "message", "--service", "tally", "back at ten"];
    let (code, said) = fails(host, &text);
    assert!(code == 2 && said.contains("it would send the message to 3 sessions; give --yes"), "{said}");
    assert_eq!(out(host, &[&text[..], &["--yes"]].concat()), "sent to 3 sessions\n");
    for client in clients {
        assert_eq!(client.line().as_deref(), Some("back at ten"));
    }
    for (args, code, why) in [
        (&["session", "message", "99", "x"][..], 1, "no open session has number 99"),
        (&["session", "message", "x", "y"], 2, "\"x\" is no session's number"),
        (&["session", "message", "only"], 2, "name sessions by number"),
        (&["session", "message", "4", "two\nlines"], 2, "a message is one line"),
        (&["session", "close"], 2, "name sessions by number"),
        (&["session", "close", "--where", "count=77", "--yes"], 1, "no session is selected"),
    ] {
        let (found, said) = fails(host, args);
        assert!(found == code && said.contains(why), "{args:?}: {found}: {said}");
    }
}

fn followers_hear_of_sessions(host: &Host) {
    let mut follower = host.command(&["sessions", "--follow", "--service", "echo", "--json", "--watch", "0.1"]);
    let mut follower = follower.stdout(Stdio::piped()).spawn().expect("greenroom");
    let mut lines = BufReader::new(follower.stdout.take().expect("its output")).lines();
    let mut next = || -> Value {
        let line = lines.next().expect("a line").expect("UTF-8");
        serde_json::from_str(&line).expect("JSON")
    };
    let seen = next();
    assert_eq!((&seen["event"], &seen["id"]), (&json!("open"), &json!(4)));
    let client = Client::connect(host.addr("echo"));
    let seen = next();
    assert_eq!((&seen["event"], &seen["id"]), (&json!("appeared"), &json!(5)));
    drop(client);
    let seen = next();
    assert_eq!((&seen["event"], &seen["id"]), (&json!("gone"), &json!(5)));
    let pid = follower.id() as i32;
    // SAFETY: a signal to a child of this process.
    unsafe { libc::kill(pid, libc::SIGINT) };
    assert_eq!(follower.wait().expect("its end").code(), Some(0));
}

fn rounds_follow_each_other(host: &Host) {
    let mut watched = host.command(&["sessions", "--service", "echo", "--watch", "0.1"]);
    let mut watched = watched.stdout(Stdio::piped()).spawn().expect("greenroom");
    let lines = BufReader::new(watched.stdout.take().expect("its output")).lines();
    let heads = lines.map_while(Result::ok).filter(|line| line.contains("SERVICE")).take(3).count();
    assert_eq!(heads, 3);
    // Its reader is gone: it ends with the next round.
    assert_eq!(watched.wait().expect("its end").code(), Some(0));

    // On a terminal a round is drawn over the one before, and Ctrl-C leaves the terminal as it was.
    let line = format!("stty cols 70 rows 4; exec {} sessions --watch 0.1", built("greenroom").display());
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).env("GREENROOM_RUNTIME", host.runtime());
    let mut script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script");
    let mut terminal = script.stdout.take().expect("its output");
    let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
    let drawn = |seen: &[u8]| String::from_utf8_lossy(seen).matches("\u{1b}[1;1H").count();
    while drawn(&seen) < 3 {
        let n = terminal.read(&mut piece).expect("a round");
        assert!(n > 0, "it ended: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&piece[..n]);
    }
    let mut keys = script.stdin.take().expect("its input");
    std::io::Write::write_all(&mut keys, b"\x03").expect("Ctrl-C");
    terminal.read_to_end(&mut seen).expect("its end");
    assert_eq!(script.wait().expect("its end").code(), Some(0));
    let seen = String::from_utf8_lossy(&seen);
    assert!(seen.contains(" lines more") && seen.ends_with("\u{1b}[?1049l"), "{seen:?}");
}

fn sessions_are_closed_by_filter(host: &Host, mut clients: Vec<Client>) {
    assert_eq!(out(host, &["session", "close", "--where", "count>=10", "--yes"]), "closed 2 sessions\n");
    assert_eq!((clients.pop().and_then(|mut c| c.line()), clients.pop().and_then(|mut c| c.line())), (None, None));
    assert_eq!(out(host, &["session", "close", "1"]), "");
    assert_eq!(clients.pop().and_then(|mut c| c.line()), None);
    let (code, said) = fails(host, &["session", "close", "1"]);
    assert!(code == 1 && said.contains("no session has number 1"), "{said}");
}
