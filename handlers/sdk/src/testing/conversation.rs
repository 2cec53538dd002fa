//! Conversations as text, played under every cut of the input and with a death before each turn.

use super::host::TestHost;
use super::services::Service;
use crate::handler::Handler;
use std::collections::BTreeMap;
use std::time::Duration;

/// Conversation of peers with a service, as lines of text.
///
/// | line | meaning |
/// | --- | --- |
/// | `ann opens` | a peer connects, by the first endpoint |
/// | `ann opens telnet` | by an endpoint of that kind, or of another service by its name |
/// | `ann says hello` | sends a line; over WebSocket and UDP a whole message, which is not cut |
/// | `ann hears 1 hello` | the next line of output, or what there is of it |
/// | `ann hangs up` | ends the connection |
/// | `ann is closed` | the host has closed it; a script says so of each that it closes |
/// | `10s pass`, `500ms pass` | virtual time |
/// | `# …` | a comment |
///
/// [`Conversation::plays`] plays it as it stands, byte by byte, with each message cut at each byte,
/// and with a death before each commit: the turn runs twice, each time in a fresh instance. All
/// must read the same. What is heard must be all that is sent.
///
/// ```
/// use greenroom_handler::testing::Conversation;
/// use greenroom_handler::{Handler, Result, Turn, export, handler};
///
/// struct Echo;
/// #[handler]
/// impl Handler for Echo {
///     const SERVICE: &'static str = "echo";
///     fn message(&self, turn: &mut Turn, line: &[u8]) -> Result {
///         turn.send_line(line);
///         Ok(())
///     }
/// }
/// export!(Echo);
///
/// Conversation::<Echo>::new("{}").plays("
///     ann opens
///     ann says hello
///     ann hears hello
///     10s pass
///     ann hangs up
/// ");
/// ```
pub struct Conversation<H: Handler> {
    settings: String,
    /// Adds the other services to a host.
    others: Vec<AddOther<H>>,
}

/// Function that adds another service to a host.
type AddOther<H> = Box<dyn Fn(&mut TestHost<H>)>;

/// Way to play a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Script as it stands.
    Plain,
    /// Each message in two pieces, the first of so many bytes.
    CutAt(usize),
    /// Each byte alone.
    ByteByByte,
    /// A process dies before each commit.
    Deaths,
}

impl<H: Handler> Conversation<H> {
    /// Conversation with the service of these settings, JSON.
    pub fn new(settings: &str) -> Conversation<H> {
        Conversation { settings: settings.to_owned(), others: Vec::new() }
    }

    /// Adds another service, as [`TestHost::with`] does.
    ///
    /// ```
    /// use greenroom_handler::testing::Conversation;
    /// use greenroom_handler::{Handler, Result, Table, Turn, handler};
    ///
    /// const LAST: Table<String> = Table::new("last");
    ///
    /// struct Write;
    /// #[handler]
    /// impl Handler for Write {
    ///     const SERVICE: &'static str = "write";
    ///     fn message(&self, turn: &mut Turn, line: &[u8]) -> Result {
    ///         LAST.put(turn, "", &String::from_utf8_lossy(line).into_owned())
    ///     }
    /// }
    ///
    /// struct Read;
    /// #[handler]
    /// impl Handler for Read {
    ///     const SERVICE: &'static str = "read";
    ///     fn message(&self, turn: &mut Turn, _: &[u8]) -> Result {
    ///         let last = LAST.get(turn, "")?.unwrap_or_default();
    ///         turn.send_line(last);
    ///         Ok(())
    ///     }
    /// }
    ///
    /// Conversation::<Write>::new("{}").with::<Read>("{}").plays("
    ///     ann opens
    ///     ann says hello
    ///     bob opens read
    ///     bob says ?
    ///     bob hears hello
    /// ");
    /// ```
    #[must_use]
    pub fn with<Other: Handler>(mut self, settings: &str) -> Conversation<H> {
        let settings = settings.to_owned();
        self.others.push(Box::new(move |host| {
            let other = Service::<Other>::new(&settings).expect("settings of the other service");
            host.others.push(Box::new(other));
        }));
        self
    }

