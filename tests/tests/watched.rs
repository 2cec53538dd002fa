//! Turns of a real host, as they are traced, recorded and replayed.

use greenroom_tests::client::Client;
use greenroom_tests::host::Host;
use greenroom_tests::{built, wait_for};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};

/// A command that watches turns, once it has begun.
struct Watch {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Watch {
    /// Starts `greenroom trace` or `record`, and waits until it says so.
    #[track_caller]
    fn begin(host: &Host, args: &[&str]) -> Watch {
        let mut child =
            host.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("greenroom");
        let mut said = BufReader::new(child.stderr.take().expect("standard error"));
        let mut line = String::new();
        said.read_line(&mut line).expect("a line");
        assert!(line.starts_with("tracing") || line.starts_with("recording"), "{args:?}: {line}");
        // Read on, so that the command can say more.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        let out = BufReader::new(child.stdout.take().expect("standard output"));
        Watch { child, out }
    }

    /// Next line of the output.
    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.out.read_line(&mut line).expect("a line") > 0, "the output has ended");
        line.trim_end().to_owned()
    }

    /// Next turn of `--json`.
    #[track_caller]
    fn turn(&mut self) -> Value {
        serde_json::from_str(&self.line()).expect("JSON")
    }

    /// Ends the command by a signal, and returns its exit code. Not by SIGINT: shells ignore it for
    /// what they run in the background, and so would the command.
    fn interrupt(mut self) -> Option<i32> {
        // SAFETY: the process is a child that was not waited for.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        self.child.wait().expect("its end").code()
    }
}

fn text(out: &Output) -> String {
    String::from_utf8_lossy(&[&out.stdout[..], &out.stderr[..]].concat()).into_owned()
}

