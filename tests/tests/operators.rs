//! The operator's commands: lists of sessions, messages, search, states and entries that are looked
//! at and changed by hand, and forms of tables on a terminal. One host serves all of it.

use greenroom_tests::client::Client;
use greenroom_tests::host::Host;
use greenroom_tests::{built, wait_for};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

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
        let (word, comma) = word.strip_suffix(',').map_or((word, ""), |word| (word, ","));
        let is_time = word.len() == 24 && word.ends_with('Z') && word.contains('T');
        let is_seconds = word.strip_suffix('s').is_some_and(|n| n.parse::<u32>().is_ok());
        let masked = match word.split_once(':') {
            _ if is_time => "TIME",
            _ if is_seconds => "Ns",
            Some(("127.0.0.1", _)) => "PEER",
            _ => word,
        };
        format!("{masked}{comma}")
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
    top_is_drawn_and_hears_keys(&host);
    states_are_shown_edited_and_undone(&host, &mut clients);
    dumps_select_stream_and_differ(&host);
    entries_are_put_scanned_and_undone(&host);
    no_byte_of_a_value_reaches_a_terminal_as_it_is(&host);
    what_is_dumped_edited_and_restored_is_dumped_again(&host);
    sessions_are_closed_by_filter(&host, clients);
}

/// Runs `state edit` with a program in the place of an editor.
fn edit(host: &Host, id: u64, editor: &str) -> (Option<i32>, String, String) {
    edit_by(host, &["state", "edit", "--yes", &id.to_string()], editor)
}

fn edit_by(host: &Host, args: &[&str], editor: &str) -> (Option<i32>, String, String) {
    let mut command = host.command(args);
    let out = command.env("VISUAL", editor).stdin(Stdio::null()).output().expect("greenroom");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (out.status.code(), text(out.stdout), text(out.stderr))
}

