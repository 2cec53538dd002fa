//! Output of the commands, word by word, against `tests/fixtures/output`. One host serves all of
//! it, with real sessions.
//!
//! A transcript has each command, what it printed, standard error behind `! `, and an exit code
//! that is not 0. Words that differ from run to run (times, ports, processes, hashes) are replaced,
//! and runs of spaces are two. `GREENROOM_GOLDEN=write cargo test -p greenroom-tests --test golden`
//! writes the files anew.

use greenroom_tests::client::Client;
use greenroom_tests::host::Host;
use greenroom_tests::{built, root, wait_for};
use std::fmt::Write;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Units of times that stand behind a number.
const UNITS: [&str; 5] = ["ns", "us", "µs", "ms", "s"];

/// Transcript of commands against a host.
struct Transcript<'h> {
    host: &'h Host,
    text: String,
}

impl<'h> Transcript<'h> {
    fn of(host: &'h Host) -> Transcript<'h> {
        Transcript { host, text: String::new() }
    }

    /// Runs a command, and writes down what it printed.
    fn run(&mut self, args: &[&str]) -> Output {
        let out = self.host.cli(args);
        self.note(args, "", &out);
        out
    }

    /// Runs a command on a terminal of so many columns, and writes down what it printed.
    fn run_on_terminal(&mut self, columns: u32, args: &[&str]) {
        let program = built("greenroom");
        let line = format!("stty cols {columns} rows 24; exec {} {}", program.display(), args.join(" "));
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null());
        script.env("GREENROOM_RUNTIME", self.host.runtime()).env("TERM", "xterm");
        let mut out = script.output().expect("script");
        out.stdout.retain(|byte| *byte != b'\r');
        let widest = String::from_utf8_lossy(&out.stdout).lines().map(|l| l.chars().count()).max();
        assert!(widest <= Some(columns as usize), "{args:?}: a line is wider than {columns} columns");
        self.note(args, &format!(" (on {columns} columns)"), &out);
    }

    /// Writes down what a command printed.
    fn note(&mut self, args: &[&str], how: &str, out: &Output) {
        let quoted =
            |arg: &&str| if arg.contains([' ', '"', '{']) { format!("'{arg}'") } else { (*arg).to_owned() };
        let args: Vec<_> = args.iter().map(quoted).collect();
        let _ = writeln!(self.text, "$ greenroom {}{how}", args.join(" "));
        for line in String::from_utf8_lossy(&out.stdout).lines() {
            // A slow machine reaches some limits.
            if !line.starts_with("limits reached so often:") {
                let _ = writeln!(self.text, "{line}");
            }
        }
        for line in String::from_utf8_lossy(&out.stderr).lines() {
            let _ = writeln!(self.text, "! {line}");
        }
        if let Some(code @ 1..) = out.status.code() {
            let _ = writeln!(self.text, "exit code {code}");
        }
        self.text.push('\n');
    }

    /// Compares the transcript with the file of this name, or writes the file.
    #[track_caller]
    fn check(self, name: &str) {
        let dir = self.host.dir().to_string_lossy().into_owned();
        let build_dir = greenroom_tests::build_dir().to_string_lossy().into_owned();
        let text = self.text.replace(&dir, "DIR").replace(&build_dir, "BUILT");
        let text = text.replace(&*root().to_string_lossy(), "ROOT");
        let found: String = text.lines().map(|line| masked(line) + "\n").collect();
        let file = root().join("tests/fixtures/output").join(name);
        if std::env::var_os("GREENROOM_GOLDEN").is_some() {
            std::fs::write(&file, &found).expect("the file can be written");
        }
        let wanted = std::fs::read_to_string(&file).unwrap_or_default();
        if found != wanted {
            panic!(
                "the output is another one than {name} has (GREENROOM_GOLDEN=write writes it anew):\n{}",
                difference(&wanted, &found)
            );
        }
    }
}

