//! Share of the loop: a flood that costs much is cut into passes, and a stop costs each session one
//! turn.

use greenroom_tests::client::Client;
use greenroom_tests::host::Host;
use greenroom_tests::{built, wait_for};

/// People in the room, and lines that one of them sends at once.
const PEOPLE: usize = 60;
const NICKS: usize = 200;

/// A stage of a pass has room for two broadcasts to the room. Two hundred of them are cut into a
/// hundred passes, and everybody hears each in its order. At the end of the host, the tables are
/// saved, and nobody hears who left.
#[test]
fn a_flood_is_cut_into_passes_and_a_stop_tells_nobody_of_the_others() {
    let mut host = Host::serve_limited("chat", &built("libchat.so"), "pass_us = 30");
    let mut people: Vec<_> = (0..PEOPLE).map(|_| Client::connect(host.addr("chat"))).collect();
    for (n, person) in people.iter_mut().enumerate() {
        assert!(person.line().is_some_and(|welcome| welcome.contains("nick")));
        assert_eq!(person.ask(&format!("p{n}")), format!("* p{n} is here"));
    }
    let last = PEOPLE - 1;
    for n in 1..PEOPLE {
        assert_eq!(people[0].line(), Some(format!("* p{n} is here")));
    }

    let lines: String = (0..NICKS).map(|n| format!("/nick n{n}\n")).collect();
    people[last].send(lines);
    let mut before = format!("p{last}");
    for n in 0..NICKS {
        for listener in [0, last] {
            assert_eq!(people[listener].line(), Some(format!("* {before} is now n{n}")));
        }
        before = format!("n{n}");
    }
    let passes = host.json(&["status", "--json"])["host"]["limits"]["pass_us"].as_u64();
    assert!(passes.is_some_and(|n| n >= NICKS as u64 / 4), "the flood took {passes:?} passes");

    host.signal(libc::SIGTERM);
    for listener in [0, last] {
        assert_eq!(people[listener].line(), None, "no good-bye of another one");
    }
    drop(people);
    let code = wait_for("the host to end", || host.wait());
    assert_eq!(code, 0, "{}", host.log());
}
