//! The kit itself: conversations in many ways, two services, jobs, endpoints, the transcript.

use super::conversation::Conversation;
use super::host::TestHost;
use crate::{
    Action, Endpoint, Fault, Framing, Handler, Job, JobEnd, Map, NoConfig, Table, Turn, timer_value,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Points by room and name.
const POINTS: Map<(String, String), i64> = Map::new("points");

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Told {
    Won { by: i64 },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Due {
    Bell { times: u32 },
}

/// State of a player: the name.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Player {
    name: String,
}

/// Game: `I am NAME`, `win N`, `bell`, `look NAME`.
struct Game;

impl Handler for Game {
    const SERVICE: &'static str = "game";
    const ENDPOINTS: &'static [Endpoint] = &[
        Endpoint::telnet(0),
        Endpoint::new(0, Framing::Delimiter { delimiter: b"\r\n.", bytes_max: 0 }),
        Endpoint::length_prefix(0, 2, crate::ByteOrder::Big),
    ];
    type State = Player;
    type Config = NoConfig;

    fn new(_: NoConfig) -> Result<Self, String> {
        Ok(Game)
    }

    fn opened(&self, turn: &mut Turn<'_, Player>) -> Result<(), Fault> {
        let kind = turn.fact("endpoint").unwrap_or_default();
        turn.send_line(format!("welcome by {kind}"));
        Ok(())
    }

    fn message(&self, turn: &mut Turn<'_, Player>, line: &[u8]) -> Result<(), Fault> {
        let line = std::str::from_utf8(line)?;
        match line.split_once(' ').unwrap_or((line, "")) {
            ("I", rest) => {
                turn.state.name = rest.trim_start_matches("am ").to_owned();
                turn.subscribe("players");
            }
            ("win", by) => {
                let (by, name): (i64, _) = (by.parse()?, turn.state.name.clone());
                let points = POINTS.get(turn, ("hall", &*name))?.unwrap_or(0) + by;
                POINTS.put(turn, ("hall", &*name), &points)?;
                turn.publish_value_others("players", &Told::Won { by })?;
            }
            ("bell", _) => turn.set_timer_value(&Due::Bell { times: 2 }, Duration::from_secs(5))?,
            ("look", name) => _ = turn.start_job("look", name),
            (other, _) => turn.send_line(format!("{other}?")),
        }
        Ok(())
    }

    fn timer(&self, turn: &mut Turn<'_, Player>, name: &str) -> Result<(), Fault> {
        let Due::Bell { times } = timer_value(name)?;
        turn.send_line("ding ".repeat(times as usize));
        Ok(())
    }

    fn other(&self, turn: &mut Turn<'_, Player>, action: Action<'_>) -> Result<(), Fault> {
        match action {
            Action::Published { .. } => {
                let Told::Won { by } = action.value()?;
                turn.send_line(format!("somebody won {by}"));
            }
            Action::Job { end: JobEnd::Done(bytes), .. } => turn.send_line(bytes),
            Action::Job { end: JobEnd::Failed(why), .. } => turn.send_line(format!("failed: {why}")),
            _ => {}
        }
        Ok(())
    }

    fn job(&self, job: &Job<'_>) -> Result<Vec<u8>, Fault> {
        Ok([b"saw ", job.input].concat())
    }
}

/// Scores: a service of its own, which reads the game's table and tells its players.
struct Scores;

impl Handler for Scores {
    const SERVICE: &'static str = "scores";
    type State = ();
    type Config = NoConfig;

    fn new(_: NoConfig) -> Result<Self, String> {
        Ok(Scores)
    }

    fn message(&self, turn: &mut Turn<'_, ()>, room: &[u8]) -> Result<(), Fault> {
        let room = std::str::from_utf8(room)?;
        for ((_, name), points) in POINTS.scan_under(turn, (room,), 10)? {
            turn.send_line(format!("{name} {points}"));
        }
        turn.broadcast_line("players", "somebody looks at the scores");
        Ok(())
    }
}

#[test]
fn two_services_talk_by_topics_and_tables_in_every_way() {
    Conversation::<Game>::new("{}").with::<Scores>("{}").plays(
        "
        ann opens
        ann hears welcome by line
        bob opens telnet
        bob hears welcome by telnet
        eve opens scores
        ann says I am ann
        bob says I am bob
        ann says win 3
        bob hears somebody won 3
        bob says win -2
        ann hears somebody won -2
        eve says hall
        eve hears ann 3
        eve hears bob -2
        ann hears somebody looks at the scores
        bob hears somebody looks at the scores
        # Timers are virtual.
        ann says bell
        4999ms pass
        1ms pass
        ann hears ding ding
        ann says what
        ann hears what?
        bob hangs up
        bob is closed
        ",
    );
}