/// Lines that two texts do not share, with a sign each, around the first difference.
fn difference(wanted: &str, found: &str) -> String {
    let (wanted, found): (Vec<_>, Vec<_>) = (wanted.lines().collect(), found.lines().collect());
    let same = wanted.iter().zip(&found).take_while(|(a, b)| a == b).count();
    let end = wanted[same..].iter().rev().zip(found[same..].iter().rev()).take_while(|(a, b)| a == b).count();
    let part = |lines: &[&str], sign| -> String {
        lines[same..lines.len() - end].iter().map(|line| format!("{sign} {line}\n")).collect()
    };
    let before: String =
        found[same.saturating_sub(3)..same].iter().map(|line| format!("  {line}\n")).collect();
    before + &part(&wanted, '-') + &part(&found, '+')
}

/// Line whose words that differ from run to run are replaced.
fn masked(line: &str) -> String {
    let indent = line.len() - line.trim_start().len();
    let mut text = line[..indent].to_owned();
    let mut words = Vec::new();
    let mut rest = line[indent..].trim_end();
    while !rest.is_empty() {
        let end = rest.find(' ').unwrap_or(rest.len());
        let spaces = rest[end..].len() - rest[end..].trim_start().len();
        words.push((&rest[..end], spaces.min(2)));
        rest = &rest[end + spaces..];
    }
    let mut n = 0;
    while n < words.len() {
        let (word, mut spaces) = words[n];
        let before = n.checked_sub(1).map_or("", |n| words[n].0);
        let (mut mask, core) = (mask_of(word, before), core(word).0);
        let unit = words.get(n + 1).filter(|(next, _)| UNITS.contains(&self::core(next).0));
        if let Some((unit, more)) = unit.filter(|_| core.parse::<f64>().is_ok()) {
            mask = format!("TIME{}", self::core(unit).1);
            (spaces, n) = (*more, n + 1);
        }
        // Times in several words, such as `9m 59s`.
        if mask.starts_with("AGE") && text.ends_with("AGE ") {
            text.truncate(text.len() - 4);
        }
        text += &mask;
        text += &" ".repeat(spaces);
        n += 1;
    }
    text
}

/// Word without brackets before and marks behind it, and these marks.
fn core(word: &str) -> (&str, &str) {
    let word = word.trim_start_matches(['(', '"', '[']);
    let core = word.trim_end_matches(['.', ',', ':', ';', ')', '"', ']']);
    (core, &word[core.len()..])
}

/// Replacement of a word. `before`: the word before it.
fn mask_of(word: &str, before: &str) -> String {
    let (core, end) = core(word);
    let begin = &word[..word.len() - core.len() - end.len()];
    // The copy of the SDK is named by its content.
    if let Some((data, copy)) = core.split_once("/greenroom/sdk/")
        && let Some((_, file)) = copy.split_once('/')
    {
        return format!("{begin}{data}/greenroom/sdk/COPY/{file}{end}");
    }
    let is_hex = |len: usize| core.len() == len && core.bytes().all(|b| b.is_ascii_hexdigit());
    let is_number = !core.is_empty() && core.bytes().all(|b| b.is_ascii_digit());
    let is_clock = core.len() >= 12 && core.as_bytes()[2] == b':' && core.as_bytes()[8] == b'.';
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let is_age = ["ms", "us", "ns", "s", "m", "h"].iter().any(|unit| {
        core.strip_suffix(unit)
            .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
    });
    let mask = match core {
        _ if core.len() == 24 && core.ends_with('Z') && core.contains('T') => "DATE",
        _ if core.strip_prefix("127.0.0.1:").is_some_and(is_port) => "PEER",
        _ if core.strip_prefix("tcp://127.0.0.1:").is_some_and(is_port) => "tcp://PEER",
        _ if is_hex(12) || is_hex(40) || is_hex(64) => "HASH",
        _ if is_clock => "CLOCK",
        _ if is_number && matches!(before, "pid" | "worker" | "uid") => "N",
        _ if is_age => "AGE",
        _ => core,
    };
    format!("{begin}{mask}{end}")
}

