//! Output of handlers and the host's log: readers that are gone or stopped, and texts that are not
//! fit for a terminal.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::{Fixture, tally_source};
use greenroom_tests::host::Host;
use greenroom_tests::wait_for;
use std::io::{PipeReader, Read};

/// A tally that prints each line on both streams, and much of it if asked.
fn printer(service: &str, prefix: &str) -> String {
    let more = r#"
            println!("out: {line}");
            eprintln!("err: {line}");
            match &*line {
                "much" => (0..1000).for_each(|n| println!("{n} {}", "x".repeat(1000))),
                "end" => {
                    eprint!("last ");
                    eprintln!("words of the turn");
                    eprint!("and a line without an end");
                    std::process::abort();
                }
                "forge" => return Err(Fault::new("forged\n2026 ERROR \u{1b}[2Jno such thing")),
                _ => {}
            }
            let count"#;
    tally_source(service, prefix).replacen("            let count", more, 1)
}

/// Starts a host whose log is a pipe, with two builds at hand.
fn piped(service: &str, library: &std::path::Path) -> (Host, PipeReader) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let host = Host::serve_with(&[service], &[library], |c| {
        c.stderr(writer);
    });
    (host, reader)
}

#[test]
fn a_build_that_prints_is_not_blamed_for_a_log_whose_reader_is_gone() {
    let fixture = Fixture::new("prints", &tally_source("prints", "quiet"));
    let quiet = fixture.build_as("quiet.so");
    fixture.write(&printer("prints", "loud"));
    let loud = fixture.build_as("loud.so");
    let (mut host, reader) = piped("prints", &quiet);
    let mut client = Client::connect(host.addr("prints"));
    assert_eq!(client.ask("one"), "quiet 1 one");
    drop(reader);

    let (code, report) = host.reload_from("prints", &loud);
    assert_eq!(code, Some(0), "{report}");
    for n in 2..30 {
        assert_eq!(client.ask("on"), format!("loud {n} on"));
    }
    host.kill_worker();
    assert_eq!(client.ask("on"), "loud 30 on");
    assert_eq!(host.generation("prints"), 2);
    host.signal(libc::SIGTERM);
    assert_eq!(host.wait(), Some(0));
}

#[test]
fn a_log_that_nobody_takes_holds_up_neither_turns_nor_the_end_and_counts_what_is_lost() {
    let fixture = Fixture::new("floods", &printer("floods", "loud"));
    let (mut host, mut reader) = piped("floods", &fixture.build());
    let mut client = Client::connect(host.addr("floods"));
    for n in 1..4 {
        assert_eq!(client.ask("much"), format!("loud {n} much"));
    }
    assert_eq!(client.ask("on"), "loud 4 on");
    host.kill_worker();
    assert_eq!(client.ask("on"), "loud 5 on");

    host.signal(libc::SIGTERM);
    assert_eq!(host.wait(), Some(0));
    let mut log = Vec::new();
    reader.read_to_end(&mut log).expect("the log");
    assert!(!log.is_empty());
}

#[test]
fn what_handlers_print_is_in_the_log_line_by_line_also_the_last_words() {
    let fixture = Fixture::new("speaks", &printer("speaks", "loud"));
    let host = Host::serve(&["speaks"], &[&fixture.build()]);
    let mut client = Client::connect(host.addr("speaks"));
    assert_eq!(client.ask("hello \u{1b}[2J\u{7}"), "loud 1 hello \u{1b}[2J\u{7}");
    for stream in ["out", "err"] {
        host.wait_log(&format!("handler output: {stream}: hello "));
    }
    client.send("end\n");
    for words in ["last words of the turn", "and a line without an end"] {
        host.wait_log(words);
    }
    wait_for("nothing raw", || {
        let controls = host.log().chars().filter(|c| c.is_control() && *c != '\n').count();
        (controls == 0).then_some(())
    });
}

#[test]
fn printed_lines_beyond_ten_thousand_in_ten_seconds_are_counted() {
    let fixture = Fixture::new("streams", &printer("streams", "loud"));
    let host = Host::serve(&["streams"], &[&fixture.build()]);
    let mut client = Client::connect(host.addr("streams"));
    client.send("much\n".repeat(20));
    host.wait_log("more like this in 10 s: handler output: ");
    for n in 1..=20 {
        assert_eq!(client.line(), Some(format!("loud {n} much")));
    }
}

#[test]
fn a_text_of_a_handler_is_one_line_in_the_log_and_in_what_commands_print() {
    let fixture = Fixture::new("forges", &printer("forges", "good"));
    let good = fixture.build_as("good.so");
    let refuses = "Err(\"bad\\n7 forged \\u{1b}[2J\\u{9b}1m\".into())";
    fixture.write(&printer("forges", "bad").replace("        Ok(Tally)\n", &format!("        {refuses}\n")));
    let bad = fixture.build_as("bad.so");
    let host = Host::serve(&["forges"], &[&good]);
    let mut client = Client::connect(host.addr("forges"));
    client.send("forge\n");
    assert_eq!(client.ask("on"), "good 1 on");
    host.wait_log(r"forged\n2026 ERROR ");

    let bad = bad.to_str().expect("UTF-8");
    let reload = host.cli(&["reload", "forges", "--from", bad]);
    assert_eq!(reload.status.code(), Some(1), "{reload:?}");
    let json = host.cli(&["history", "--json"]).stdout;
    let value: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    let reason = value.as_array().and_then(|lines| lines.last()).expect("a line")["reason"].clone();
    assert!(reason.as_str().is_some_and(|r| r.contains("bad\n7 forged \u{1b}[2J\u{9b}1m")), "{reason}");
    let texts = [reload.stdout, host.cli(&["history"]).stdout, host.cli(&["sessions"]).stdout, json];
    for text in texts.map(|bytes| String::from_utf8(bytes).expect("UTF-8")) {
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
        assert!(!text.lines().any(|line| line.starts_with("7 forged")), "{text}");
    }
    let log = host.log();
    assert!(!log.chars().any(|c| c.is_control() && c != '\n'), "{log:?}");
    assert!(!log.lines().any(|line| line.starts_with("2026 ERROR") || line.starts_with("7 forged")), "{log}");
}

#[test]
fn a_peer_whose_every_message_fails_a_turn_has_a_few_lines_and_a_count() {
    let fixture = Fixture::new("garbles", &printer("garbles", "good"));
    let host = Host::serve(&["garbles"], &[&fixture.build()]);
    let mut client = Client::connect(host.addr("garbles"));
    client.send("forge\n".repeat(500));
    assert_eq!(client.ask("on"), "good 1 on");

    let written = || host.log().matches("ERROR turn failed: forged").count();
    let left_out = || {
        let log = host.log();
        let counts = log.lines().filter_map(|l| {
            l.split_once(" more like this in 10 s: turn failed: ")?
                .0
                .rsplit(' ')
                .next()?
                .parse::<usize>()
                .ok()
        });
        counts.sum::<usize>()
    };
    wait_for("all in a line or a count", || (written() + left_out() == 500).then_some(()));
    assert!(left_out() > 0, "{}", host.log());
    assert_eq!(host.service("garbles")["faults"], 500);
}