#[test]
fn jobs_end_as_the_test_says_and_input_is_cut_by_the_endpoint() {
    let mut host = TestHost::<Game>::new("{}").expect("a game");
    let [by_end, by_len] = ["delimiter", "prefix"].map(|kind| host.open_by(kind));
    host.expect(by_end, "welcome by delimiter\n");
    host.send(by_end, "one\r\n.t");
    host.send(by_end, "wo\r\n");
    host.expect(by_end, "one?\n");
    host.send(by_end, ".");
    host.expect(by_end, "two?\n");
    host.send(by_len, b"\0\x03abc\0");
    host.expect(by_len, "welcome by prefix\nabc?\n");
    let peer = host.open();
    host.hold_jobs();
    assert_eq!(host.line(peer, "look here"), "welcome by line\n");
    assert_eq!(host.line(peer, "look there"), "");
    assert_eq!(host.jobs(), [(1, "look".into()), (2, "look".into())]);
    host.end_job(2, Err("it is dark"));
    host.end_job(1, Ok(b"a tree"));
    host.expect(peer, "failed: it is dark\na tree\n");
}

/// Panic of a test, as text.
fn panics(f: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).expect_err("a panic");
    payload.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn a_failure_shows_the_transcript() {
    let said = panics(|| {
        let mut host = TestHost::<Game>::new("{}").expect("a game");
        let peer = host.open();
        host.send(peer, "what\n");
        host.advance(Duration::from_secs(1));
        host.expect(peer, "else\n");
    });
    for part in ["and not \"else\\n\"", "1 opens game", "1 > \"what\\n\"", "-- 1s pass", "1 < "] {
        assert!(said.contains(part), "{said}");
    }
    let said = panics(|| Conversation::<Game>::new("{}").plays("ann opens\nann hears hello"));
    assert!(said.contains("heard \"welcome by line\\n\""), "{said}");
    let said = panics(|| Conversation::<Game>::new("{}").plays("ann opens"));
    assert!(said.contains("ann was sent more"), "{said}");
}

/// Service that keeps something outside of its state: it counts in itself.
#[derive(Default)]
struct Forgets(AtomicU32);

impl Handler for Forgets {
    const SERVICE: &'static str = "forgets";
    type State = ();
    type Config = NoConfig;

    fn new(_: NoConfig) -> Result<Self, String> {
        Ok(Forgets::default())
    }

    fn message(&self, turn: &mut Turn<'_, ()>, _: &[u8]) -> Result<(), Fault> {
        turn.send_line(format!("{}", self.0.fetch_add(1, Ordering::Relaxed) + 1));
        Ok(())
    }
}

#[test]
fn what_is_kept_outside_of_the_state_is_found() {
    let script = "ann opens\nann says a\nann hears 1\nann says b\nann hears 2";
    let said = panics(|| Conversation::<Forgets>::new("{}").plays(script));
    assert!(said.contains("played Deaths: heard \"1\\n\""), "{said}");
}

/// Values that are not read as they were written: the test finds them where a host would not.
const ODD: Table<Odd> = Table::new("odd");

#[derive(Serialize, Deserialize, JsonSchema)]
struct Odd {
    #[serde(serialize_with = "twice")]
    number: u32,
}

fn twice<S: serde::Serializer>(number: &u32, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u32(number * 2)
}

struct Keeps;

impl Handler for Keeps {
    const SERVICE: &'static str = "keeps";
    type State = ();
    type Config = NoConfig;

    fn new(_: NoConfig) -> Result<Self, String> {
        Ok(Keeps)
    }

    fn message(&self, turn: &mut Turn<'_, ()>, line: &[u8]) -> Result<(), Fault> {
        ODD.put(turn, line, &Odd { number: 4 })
    }
}

#[test]
fn a_value_that_comes_back_as_another_one_fails_its_turn() {
    let mut host = TestHost::<Keeps>::new("{}").expect("a service");
    let peer = host.open();
    let why = host.try_turn(peer, Action::Message(b"key")).unwrap_err();
    assert!(why.contains("table odd") && why.contains("field number is stored as 8"), "{why}");
}

/// Service whose turns fail: with a word to the peer, with a close, or without either.
struct Fails;

impl Handler for Fails {
    const SERVICE: &'static str = "fails";
    type State = ();
    type Config = NoConfig;

    fn new(_: NoConfig) -> Result<Self, String> {
        Ok(Fails)
    }

    fn message(&self, _: &mut Turn<'_, ()>, line: &[u8]) -> Result<(), Fault> {
        Err(match line {
            b"tell" => Fault::new("told").tell("No."),
            b"close" => Fault::new("closed").tell("Bye.").close(),
            _ => Fault::new("silent"),
        })
    }
}

#[test]
fn a_failure_that_the_peer_notices_is_for_the_script_and_a_silent_one_fails_the_test() {
    let conversation = Conversation::<Fails>::new("{}");
    conversation
        .plays("ann opens\nann says tell\nann hears No.\nann says close\nann hears Bye.\nann is closed");
    let said = panics(|| conversation.plays("ann opens\nann says nothing"));
    assert!(said.contains("the turn failed: silent"), "{said}");
}