fn states_are_shown_edited_and_undone(host: &Host, clients: &mut [Client]) {
    let shown = out(host, &["state", "show", "2"]);
    assert_eq!(
        golden(&shown),
        "session 2 of tally, PEER, opened TIME, state v1\n{\n\"count\": 10\n}",
        "{shown}"
    );
    assert_eq!(out(host, &["state", "show", "2", "count"]), "10\n");
    assert!(fails(host, &["state", "show", "2", "nick"]).1.contains("has no field nick"));
    assert!(fails(host, &["state", "show", "2", "a["]).1.contains("is no path to a field"));

    // Without a terminal nobody can say yes.
    let (code, _, said) = edit_by(host, &["state", "edit", "2"], "sed -i s/10/60/");
    let kept = said.rsplit_once("kept in ").and_then(|(_, rest)| rest.lines().next());
    assert!(code == Some(2) && said.contains("give --yes"), "{said}");
    std::fs::remove_file(kept.expect("a draft")).expect("the draft");
    // A reader that is gone changes no verdict.
    for (args, code) in [(&["state", "set", "2", "nosuch=1"][..], 1), (&["status"], 0)] {
        let mut child =
            host.command(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("greenroom");
        drop(child.stdout.take());
        assert_eq!(child.wait().expect("its end").code(), Some(code), "{args:?}");
    }
    // What does not go together is wrong usage, and changes nothing.
    for args in [
        &["reload", "--all", "--canary", "5%"][..],
        &["reload", "--all", "--sessions", "2"],
        &["reload", "--all", "--against", "/nowhere"],
        &["reload", "--config", "--where", "count=10"],
        &["state", "set", "2", "count=18446744073709551616"],
        &["table", "put", "prices", "apple", "-18446744073709551616"],
        &["reload", "echo", "--against", "/nowhere", "--canary", "5%"],
    ] {
        assert_eq!(fails(host, args).0, 2, "{args:?}");
    }

    let (code, told, _) = edit(host, 2, "sed -i s/10/50/");
    assert!(
        code == Some(0) && told.starts_with("  count: 10 -> 50\nstate of session 2 set: count, pause "),
        "{told}"
    );
    assert_eq!(clients[1].ask("x"), "51 x");
    // Its peer has spoken since: what its turn wrote stays.
    let (code, said) = fails(host, &["undo"]);
    let refused = host.cli(&["undo"]);
    let words = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(
        code == 1
            && said.is_empty()
            && words.contains("session 2: its state is another one by now; it has run 1 turns since"),
        "{words}"
    );

    // An editor that takes its time, and a peer that speaks meanwhile.
    let slow = format!("{} state set 2 count=60 >/dev/null; sed -i s/51/70/", built("greenroom").display());
    let (code, told, said) = edit(host, 2, &slow);
    assert_eq!(code, Some(1), "{told}{said}");
    assert!(told.contains("session 2 stores another state than the one that was shown"), "{told}");
    let kept = said.split("is kept in ").nth(1).expect("a path").trim();
    assert!(std::fs::read_to_string(kept).is_ok_and(|text| text.contains("70")));
    std::fs::remove_file(kept).expect("the draft");
    // The last change is the one by `set`, and is undone; a second undo takes that back. The worker
    // that made it is gone by then.
    host.kill_worker();
    assert!(out(host, &["undo"]).contains(" undone: 1 sessions, pause "));
    assert_eq!(out(host, &["state", "show", "2", "count"]), "51\n");
    assert!(out(host, &["undo"]).contains(" undone: 1 sessions, pause "));
    assert_eq!(clients[1].ask("x"), "61 x");

    for (editor, why) in [
        ("sed -i s/61/true/", "field count: expected integer, found true"),
        ("sed -i s/count/cuont/", "field cuont: unknown; there are: count"),
        ("sed -i s/61/{/", "it is no JSON"),
        ("false", "the editor false ended with exit status: 1: nothing was stored"),
    ] {
        let (code, told, said) = edit(host, 2, editor);
        assert!(code == Some(1) && format!("{told}{said}").contains(why), "{editor}: {told}{said}");
    }
    for file in std::fs::read_dir(std::env::temp_dir()).expect("its files").flatten() {
        if file.file_name().to_string_lossy().starts_with("greenroom-state-2-") {
            std::fs::remove_file(file.path()).expect("a draft");
        }
    }
    assert_eq!(edit(host, 2, "true").2, "greenroom: nothing was changed\n");
}

fn dumps_select_stream_and_differ(host: &Host) {
    let sessions = |args: &[&str]| -> Vec<Value> {
        let dump = host.json(&[&["state", "dump"], args].concat());
        dump["sessions"].as_array().expect("sessions").iter().map(|s| s["id"].clone()).collect()
    };
    assert_eq!(sessions(&["--service", "tally", "--where", "count>=20"]), [2, 3]);
    assert_eq!(sessions(&["--session", "1", "--session", "3"]), [1, 3]);
    assert_eq!(sessions(&["--younger-than", "0s"]), [0u64; 0]);
    assert!(fails(host, &["state", "dump", "--session", "77"]).1.contains("no session has number 77"));

    let before = host.dir().join("before.ndjson");
    let lines = out(host, &["state", "dump", "--ndjson"]);
    std::fs::write(&before, &lines).expect("a file");
    let before = before.to_str().expect("UTF-8");
    let kinds: Vec<_> = lines.lines().map(|l| l.split('"').nth(1).expect("a kind").to_owned()).collect();
    assert_eq!(kinds, ["dump", "session", "session", "session", "session", "end"]);
    assert_eq!(out(host, &["state", "diff", before]), "");
    out(host, &["state", "set", "3", "count=5"]);
    assert_eq!(out(host, &["state", "diff", before]), "session 3 of tally: changed\n  count: 20 -> 5\n");
    assert_eq!(host.cli(&["state", "diff", "--exit-code", before]).status.code(), Some(1));
    // A line that is left out, and a part that is cut off.
    let only = lines.lines().filter(|l| !l.contains("\"id\":2")).collect::<Vec<_>>().join("\n") + "\n";
    let file = host.dir().join("only.ndjson");
    std::fs::write(&file, &only).expect("a file");
    let name = file.to_str().expect("UTF-8");
    assert!(out(host, &["state", "restore", name]).contains("sessions: 1 changed, 2 unchanged, 0 gone"));
    assert_eq!(out(host, &["state", "show", "3", "count"]), "20\n");
    std::fs::write(&file, only.rsplit_once("{\"end\"").expect("an end").0).expect("a file");
    let cut = host.cli(&["state", "restore", name]);
    assert_eq!(cut.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&cut.stdout).contains("the dump was cut off"));
    assert!(out(host, &["state", "diff", before, before]).is_empty());
}

