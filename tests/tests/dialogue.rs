//! Dialogues of a real host: they go on in the middle of a prompt, through swaps, deaths and an
//! upgrade, in builds that ask otherwise.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::Fixture;
use greenroom_tests::host::Host;
use greenroom_tests::root;
use std::path::{Path, PathBuf};

/// Builds that say `a`, `b` and `c`; the last one has a question more.
fn builds() -> [PathBuf; 3] {
    let source = std::fs::read_to_string(root().join("tests/fixtures/dialogue.rs")).expect("the fixture");
    let fixture = Fixture::new("dialogue", "");
    let more = r#"d.ask_line("c color?")? + " ""#;
    [("a", "String::new()"), ("b", "String::new()"), ("c", more)].map(|(prefix, more)| {
        fixture.write(&source.replace("PREFIX", prefix).replace("= MORE", &format!("= {more}")));
        fixture.build_as(&format!("dialogue{prefix}.so"))
    })
}

#[track_caller]
fn swap(host: &Host, to: &Path) {
    let (code, report) = host.reload_from("dialogue", to);
    assert_eq!(code, Some(0), "{report}");
}

/// Next line of a client.
#[track_caller]
fn line(client: &mut Client) -> String {
    client.line().expect("a line")
}

#[test]
fn a_dialogue_goes_on_in_the_middle_of_a_prompt() {
    let [a, b, c] = builds();
    let host = Host::serve_with(&["asks-lines", "asks-telnet"], &[&a], |_| {});
    let mut client = Client::connect(host.addr("asks-lines"));
    assert_eq!((line(&mut client), line(&mut client)), ("a welcome".into(), "a nick?".into()));
    host.kill_worker();
    assert_eq!(client.ask("ann"), "a password?");
    let mut telnet = telnet_is_asked(&host);
    // Other words for questions whose names stay: the answers stay, too.
    swap(&host, &b);
    assert_eq!(client.ask("secret"), "b number?");
    let upgraded = host.cli(&["upgrade"]);
    assert!(upgraded.status.success(), "{upgraded:?}");
    assert_eq!((client.ask("x"), line(&mut client)), ("b digits, please".into(), "b number?".into()));
    telnet_answers(&host, &mut telnet);
    // A question more: asked from there. The answer to another question is none to this one.
    a_rehearsal_tells_of_dialogues(&host, &a, &c);
    swap(&host, &c);
    assert_eq!(client.ask("7"), "c color?");
    assert_eq!(client.ask("red"), "c password?");
    host.kill_worker();
    assert_eq!(client.ask("other"), "c number?");
    assert_eq!(client.ask("9"), "c ann red other 9 greeted 1");
    assert_eq!(client.line(), None);
    // Greeted once in all of that.
    let mut again = Client::connect(host.addr("asks-lines"));
    assert_eq!((line(&mut again), again.ask("ann")), ("c welcome".into(), "c nick?".into()));
    assert_eq!(line(&mut again), "c color?");
    again.send("blue\nsecret\n");
    assert_eq!((line(&mut again), line(&mut again)), ("c password?".into(), "c number?".into()));
    assert_eq!(again.ask("1"), "c ann blue secret 1 greeted 2");
}

/// A rehearsal tells what becomes of the session, and nothing of it happens.
fn a_rehearsal_tells_of_dialogues(host: &Host, same: &Path, more: &Path) {
    let told = |build: &Path| {
        let out = host.cli(&["reload", "dialogue", "--dry-run", "--from", build.to_str().expect("a path")]);
        assert!(out.status.success(), "{out:?}");
        String::from_utf8(out.stdout).expect("UTF-8")
    };
    let said = told(more);
    let asked = "1 session: asked \"c color?\" in place of \"password\", answers dropped: 1";
    let all = "  service asks-lines: 1 session in the middle of a dialogue, none goes on where it is";
    assert!(said.contains(&format!("{all}\n    {asked}\n")), "{said}");
    assert!(!said.contains("asks-telnet: 1 session"), "its dialogue is over: {said}");
    let said = told(same);
    assert!(said.contains("1 session in the middle of a dialogue, it goes on where it is\n"), "{said}");
}

/// Telnet peer up to the password, which it is asked not to show.
fn telnet_is_asked(host: &Host) -> Client {
    let mut telnet = Client::connect(host.addr("asks-telnet"));
    assert_eq!((line(&mut telnet), line(&mut telnet)), ("a welcome\r".into(), "a nick?\r".into()));
    telnet.send("tel\r\n");
    // IAC WILL ECHO; the prompt ends in IAC GA.
    assert_eq!(line(&mut telnet), "\u{fffd}\u{fffd}\u{1}a password?\r");
    telnet.send(b"\xff\xfd\x01");
    telnet
}

/// The same peer answers another build, in another process: what is typed is shown again.
fn telnet_answers(host: &Host, telnet: &mut Client) {
    host.kill_worker();
    telnet.send("secret\r\n");
    // Between two hidden questions nothing is negotiated: what is typed early stays hidden.
    assert_eq!(line(telnet), "\u{fffd}\u{fffd}\r", "IAC GA, a new line");
    assert_eq!(line(telnet), "b again?\r");
    telnet.send("secret\r\n");
    assert_eq!(line(telnet), "\u{fffd}\u{fffd}\r", "IAC GA, a new line");
    assert_eq!(line(telnet), "\u{fffd}\u{fffd}\u{1}b number?\r", "IAC WONT ECHO");
    telnet.send("5\r\n");
    assert_eq!(line(telnet), "\u{fffd}\u{fffd}b tel secret 5 greeted 1\r");
}