/// A command that goes on, once it has said so on standard error. Ends it by SIGTERM when `talk` is
/// over and so many lines were printed.
fn watched(host: &Host, args: &[&str], lines: usize, talk: impl FnOnce()) -> Output {
    let mut child =
        host.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("greenroom");
    let mut said = BufReader::new(child.stderr.take().expect("standard error"));
    let mut stderr = Vec::new();
    said.read_until(b'\n', &mut stderr).expect("a line");
    talk();
    let mut out = BufReader::new(child.stdout.take().expect("standard output"));
    let mut stdout = Vec::new();
    for _ in 0..lines {
        out.read_until(b'\n', &mut stdout).expect("a line");
    }
    // SAFETY: the process is a child that was not waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    said.read_to_end(&mut stderr).expect("its last words");
    out.read_to_end(&mut stdout).expect("its end");
    Output { status: child.wait().expect("its end"), stdout, stderr }
}

/// Settings that change the first line which a peer of `chat` reads.
const OTHER: &str = "[service.chat]\nsettings = { welcome = \"Who is there?\" }\n";

#[test]
fn commands_print_what_they_always_have() {
    let host =
        Host::serve_with(&["echo", "tally", "chat"], &[&built("libecho.so"), &built("libchat.so")], |host| {
            host.arg("--no-watch");
        });
    let mut tally = Client::connect(host.addr("tally"));
    assert_eq!(tally.ask("first"), "1 first");
    let mut echo = Client::connect(host.addr("echo"));
    assert_eq!(echo.ask("hello"), "hello");
    let next = host.dir().join("libecho.so");
    let bytes = [std::fs::read(built("libecho.so")).expect("a library"), vec![0]].concat();
    std::fs::write(&next, bytes).expect("a library");

    tables(&host);
    sessions(&host);
    traces(&host, &mut tally);
    canaries(&host, &next, &mut tally);
    terminals(&host);
    // Behind the tables: a member of the room has the service run turns by the clock.
    recordings(&host);
    checks(&host, &next);
    metrics(&host);
    crates(&host);
}

fn tables(host: &Host) {
    let mut t = Transcript::of(host);
    t.run(&["table", "ls"]);
    t.run(&["table", "put", "prices", "apple", "{\"cents\":120}"]);
    t.run(&["table", "put", "prices", "apple", "{\"cents\":120}", "--new"]);
    t.run(&["table", "put", "prises", "apple", "{\"cents\":120}"]);
    t.run(&["table", "put", "prices", "apple", "{\"cents\":120,\"cents\":130}"]);
    t.run(&["table", "put", "prices", "pear", "99", "--ttl", "1h"]);
    t.run(&["table", "ls"]);
    t.run(&["table", "scan", "prices"]);
    t.run(&["table", "scan", "prices", "--where", "cents>100", "--json"]);
    t.run(&["table", "get", "prices", "apple"]);
    t.run(&["table", "get", "prices", "plum"]);
    t.run(&["table", "get", "fruits", "plum"]);
    t.run(&["table", "del", "prices", "pear", "plum"]);
    t.run(&["table", "del", "prices", "plum"]);
    t.run(&["undo"]);
    t.run(&["undo"]);
    t.run(&["state", "set", "1", "count=7"]);
    t.run(&["state", "set", "1", "count=seven"]);
    t.run(&["state", "set", "99", "count=7"]);
    t.run(&["undo"]);
    t.run(&["state", "show", "1"]);
    t.run(&["state", "diff", "/nowhere"]);
    t.check("tables.txt");
}

fn sessions(host: &Host) {
    let mut t = Transcript::of(host);
    t.run(&["sessions"]);
    t.run(&["sessions", "--wide", "--sort", "turns"]);
    t.run(&["sessions", "--where", "count>5"]);
    t.run(&["session", "message", "--service", "tally", "--dry-run", "back at ten"]);
    t.run(&["session", "close", "--all", "--dry-run"]);
    t.run(&["session", "close", "99", "--dry-run"]);
    t.run(&["session", "close", "--service", "echo"]);
    t.run(&["session", "message", "99", "hello"]);
    t.run(&["session", "release", "1"]);
    t.run(&["session", "withhold", "1"]);
    t.run(&["reload", "nobody"]);
    t.run(&["rollback", "tally"]);
    t.check("sessions.txt");
}