fn entries_are_put_scanned_and_undone(host: &Host) {
    assert!(fails(host, &["table", "get", "t", "k"]).1.contains("no table is called \"t\"; there are: none"));
    for (key, value) in
        [("a.1", "{\"n\": 1}"), ("a.2", "{\"n\": 2}"), ("b", "-7"), ("{\"$b64\": \"/w==\"}", "text")]
    {
        out(host, &["table", "put", "--new", "t", key, value]);
    }
    assert_eq!(
        out(host, &["table", "scan", "t"]),
        "\"a.1\" {\"n\":1}\n\"a.2\" {\"n\":2}\n\"b\" -7\n{\"$b64\":\"/w==\"} \"text\"\n"
    );
    assert_eq!(out(host, &["table", "scan", "t", "--prefix", "a.", "--where", "n>1"]), "\"a.2\" {\"n\":2}\n");
    assert_eq!(out(host, &["table", "scan", "t", "--from", "a.2", "--limit", "2"]).lines().count(), 2);
    assert_eq!(out(host, &["table", "get", "t", "b"]), "-7\n");
    assert_eq!(golden(&out(host, &["table", "ls"])), "TABLE ENTRIES BYTES\nt 4 22");
    let told = out(host, &["table", "put", "t", "b", "8", "--ttl", "1h"]);
    assert!(told.starts_with("table t, entries \"b\" changed: 1 entries put, 0 deleted, pause "), "{told}");
    assert!(host.json(&["table", "get", "t", "b", "--json"])["until_ms"].is_u64());
    assert!(out(host, &["undo"]).contains("undone: 0 sessions, 1 entries put, 0 deleted"));
    assert_eq!(host.json(&["table", "get", "t", "b", "--json"]), json!({"key": "b", "value": -7}));
    out(host, &["table", "del", "t", "a.1", "b"]);
    assert!(fails(host, &["table", "get", "t", "b"]).1.contains("table t has no key \"b\""));
    assert!(fails(host, &["table", "del", "t", "b"]).1.contains("table t has none of these keys"));
    assert!(out(host, &["undo"]).contains("2 entries put, 0 deleted"));
    assert_eq!(out(host, &["table", "scan", "t"]).lines().count(), 4);
    out(host, &["table", "del", "t", "a.1", "a.2", "b", "{\"$b64\": \"/w==\"}"]);
    assert_eq!(golden(&out(host, &["table", "ls"])), "TABLE OWNER VERSION ENTRIES BYTES OLDER");
    let history = out(host, &["history", "--wide"]);
    assert!(
        history.contains("table t, entries \"a.1\", \"b\" changed: 0 entries put, 2 deleted"),
        "{history}"
    );
    assert!(history.contains("change of line ") && history.contains(" undone: "), "{history}");
}

/// Property: a dump that was edited and restored is what is dumped then, and an undo brings back
/// the dump before. Over random states and entries, in both forms of a dump.
fn what_is_dumped_edited_and_restored_is_dumped_again(host: &Host) {
    let contents = || {
        let dump = host.json(&["state", "dump"]);
        let states: Vec<_> =
            dump["sessions"].as_array().expect("sessions").iter().map(|s| s["state"].clone()).collect();
        json!([states, dump["tables"]])
    };
    let mut seed = 7u64;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) % below
    };
    let file = host.dir().join("edited");
    let name = file.to_str().expect("UTF-8");
    for round in 0..6 {
        let before = contents();
        let mut dump = host.json(&["state", "dump"]);
        for session in dump["sessions"].as_array_mut().expect("sessions").iter_mut() {
            if session["service"] == "tally" && random(2) == 0 {
                (session["state"], session["state_version"]) =
                    (json!({"count": random(1 << 31) << random(33)}), json!(1));
            }
        }
        let entries: Vec<_> = (0..random(5))
            .map(|n| json!({"key": format!("k{n}"), "value": {"r": random(1000), "x.y": [n]}}))
            .collect();
        dump["tables"]["random"] = json!(entries);
        let edited = json!([
            dump["sessions"]
                .as_array()
                .expect("sessions")
                .iter()
                .map(|s| s["state"].clone())
                .collect::<Vec<_>>(),
            match dump["tables"]["random"].as_array().is_some_and(|t| !t.is_empty()) {
                true => dump["tables"].clone(),
                false => json!({}),
            }
        ]);
        std::fs::write(&file, dump.to_string()).expect("a file");
        out(host, &["state", "restore", name]);
        assert_eq!(contents(), edited, "round {round}");
        if edited != before {
            // What comes back is what was there, and forwards again from its own lines.
            let lines = out(host, &["state", "dump", "--ndjson"]);
            out(host, &["undo"]);
            assert_eq!(contents(), before, "round {round}");
            std::fs::write(&file, lines).expect("a file");
            out(host, &["state", "restore", name]);
        }
        if !entries.is_empty() {
            assert_eq!(contents(), edited, "round {round}");
        }
    }
    for (id, count) in [("1", "count=1"), ("2", "count=100"), ("3", "count=100")] {
        out(host, &["state", "set", id, count]);
    }
}