    /// Plays the conversation in every way. Panics with the transcript if one reads otherwise.
    #[track_caller]
    pub fn plays(&self, script: &str) {
        let longest = script.lines().map(str::len).max().unwrap_or(0);
        self.play(script, Way::Plain);
        self.play(script, Way::ByteByByte);
        (1..longest).for_each(|at| self.play(script, Way::CutAt(at)));
        self.play(script, Way::Deaths);
    }

    /// Plays the conversation in one way.
    #[track_caller]
    fn play(&self, script: &str, way: Way) {
        let mut host = TestHost::<H>::new(&self.settings).expect("settings of the service");
        host.dies = way == Way::Deaths;
        self.others.iter().for_each(|add| add(&mut host));
        let mut peers = BTreeMap::new();
        for (number, line) in script.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            host.scene = format!("line {} of the script, {line:?}, played {way:?}: ", number + 1);
            if let Some(time) = line.strip_suffix(" pass").or_else(|| line.strip_suffix(" passes")) {
                match duration(time) {
                    Some(time) => host.advance(time),
                    None => wrong(&host, "a time is a number and ms, s or min, such as `1 min pass`"),
                }
                continue;
            }
            let (name, does) = line.split_once(' ').unwrap_or((line, ""));
            let (verb, what) = does.split_once(' ').unwrap_or((does, ""));
            if verb == "opens" {
                let by = if what.is_empty() { H::SERVICE } else { what };
                match host.try_open_by(by) {
                    Ok(peer) => {
                        host.named.insert(peer, name.to_owned());
                        peers.insert(name.to_owned(), (peer, true, false));
                    }
                    Err(why) => wrong(&host, &why),
                }
                continue;
            }
            let Some((peer, is_there, end_is_told)) = peers.get_mut(name) else {
                wrong(&host, "that peer has not opened")
            };
            match (verb, what, *peer) {
                ("says", ..) if !*is_there => wrong(&host, "that peer has hung up"),
                ("says", _, peer) if host.is_closed(peer) => wrong(&host, "the host has closed the session"),
                ("says", what, peer) if host.sends_messages(peer) => host.say(peer, what.as_bytes()),
                ("says", what, peer) => host.send_as(peer, format!("{what}\n").as_bytes(), way),
                ("hears", what, peer) => {
                    let heard = host.next_line(peer);
                    if heard.trim_end() != what.trim_end() {
                        wrong(&host, &format!("heard {heard:?}"));
                    }
                }
                ("hangs", "up", peer) => {
                    *is_there = false;
                    host.hang_up(peer);
                }
                ("is", "closed", peer) if host.is_closed(peer) => *end_is_told = true,
                ("is", "closed", _) => wrong(&host, "the session is open"),
                _ => wrong(&host, "a peer opens, says, hears, hangs up, or is closed"),
            }
        }
        for (name, (peer, is_there, end_is_told)) in &peers {
            let ends = host.is_closed(*peer) && *is_there && !end_is_told;
            assert!(!ends, "{name} is closed, and no line says so, played {way:?}\n{}", host.transcript());
            let rest = host.output(*peer);
            assert!(rest.is_empty(), "{name} was sent more, played {way:?}: {rest:?}\n{}", host.transcript());
        }
    }
}

impl<H: Handler> TestHost<H> {
    /// Sends bytes of a peer in pieces.
    #[track_caller]
    fn send_as(&mut self, peer: u64, bytes: &[u8], way: Way) {
        match way {
            Way::Plain | Way::Deaths => self.send(peer, bytes),
            Way::CutAt(at) => {
                let (first, rest) = bytes.split_at(at.min(bytes.len()));
                self.send(peer, first);
                self.send(peer, rest);
            }
            Way::ByteByByte => bytes.chunks(1).for_each(|byte| self.send(peer, byte)),
        }
    }
}

/// Fails at the line of a script that is played.
#[track_caller]
fn wrong<H: Handler>(host: &TestHost<H>, why: &str) -> ! {
    panic!("{}{why}\n{}", host.scene, host.transcript())
}

/// Time in words.
fn duration(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..unit].parse().ok()?;
    match text[unit..].trim() {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "min" => Some(Duration::from_secs(60 * number)),
        _ => None,
    }
}