fn traces(host: &Host, client: &mut Client) {
    let mut t = Transcript::of(host);
    let args = ["trace", "1"];
    let out = watched(host, &args, 6, || {
        client.send("a\nb\u{1b}[2J\n");
        assert_eq!([(); 2].map(|()| client.line().expect("a line")), ["2 a", "3 b\u{1b}[2J"]);
    });
    t.note(&args, "", &out);
    t.run(&["trace"]);
    t.run(&["trace", "99"]);
    t.run(&["trace", "--service", "nobody"]);
    t.run(&["trace", "--peer", "nowhere"]);
    t.run(&["trace", "--service", "tally", "--for", "1ms"]);
    t.check("trace.txt");
}

fn recordings(host: &Host) {
    let mut t = Transcript::of(host);
    let file = host.dir().join("chat.rec");
    let name = file.to_str().expect("text");
    let args = ["record", "--peer", "127.0.0.1", "-o", name];
    let out = watched(host, &args, 0, || {
        let mut peer = Client::connect(host.addr("chat"));
        assert!(peer.line().expect("a line").starts_with("Welcome"));
        assert_eq!(peer.ask("annabel"), "* annabel is here");
        assert_eq!(peer.ask("a word"), "annabel: a word");
        drop(peer);
        wait_for("the end of the session", || (host.service("chat")["sessions"] == 0).then_some(()));
    });
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    // The length of a compressed file depends on the times in it.
    let stderr = text(&out.stderr).split_inclusive(' ').map(without_bytes()).collect::<String>().into_bytes();
    t.note(&args, "", &Output { stderr, ..out });
    let library = built("libchat.so");
    let chat = library.to_str().expect("text");
    t.run(&["replay", name, "--handler", chat]);
    let config = host.dir().join("other.toml");
    std::fs::write(&config, OTHER).expect("a configuration");
    let config = config.to_str().expect("text");
    t.run(&["replay", name, "--handler", chat, "-c", config]);
    t.run(&["replay", name, "--handler", chat, "-c", config, "--allow", "chat:effects.*.data"]);
    t.run(&["replay", config, "--handler", chat]);
    t.run(&["replay", "/nowhere", "--handler", chat]);
    t.run(&["record", "--service", "chat", "-o", name]);
    t.run(&["record", "-o", name]);
    t.check("record.txt");
}

/// Replaces numbers before `bytes`.
fn without_bytes() -> impl FnMut(&str) -> String {
    |word| match word.trim_end().parse::<u64>() {
        Ok(n) if n > 100 => "MANY ".to_owned(),
        _ => word.to_owned(),
    }
}

fn canaries(host: &Host, next: &Path, old: &mut Client) {
    let mut t = Transcript::of(host);
    let from = next.to_str().expect("text");
    t.run(&["canary"]);
    t.run(&["canary", "promote", "tally"]);
    t.run(&["reload", "tally", "--from", from, "--canary", "0%"]);
    t.run(&["reload", "tally", "--from", from, "--sessions", "99"]);
    let all = ["reload", "tally", "--from", from, "--canary", "100%", "--compare", "1"];
    t.run(&[&all[..], &["--promote-after", "1h", "--faults-max", "0"]].concat());
    let mut new = Client::connect(host.addr("tally"));
    assert_eq!((new.ask("x"), new.ask("y"), old.ask("z")), ("1 x".into(), "2 y".into(), "4 z".into()));
    t.run(&["canary"]);
    t.run(&["reload", "tally"]);
    t.run(&["canary", "cancel", "tally"]);
    t.run(&["canary", "cancel", "tally"]);
    t.run(&all);
    t.run(&["canary", "promote", "echo"]);
    t.run(&["canary"]);
    t.run(&["rollback", "tally"]);
    t.run(&["rollback", "tally", "--to", "9"]);
    t.check("canary.txt");
}

