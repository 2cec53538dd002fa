//! Service `chat`: asks for a nick, then sends each line to everybody in the room.
//!
//! | line | effect |
//! | --- | --- |
//! | `/nick NAME` | takes another nick |
//! | `/who` | lists up to 200 nicks |
//! | `/me DOES` | tells the room what the session does |
//! | `/quit` | closes the session |
//! | any other | is said to the room |
//!
//! The room is had over lines, telnet and WebSocket, with a page for browsers at the port of the
//! last. When other code serves, the room is told so within a second.
//!
//! The nick of a session is in its state, and is a name that the session holds. Both change in
//! the same turn, so they agree: a turn that fails changes neither. Turns of all sessions run
//! one after the other, so two sessions cannot take one nick between a look and a write. The host
//! frees a name when its session ends, however that ends.
#![forbid(unsafe_code)]

use greenroom_handler::{
    Action, Closed, Dialogue, Endpoint, Handler, Page, Result, Step, Talk, Turn, export, handler,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

export!(Chat);

/// Begin of the name of a timer of the service, which looks for another generation. Behind it is
/// the generation that the room knows of.
const LOOK: &str = "look ";
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Page for browsers: one file, which loads nothing else.
const PAGE: &str = include_str!("page.html");
/// Topic of everybody who has a nick.
const ROOM: &str = "chat-room";
/// Most nicks that `/who` lists. Bounds the time and the output of that turn.
const WHO_MAX: usize = 200;

// State of a session: the nick; none until the peer has chosen one.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Person {
    /// Nick in the room; none: not in the room.
    nick: Option<String>,
    /// Record of the dialogue that asks for the nick.
    #[serde(default)]
    talk: Talk,
}

// Settings of the service. A key that is missing has its default, an unknown one refuses the
// build.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// Line that a new peer reads first.
    welcome: String,
    /// Longest nick, in characters.
    nick_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { welcome: "Welcome to the green room. What is your nick?".into(), nick_max: 20 }
    }
}

/// Service `chat`, with its settings.
struct Chat(Settings);

/// Turn of a session of this service.
type ChatTurn<'a> = Turn<'a, Person>;

#[handler]
impl Handler for Chat {
    const SERVICE: &'static str = "chat";
    const PORT: u16 = 4000;
    const ENDPOINTS: &'static [Endpoint] = &[Endpoint::telnet(4023), Endpoint::websocket(4080, &[])];
    type State = Person;
    type Config = Settings;

    /// Refuses settings with which no peer could ever choose a nick.
    fn new(settings: Settings) -> Result<Self, String> {
        match settings.nick_max {
            0 => Err("nick_max is 0: nobody could have a nick".into()),
            _ => Ok(Chat(settings)),
        }
    }

    fn page(&self, path: &str) -> Option<Page> {
        (path == "/").then(|| Page::html(PAGE))
    }

    /// Tells the room of another generation, and looks again later as long as anybody is there.
    fn handle_service(&self, turn: &mut Turn, action: Action) -> Result {
        if let Action::Timer(name) = action
            && let Some(known) = name.strip_prefix(LOOK)
            && turn.topic_len(ROOM) > 0
        {
            let serves = look_later(turn);
            if serves.to_string() != known {
                let told = format!("* chat is now generation {serves}: nobody was disconnected");
                turn.broadcast_line(ROOM, told);
            }
        }
        Ok(())
    }

    fn opened(&self, turn: &mut ChatTurn) -> Result {
        self.ask(turn, None)
    }

    /// Runs one line. A session without a nick reads nothing from the room, and answers questions.
    fn message(&self, turn: &mut ChatTurn, line: &[u8]) -> Result {
        match turn.state.nick.clone() {
            None => self.ask(turn, Some(line)),
            Some(nick) => {
                // Bytes that are not UTF-8 are replaced: other peers must be able to show the line.
                self.said(turn, &nick, String::from_utf8_lossy(line).trim());
                Ok(())
            }
        }
    }

    fn closed(&self, turn: &mut ChatTurn, _: Closed) -> Result {
        // The session itself has left, so only the others are told.
        if let Some(nick) = &turn.state.nick {
            let told = format!("* {nick} has left");
            turn.broadcast_line_others(ROOM, told);
        }
        Ok(())
    }
}

/// Looks for another generation than this one, some time later.
fn look_later<S>(turn: &mut Turn<S>) -> u64 {
    let serves = turn.generation();
    turn.set_service_timer(&format!("{LOOK}{serves}"), LOOK_EVERY);
    serves
}

impl Chat {
    /// Goes on with the dialogue of a session that has no nick.
    fn ask(&self, turn: &mut ChatTurn, answer: Option<&[u8]>) -> Result {
        turn.talk(|person| &mut person.talk, answer, |d| self.enter(d))?;
        Ok(())
    }