#[test]
fn a_trace_shows_each_turn_with_its_state_and_goes_on_with_a_fresh_worker() {
    let host = Host::serve(&["tally", "echo"], &[&built("libecho.so")]);
    let mut client = Client::connect(host.addr("tally"));
    assert_eq!(client.ask("first"), "1 first");
    let id = host.json(&["sessions", "--json"])[0]["id"].to_string();
    let peer = host.json(&["sessions", "--json"])[0]["peer"].as_str().expect("a peer").to_owned();
    let mut trace = Watch::begin(&host, &["trace", &id, "--json"]);
    let mut words = Watch::begin(&host, &["trace", "--peer", &peer]);
    let mut other = Client::connect(host.addr("tally"));
    assert_eq!(other.ask("not watched"), "1 not watched");

    // One read, three turns, of which each has its own state.
    client.send("a\nb\n\x1b[2Jc\n");
    assert_eq!([(); 3].map(|()| client.line().expect("a line")), ["2 a", "3 b", "4 \x1b[2Jc"]);

    for (n, said) in [(2, "a"), (3, "b"), (4, "\u{1b}[2Jc")] {
        let turn = trace.turn();
        assert_eq!(turn["session"].to_string(), id);
        assert_eq!(
            (&turn["action"]["action"], &turn["action"]["data"]),
            (&json!("message"), &json!(said)),
            "{turn}"
        );
        assert_eq!(turn["changes"], json!([{"field": "count", "before": n - 1, "after": n}]));
        assert_eq!(turn["effects"], json!([{"effect": "send", "data": format!("{n} {said}\n")}]));
        assert_eq!((&turn["outcome"], &turn["generation"]), (&json!("applied"), &json!(1)));
        assert!(turn["took_us"].as_f64().expect("a time") > 0.0);
        assert_eq!(turn["build"], host.service("tally")["build"]);
    }
    // For people: no control character of the peer reaches the terminal.
    let shown: Vec<_> = (0..9).map(|_| words.line()).collect();
    assert!(shown[6].ends_with(r#"message "\u{1b}[2Jc""#), "{shown:?}");
    assert_eq!(shown[7..], ["  count: 3 -> 4", r#"  send "4 \u{1b}[2Jc\n""#]);

    // A fresh worker serves, and the watch goes on with it.
    host.kill_worker();
    let mut seen = 4;
    let turn = wait_for("a turn of the fresh worker", || {
        seen += 1;
        assert_eq!(client.ask("d"), format!("{seen} d"));
        let fds = &mut [libc::pollfd {
            fd: std::os::fd::AsRawFd::as_raw_fd(trace.out.get_ref()),
            events: libc::POLLIN,
            revents: 0,
        }];
        // SAFETY: the array has one item.
        let ready = !trace.out.buffer().is_empty() || unsafe { libc::poll(fds.as_mut_ptr(), 1, 50) } > 0;
        ready.then(|| trace.turn())
    });
    assert_eq!(turn["action"]["data"], "d");
    client.shutdown();
    // The end of the session ends the trace.
    let last = std::iter::from_fn(|| {
        let mut line = String::new();
        (trace.out.read_line(&mut line).expect("a line") > 0).then_some(line)
    })
    .last();
    let last: Value = serde_json::from_str(&last.expect("a last turn")).expect("JSON");
    assert_eq!(last["action"]["action"], "closed");
    assert_eq!(trace.child.wait().expect("its end").code(), Some(0));
}

/// A reader that stands still is told what it missed, and nobody waits for it.
#[test]
fn a_trace_is_bounded_and_refused_in_words() {
    let limits = "watchers_max = 1\nwatcher_bytes_max = 20000";
    let host = Host::serve_limited("tally", &built("libecho.so"), limits);
    let mut client = Client::connect(host.addr("tally"));
    let mut trace = Watch::begin(&host, &["trace", "--service", "tally", "--json"]);
    let refused = host.cli(&["trace", "--service", "tally"]);
    assert!(refused.status.code() == Some(1) && text(&refused).contains("limit watchers_max"), "{refused:?}");
    client.send("x\n".repeat(500));
    for n in 1..=500 {
        assert_eq!(client.line().expect("a line"), format!("{n} x"));
    }
    let (mut turns, mut left_out) = (0, 0);
    while turns + left_out < 500 {
        let line = trace.turn();
        left_out += line["left_out"].as_u64().unwrap_or(0);
        turns += u64::from(line["turn"].is_u64());
    }
    assert!(left_out > 0 && turns > 0, "{turns} {left_out}");
    let reached = host.json(&["status", "--json"])["host"]["limits"].clone();
    assert!(reached["watcher_bytes_max"].as_u64() > Some(0), "{reached}");
    assert_eq!(reached["watchers_max"], 1);
    // Its place is free as soon as it is gone.
    trace.interrupt();
    wait_for("a place", || {
        let out = host.cli(&["trace", "--service", "tally", "--for", "1ms"]);
        out.status.success().then_some(())
    });
    for (args, code, why) in [
        (&["trace"][..], 2, "what shall be traced?"),
        (&["trace", "99"], 1, "no session has number 99"),
        (&["trace", "--service", "nobody"], 1, "there are: echo, tally"),
        (&["trace", "--peer", "nowhere"], 2, "an IP address is wanted"),
        (&["record", "-o", "x"], 2, "what shall be recorded?"),
    ] {
        let out = host.cli(args);
        assert!(out.status.code() == Some(code) && text(&out).contains(why), "{args:?}: {}", text(&out));
    }
}

/// Records what `talk` makes of a service, and returns the file.
fn record(host: &Host, more: &[&str], talk: impl FnOnce()) -> PathBuf {
    let file = host.dir().join(format!("recording-{}.gz", more.len()));
    let args = [&["record", "-o", file.to_str().expect("text")], more].concat();
    let recording = Watch::begin(host, &args);
    talk();
    assert_eq!(recording.interrupt(), Some(0));
    file
}

fn replay(host: &Host, file: &Path, more: &[&str]) -> (Option<i32>, Value) {
    let library = built("libchat.so");
    let args =
        ["replay", file.to_str().expect("text"), "--handler", library.to_str().expect("text"), "--json"];
    let out = host.cli(&[&args[..], more].concat());
    (out.status.code(), serde_json::from_slice(&out.stdout).unwrap_or_else(|_| json!(text(&out))))
}

/// Settings that change the first line which a peer reads.
const OTHER: &str = "[service.chat]\nsettings = { welcome = \"Who is there?\" }\n";

#[test]
fn a_recording_is_replayed_and_a_reload_can_depend_on_it() {
    let library = built("libchat.so");
    let config = std::env::temp_dir().join(format!("greenroom-watched-{}.toml", std::process::id()));
    std::fs::write(&config, "").expect("a configuration");
    let host = Host::serve_with(&["chat"], &[&library], |c| {
        c.arg("--no-watch").arg("--config").arg(&config);
    });
    let mut first = Client::connect(host.addr("chat"));
    assert!(first.line().expect("a line").starts_with("Welcome"));
    let talk = || {
        assert_eq!(first.ask("annabel"), "* annabel is here");
        let mut second = Client::connect(host.addr("chat"));
        assert!(second.line().expect("a line").starts_with("Welcome"));
        assert_eq!(second.ask("robert"), "* robert is here");
        assert_eq!(second.ask("a word"), "robert: a word");
        let heard = [(); 2].map(|()| first.line().expect("a line"));
        assert_eq!(heard, ["* robert is here", "robert: a word"]);
    };
    let file = record(&host, &["--service", "chat", "--redact", "nick,password"], talk);

    // The same build: no difference, although the nick was replaced wherever it occurs.
    let (code, same) = replay(&host, &file, &[]);
    assert_eq!((code, &same["differing"]), (Some(0), &json!(0)), "{same}");
    assert!(same["replayed"].as_u64() >= Some(4), "{same}");

    // Other settings: exactly the turns that greet.
    std::fs::write(&config, OTHER).expect("a configuration");
    let (code, differs) = replay(&host, &file, &["-c", config.to_str().expect("text")]);
    assert_eq!((code, &differs["differing"]), (Some(1), &json!(1)), "{differs}");
    let found = &differs["differences"][0];
    assert_eq!((&found["action"], &found["field"]), (&json!("opened"), &json!("effects.0.data")));
    assert_eq!(found["candidate"], "Who is there?\n");
    let allow = ["-c", config.to_str().expect("text"), "--allow", "chat:effects.*.data"];
    assert_eq!(replay(&host, &file, &allow).0, Some(0));

    // A condition of a reload: another file of the same code, under the new settings.
    let newer = host.dir().join("newer.so");
    let bytes = [std::fs::read(&library).expect("a library"), vec![0]].concat();
    std::fs::write(&newer, bytes).expect("a library");
    let reload = |more: &[&str]| {
        let args = ["reload", "chat", "--from", newer.to_str().expect("text")];
        let against = ["--against", file.to_str().expect("text")];
        host.cli(&[&args[..], &against, more].concat())
    };
    assert!(host.cli(&["reload", "--config"]).status.success());
    let generation = host.generation("chat");
    let refused = reload(&[]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let why = text(&refused);
    assert!(why.contains("against the recording: ") && why.contains("(opened): effects.0.data"), "{why}");
    assert_eq!(host.generation("chat"), generation);
    let taken = reload(&["--allow", "effects.0.data"]);
    assert!(taken.status.success(), "{}", text(&taken));
    assert_eq!(host.generation("chat"), generation + 1);
    let _ = std::fs::remove_file(&config);
}

/// A recording whose writer was killed counts as far as it goes; other files are refused in words.
#[test]
fn a_file_that_is_no_whole_recording_is_told() {
    let host = Host::serve(&["chat"], &[&built("libchat.so")]);
    let mut client = Client::connect(host.addr("chat"));
    client.line().expect("a welcome");
    let file = record(&host, &["--service", "chat"], || {
        for n in 0..50 {
            client.send(format!("n{n} {}\n", "x".repeat(n)));
            client.line().expect("a line");
        }
    });
    let whole = std::fs::read(&file).expect("a recording");
    let cut = host.dir().join("cut.gz");
    std::fs::write(&cut, &whole[..whole.len() - 20]).expect("a file");
    let out = host.cli(&[
        "replay",
        cut.to_str().expect("text"),
        "--handler",
        built("libchat.so").to_str().expect("text"),
    ]);
    assert!(text(&out).contains("ends in the middle"), "{}", text(&out));
    std::fs::write(&cut, "not gzip").expect("a file");
    let (code, why) = replay(&host, &cut, &[]);
    assert!(code == Some(1) && why.to_string().contains("it is no recording of greenroom"), "{why}");
    let (code, why) = replay(&host, Path::new("/nowhere"), &[]);
    assert!(code == Some(1) && why.to_string().contains("/nowhere"), "{why}");
}