/// Tables on wide and narrow terminals.
fn terminals(host: &Host) {
    let mut t = Transcript::of(host);
    for columns in [200, 60] {
        for args in [&["status"][..], &["sessions"], &["table", "ls"], &["canary"]] {
            t.run_on_terminal(columns, args);
        }
    }
    // Wide enough for all: elsewhere the widths of times decide which columns are folded.
    t.run_on_terminal(240, &["history"]);
    t.check("terminals.txt");
}

fn checks(host: &Host, next: &Path) {
    let mut t = Transcript::of(host);
    let none: PathBuf = host.dir().join("none");
    t.run(&["check", next.to_str().expect("text")]);
    t.run(&["check", root().join("README.md").to_str().expect("text")]);
    t.run(&["reload", "tally", "--dry-run"]);
    t.run(&["reload", "tally"]);
    t.run(&["reload", "--config"]);
    t.run(&["upgrade", "--binary", "/nowhere"]);
    t.run(&["upgrade"]);
    t.run(&["console"]);
    t.run(&["--runtime", none.to_str().expect("text"), "status"]);
    t.check("checks.txt");
}

/// Metrics without their values. Of histograms, their buckets are left out.
fn metrics(host: &Host) {
    let mut t = Transcript::of(host);
    for args in [&["metrics"][..], &["metrics", "--prometheus"]] {
        let out = host.cli(args);
        let text = String::from_utf8_lossy(&out.stdout);
        let mut stdout = String::new();
        for line in text.lines().filter(|line| !line.contains("_bucket{")) {
            let value = line.rsplit_once(' ').filter(|_| !line.starts_with('#'));
            stdout += &value.map_or_else(|| line.to_owned(), |(name, _)| format!("{name} VALUE"));
            stdout += "\n";
        }
        t.note(args, "", &Output { stdout: stdout.into_bytes(), ..out });
    }
    t.check("metrics.txt");
}

/// Crates of handlers that are made.
fn crates(host: &Host) {
    let mut t = Transcript::of(host);
    let path = |name: &str| host.dir().join(name).display().to_string();
    for (name, more) in [
        ("hello", &[][..]),
        ("hello", &[]),
        ("web", &["--kind", "websocket"]),
        ("in-c", &["--kind", "c", "--port", "4200"]),
        ("Hello", &[]),
        ("other", &["--kind", "java"]),
    ] {
        let path = path(name);
        let args = [&["new", &path], more].concat();
        let out = host.command(&args).env("XDG_DATA_HOME", host.dir().join("data")).output();
        t.note(&args, "", &out.expect("greenroom"));
    }
    t.run(&["dev", &path("nowhere")]);
    t.run(&["dev", &path("data")]);
    t.check("new.txt");
}

#[test]
fn words_that_differ_are_replaced_and_no_others() {
    for (line, wanted) in [
        ("  pause 390.5 µs, has", "  pause TIME, has"),
        ("to be promoted in 9m 59s; taken", "to be promoted in AGE; taken"),
        (
            "greenroom 0.1.0, pid 7, worker 8 serving, up 1m 2s",
            "greenroom 0.1.0, pid N, worker N serving, up AGE",
        ),
        (
            "12:00:00.123456 tally 1 (127.0.0.1:5000) turn 2, 1.5 us: x",
            "CLOCK tally 1 (PEER) turn 2, TIME: x",
        ),
        (" 1      v1  2026-11-27T00:00:00.000Z", " 1  v1  DATE"),
        ("build 9327ac07e219; 12 sessions", "build HASH; 12 sessions"),
        ("in DIR/greenroom/sdk/0.1.0-00ff/a/b.md.", "in DIR/greenroom/sdk/COPY/a/b.md."),
    ] {
        assert_eq!(masked(line), wanted);
    }
    assert_eq!(difference("a\nb\nc\n", "a\nx\nc\n"), "  a\n- b\n+ x\n");
}