    /// Asks for a nick until the session has one.
    fn enter(&self, d: &mut Dialogue<Person>) -> Step {
        let mut prompt = self.0.welcome.clone();
        d.rounds(|d| {
            // The name: a build may ask in other words.
            let nick = d.named("nick").ask_line(&prompt)?;
            match d.once(|turn| Ok(self.take_nick(turn, nick.trim())))? {
                Ok(()) => Ok(Some(())),
                Err(why) => {
                    prompt = why;
                    Ok(None)
                }
            }
        })
    }

    /// Runs one line of a session that has a nick.
    fn said(&self, turn: &mut ChatTurn, nick: &str, line: &str) {
        match line.split_once(' ').unwrap_or((line, "")) {
            // Empty lines only: the caller has trimmed the line, so no line begins with a
            // space.
            ("", _) => {}
            ("/nick", name) => {
                if let Err(why) = self.take_nick(turn, name.trim()) {
                    turn.send_line(why);
                }
            }
            ("/me", does) => turn.broadcast_line(ROOM, format!("* {nick} {does}")),
            ("/quit", _) => turn.close(),
            ("/who", _) => {
                for (name, _) in turn.names_from("", WHO_MAX) {
                    turn.send_line([b"  ", &name[..]].concat());
                }
            }
            (command, _) if command.starts_with('/') => {
                turn.send_line(format!(
                    "! {command} is not known; there are /nick NAME, /who, /me DOES and /quit"
                ));
            }
            _ => turn.broadcast_line(ROOM, format!("{nick}: {line}")),
        }
    }

    /// Gives a session its first or another nick. The error is a line for the peer.
    fn take_nick(&self, turn: &mut ChatTurn, name: &str) -> Result<(), String> {
        if name.is_empty() || name.chars().count() > self.0.nick_max || name.contains(char::is_whitespace) {
            return Err(format!("! A nick is one word of up to {} characters. Yours?", self.0.nick_max));
        }
        if turn.whereis(name).is_some() {
            return Err(format!("! {name} is taken. Another one?"));
        }
        turn.register(name);
        match turn.state.nick.replace(name.to_owned()) {
            Some(old) => {
                turn.unregister(&old);
                turn.broadcast_line(ROOM, format!("* {old} is now {name}"));
            }
            None => {
                // Before the broadcast, so that the session reads of its own arrival.
                turn.subscribe(ROOM);
                turn.broadcast_line(ROOM, format!("* {name} is here"));
                look_later(turn);
                tracing::info!(nick = name, "joined");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenroom_handler::testing::{Conversation, TestHost};

    #[test]
    fn two_people_meet() {
        let mut room = TestHost::<Chat>::new(r#"{"welcome": "Nick?"}"#).unwrap();
        let (ann, bob) = (room.open(), room.open());
        assert_eq!(room.output(ann), "Nick?\n");
        assert_eq!(room.line(ann, "ann"), "* ann is here\n");
        room.output(bob);
        assert!(room.line(bob, "ann").contains("is taken"));
        assert_eq!(room.line(bob, "bob"), "* bob is here\n");
        assert_eq!(room.line(ann, "hi"), "* bob is here\nann: hi\n");
        assert_eq!(room.line(bob, "/who"), "ann: hi\n  ann\n  bob\n");
        assert_eq!(room.line(bob, "/nick bo"), "* bob is now bo\n");
        room.line(bob, "/quit");
        assert!(room.is_closed(bob));
        room.hang_up(bob);
        assert_eq!(room.line(ann, "/who"), "* bob is now bo\n* bo has left\n  ann\n");
        assert!(room.line(ann, "/what").starts_with("! /what is not known"));
        assert!(TestHost::<Chat>::new(r#"{"color": 1}"#).is_err_and(|e| e.contains("unknown field `color`")));
    }

    #[test]
    fn a_conversation_reads_the_same_in_every_way() {
        Conversation::<Chat>::new(r#"{"welcome": "Nick?", "nick_max": 5}"#).plays(
            "
            ann opens
            ann hears Nick?
            bob opens telnet
            bob hears Nick?
            ann says much too long
            ann hears ! A nick is one word of up to 5 characters. Yours?
            ann says ann
            ann hears * ann is here
            bob says ann
            bob hears ! ann is taken. Another one?
            bob says bob
            bob hears * bob is here
            ann hears * bob is here
            ann says /me waves
            ann hears * ann waves
            bob hears * ann waves
            bob hangs up
            ann hears * bob has left
            ann says /quit
            ann is closed
            ",
        );
    }
}