fn lists_are_searched_and_sorted(host: &Host) {
    assert_eq!(
        golden(&out(host, &["session", "list", "--service", "tally", "--older-than", "0s"])),
        "ID SERVICE BY PEER OPENED IDLE STATE TURNS IN OUT\n\
         1 tally line PEER TIME Ns - 1 0 0\n\
         2 tally line PEER TIME Ns v1 11 20 41\n\
         3 tally line PEER TIME Ns v1 21 40 91"
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
    let dry = host.cli(&[&text[..], &["--dry-run"]].concat());
    let said = String::from_utf8_lossy(&dry.stderr).into_owned();
    assert!(said.contains("it would send the message to 3 sessions; nothing was done"), "{said}");
    assert_eq!(String::from_utf8_lossy(&dry.stdout).lines().count(), 4, "{dry:?}");
    let close = host.json(&["session", "close", "--where", "count>=10", "--dry-run", "--json"]);
    assert_eq!(close.as_array().map(Vec::len), Some(2), "{close}");
    assert_eq!(out(host, &[&text[..], &["--yes"]].concat()), "sent to 3 sessions\n");
    for client in clients {
        assert_eq!(client.line().as_deref(), Some("back at ten"));
    }
    for (args, code, why) in [
        (&["session", "message", "99", "x"][..], 1, "no open session has number 99"),
        (&["session", "message", "x", "y"], 2, "\"x\" is no session's number"),
        (&["session", "message", "only"], 2, "name sessions by number"),
        (&["session", "message", "4"], 2, "what is session 4 to be sent?"),
        (&["table", "put", "t", "key", "1", "--ttl", "0s"], 2, "an entry without a life is over at once"),
        (&["session", "message", "4", "two\nlines"], 2, "a message is one line"),
        (&["session", "close"], 2, "name sessions by number"),
        (&["session", "close", "--where", "count=77", "--yes"], 1, "no session is selected"),
    ] {
        let (found, said) = fails(host, args);
        assert!(found == code && said.contains(why), "{args:?}: {found}: {said}");
    }
}

fn followers_hear_of_sessions(host: &Host) {
    let mut follower =
        host.command(&["sessions", "--follow", "--service", "echo", "--json", "--watch", "0.1"]);
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
    let mut watched = Terminal::run(host, (70, 4), "sessions --watch 0.1");
    watched.wait("\u{1b}[1;1H", 3);
    watched.press(b"\x03");
    let seen = watched.ends();
    assert!(seen.contains(" lines more") && seen.ends_with("\u{1b}[?1049l"), "{seen:?}");
}

/// A program on a terminal of its own, with its keys and what it has drawn.
struct Terminal {
    script: Child,
    keys: ChildStdin,
    drawn: ChildStdout,
    seen: Vec<u8>,
}

impl Terminal {
    fn run(host: &Host, (columns, rows): (u32, u32), command: &str) -> Terminal {
        let greenroom = built("greenroom");
        let line = format!("stty cols {columns} rows {rows}; exec {} {command}", greenroom.display());
        let mut script = Command::new("script");
        script
            .args(["-qec", &line, "/dev/null"])
            .env("GREENROOM_RUNTIME", host.runtime())
            .env("TERM", "xterm");
        let mut script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script");
        let (keys, drawn) =
            (script.stdin.take().expect("its input"), script.stdout.take().expect("its output"));
        Terminal { script, keys, drawn, seen: Vec::new() }
    }

    /// Reads until a text was drawn so often.
    #[track_caller]
    fn wait(&mut self, text: &str, times: usize) {
        let mut piece = [0; 4096];
        while String::from_utf8_lossy(&self.seen).matches(text).count() < times {
            let n = self.drawn.read(&mut piece).expect("a piece");
            assert!(n > 0, "it ended without {text:?}: {}", String::from_utf8_lossy(&self.seen));
            self.seen.extend_from_slice(&piece[..n]);
        }
    }

    fn press(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).expect("keys");
    }

    /// Waits for the end, and returns all that was drawn.
    #[track_caller]
    fn ends(mut self) -> String {
        self.drawn.read_to_end(&mut self.seen).expect("its end");
        assert_eq!(self.script.wait().expect("its end").code(), Some(0));
        String::from_utf8_lossy(&self.seen).into_owned()
    }
}

fn top_is_drawn_and_hears_keys(host: &Host) {
    let mut top = Terminal::run(host, (120, 45), "top");
    // Only what changes is drawn, and no space between two words.
    for word in ["SERVICE", "P99", "slowest", "largest"] {
        top.wait(word, 1);
    }
    // Turns between two samples show their kind, however the samples fall: some run in each.
    let (stop, at) = (AtomicBool::new(false), host.addr("tally"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = Client::connect(at);
            (1..).take_while(|_| !stop.load(Relaxed)).for_each(|n: u64| {
                assert_eq!(client.ask("x"), format!("{n} x"));
            });
        });
        top.wait("message", 1);
        stop.store(true, Relaxed);
    });
    wait_for("the end of that session", || (ids(host, &[]).len() == 4).then_some(()));
    top.press(b"s");
    top.wait("turns/s ", 1);
    top.press(b"q");
    assert!(top.ends().contains("\u{1b}[?1049l"));
    let (code, said) = fails(host, &["top"]);
    assert!(code == 2 && said.contains("wants a terminal"), "{said}");
}

/// Escape sequences, C1 controls, marks of direction and invisible tags, in keys and values.
fn no_byte_of_a_value_reaches_a_terminal_as_it_is(host: &Host) {
    let evil = "\u{1b}]0;x\u{7}\u{9b}2J\u{202e}\u{61c}\u{e0041}\r";
    let value = json!({"text": evil, evil: 1}).to_string();
    out(host, &["table", "put", "--new", "t", evil, &value]);
    let dump = host.dir().join("evil");
    std::fs::write(&dump, out(host, &["state", "dump"])).expect("a file");
    out(host, &["table", "put", "t", evil, "1"]);
    let is_unsafe = |c: char| c.is_control() && c != '\n' || "\u{202e}\u{61c}\u{e0041}".contains(c);
    for args in [
        &["table", "scan", "t"][..],
        &["table", "scan", "t", "--json"],
        &["table", "get", "t", evil],
        &["state", "dump"],
        &["state", "dump", "--ndjson"],
        &["state", "diff", dump.to_str().expect("UTF-8")],
        &["state", "diff", "--json", dump.to_str().expect("UTF-8")],
        &["history"],
        &["history", "--json"],
    ] {
        let text = out(host, args);
        assert!(!text.contains(is_unsafe), "{args:?}: {text:?}");
        assert!(
            text.contains("u{1b}]0;x") || text.contains("\\u001b]0;x") || args[1] == "get",
            "{args:?}: {text:?}"
        );
    }
    for args in [
        ["table", "get", "t", "\u{1b}[2J"],
        ["session", "message", "77", evil],
        ["sessions", "--service", evil, "--json"],
    ] {
        let (_, said) = fails(host, &args);
        assert!(!said.contains(is_unsafe), "{args:?}: {said:?}");
    }
    assert!(!host.log().contains(is_unsafe));
    out(host, &["table", "del", "t", evil]);
}

fn sessions_are_closed_by_filter(host: &Host, mut clients: Vec<Client>) {
    assert_eq!(out(host, &["session", "close", "--where", "count>=10", "--yes"]), "closed 2 sessions\n");
    assert_eq!(
        (clients.pop().and_then(|mut c| c.line()), clients.pop().and_then(|mut c| c.line())),
        (None, None)
    );
    assert_eq!(out(host, &["session", "close", "1"]), "");
    assert_eq!(clients.pop().and_then(|mut c| c.line()), None);
    let (code, said) = fails(host, &["session", "close", "1"]);
    assert!(code == 1 && said.contains("session"), "{said}");
}
