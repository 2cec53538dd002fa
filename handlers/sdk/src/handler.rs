//! Trait that a service implements, and its actions.
//!
//! The types here are the SDK's promise to authors. Kinds of actions and of reasons for a close may
//! be added, so those types are `non_exhaustive`.

use crate::action::{Action, Closed, Job};
use crate::bounds::{HasSchema, Settings};
use crate::fault::Fault;
use crate::framing::{Endpoint, Framing};
use crate::migrate::Migrations;
use crate::page::Page;
use crate::table::Tables;
use crate::turn::Turn;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Service: one type of connection.
///
/// The value is built once when the library is loaded, from its configuration, and is never
/// changed. Data that a session must remember is in its state; data that sessions share is in
/// tables.
///
/// ```
/// use greenroom_handler::testing::Conversation;
/// use greenroom_handler::{Closed, Endpoint, Framing, Handler, Result, Turn, export, handler};
/// use std::time::Duration;
///
/// #[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// struct Seen {
///     lines: u64,
/// }
///
/// #[derive(serde::Deserialize)]
/// struct Config {
///     /// `[service.guests.settings]`, `greeting = "Hello."`
///     greeting: String,
/// }
///
/// struct Guests {
///     greeting: String,
/// }
///
/// #[handler]
/// impl Handler for Guests {
///     const SERVICE: &'static str = "guests";
///     const PORT: u16 = 4100;
///     const FRAMING: Framing = Framing::Lines { bytes_max: 200 };
///     const ENDPOINTS: &'static [Endpoint] = &[Endpoint::telnet(4101)];
///     /// `lines` was called `count` in version 1.
///     const STATE_VERSION: u32 = 2;
///     type State = Seen;
///     type Config = Config;
///
///     fn new(config: Config) -> Result<Guests, String> {
///         match config.greeting.is_empty() {
///             true => Err("greeting is empty".into()),
///             false => Ok(Guests { greeting: config.greeting }),
///         }
///     }
///
///     fn opened(&self, turn: &mut Turn<Seen>) -> Result {
///         turn.subscribe("room");
///         turn.set_timer("late", Duration::from_secs(60));
///         turn.send_line(&self.greeting);
///         Ok(())
///     }
///
///     fn message(&self, turn: &mut Turn<Seen>, line: &[u8]) -> Result {
///         turn.state.lines += 1;
///         turn.broadcast_line("room", line);
///         Ok(())
///     }
///
///     fn timer(&self, turn: &mut Turn<Seen>, _: &str) -> Result {
///         turn.send_line(format!("{} lines, and it is late.", turn.state.lines));
///         turn.close();
///         Ok(())
///     }
///
///     fn closed(&self, turn: &mut Turn<Seen>, why: Closed) -> Result {
///         turn.broadcast_line_others("room", format!("somebody left ({why:?})"));
///         Ok(())
///     }
///
///     fn migrations() -> greenroom_handler::Migrations {
///         greenroom_handler::Migrations::none().rename(1, "count", "lines")
///     }
/// }
///
/// export!(Guests);
///
/// Conversation::<Guests>::new(r#"{"greeting": "Hello."}"#).plays("
///     ann opens
///     ann hears Hello.
///     ann says hi
///     ann hears hi
///     30s pass
///     bob opens telnet
///     bob hears Hello.
///     30s pass
///     ann hears 1 lines, and it is late.
///     ann is closed
///     bob hears somebody left (Handler)
/// ");
/// ```
pub trait Handler: Sized + Send + Sync + 'static {
    /// Name of the service, unique in a host: letters, digits, `-` and `_`.
    const SERVICE: &'static str;
    /// TCP port on loopback where it listens unless the operator's file says otherwise; 0: none.
    const PORT: u16 = 0;
    /// Whether its sessions are connections that turns ask for ([`Turn::connect`]): it needs no
    /// port, though it may have one.
    ///
    /// ```
    /// # use greenroom_handler::{Handler, handler};
    /// struct Outward;
    /// #[handler]
    /// impl Handler for Outward {
    ///     const SERVICE: &'static str = "outward";
    ///     const DIALS: bool = true;
    /// }
    /// ```
    const DIALS: bool = false;
    /// Framing of its streams.
    const FRAMING: Framing = Framing::Lines { bytes_max: 8 * 1024 };
    /// Endpoints beside the first one, which [`Handler::PORT`] and [`Handler::FRAMING`] are. A
    /// session keeps the framing of its endpoint, also when a later build offers others.
    const ENDPOINTS: &'static [Endpoint] = &[];
    /// Version of the state. Raise it when the state's shape changes in any other way than by
    /// fields added with defaults, and add a migration.
    const STATE_VERSION: u32 = 1;

    /// State that the host keeps for each session; `()` for none, as [`macro@crate::handler`] fills
    /// in.
    type State: Default + Serialize + DeserializeOwned + HasSchema + 'static;
    /// Settings: `[service.NAME.settings]` of the host's file, a struct with a field for each key;
    /// [`crate::NoConfig`] for none, as [`macro@crate::handler`] fills in. Fields without a
    /// default are required.
    type Config: Settings;

    /// Builds the service. An error refuses the library and is shown to the operator. The value is
    /// dropped once another build has replaced this one, and not when a worker ends.
    fn new(config: Self::Config) -> Result<Self, String>;

    /// Callback: runs one action, in one turn. Unless it is written, each of the methods below gets
    /// its kind of action.
    ///
    /// ```
    /// use greenroom_handler::testing::TestHost;
    /// use greenroom_handler::{Action, Handler, Result, Turn, handler};
    ///
    /// struct Echo;
    /// #[handler]
    /// impl Handler for Echo {
    ///     const SERVICE: &'static str = "echo";
    ///     // All actions in one place, in the stead of a function for each kind.
    ///     fn handle(&self, turn: &mut Turn, action: Action) -> Result {
    ///         match action {
    ///             Action::Opened => turn.send_line("hello"),
    ///             Action::Message(line) => turn.send_line(line),
    ///             _ => {}
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut host = TestHost::<Echo>::new("{}").unwrap();
    /// let peer = host.open();
    /// assert_eq!(host.line(peer, "and you?"), "hello\nand you?\n");
    /// ```
    fn handle(&self, turn: &mut Turn<'_, Self::State>, action: Action<'_>) -> Result<(), Fault> {
        match action {
            Action::Message(bytes) => self.message(turn, bytes),
            Action::Opened => self.opened(turn),
            Action::Closed(why) => self.closed(turn, why),
            Action::Timer(name) => self.timer(turn, name),
            other => self.other(turn, other),
        }
    }

    /// Runs the first turn of a session.
    fn opened(&self, turn: &mut Turn<'_, Self::State>) -> Result<(), Fault> {
        let _ = turn;
        Ok(())
    }

    /// Runs a turn over a message, without its framing. Bytes, which need not be UTF-8.
    fn message(&self, turn: &mut Turn<'_, Self::State>, bytes: &[u8]) -> Result<(), Fault> {
        let _ = (turn, bytes);
        Ok(())
    }

    /// Runs the last turn of a session.
    fn closed(&self, turn: &mut Turn<'_, Self::State>, why: Closed) -> Result<(), Fault> {
        let _ = (turn, why);
        Ok(())
    }

    /// Runs the turn of a timer of the session. Fails unless it is written.
    fn timer(&self, turn: &mut Turn<'_, Self::State>, name: &str) -> Result<(), Fault> {
        let _ = turn;
        Err(Fault::new(format!("the service has no `fn timer`, and timer {name:?} fired")))
    }

    /// Runs a turn over any other action. Unless it is written, it fails for those that answer what
    /// a turn has asked for.
    ///
    /// ```
    /// use greenroom_handler::testing::TestHost;
    /// use greenroom_handler::{Action, Handler, Result, Turn, handler};
    ///
    /// struct Pager;
    /// #[handler]
    /// impl Handler for Pager {
    ///     const SERVICE: &'static str = "pager";
    ///     fn message(&self, turn: &mut Turn, line: &[u8]) -> Result {
    ///         let line = String::from_utf8_lossy(line);
    ///         let (whom, text) = line.split_once(' ').unwrap_or((&line, ""));
    ///         turn.note(whom.parse()?, text);
    ///         Ok(())
    ///     }
    ///     fn other(&self, turn: &mut Turn, action: Action) -> Result {
    ///         match action {
    ///             Action::Note { bytes, .. } => turn.send_line(bytes),
    ///             Action::Missed { count } => turn.send_line(format!("{count} were lost")),
    ///             _ => {}
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut host = TestHost::<Pager>::new("{}").unwrap();
    /// let (ann, bob) = (host.open(), host.open());
    /// host.line(ann, format!("{bob} lunch?"));
    /// assert_eq!(host.output(bob), "lunch?\n");
    /// ```
    fn other(&self, turn: &mut Turn<'_, Self::State>, action: Action<'_>) -> Result<(), Fault> {
        let _ = turn;
        let is_answer = matches!(action, Action::Job { .. } | Action::Connect { .. } | Action::Note { .. });
        match is_answer || matches!(action, Action::Published { .. } | Action::Woken | Action::Idle) {
            true => Err(Fault::new(format!("the service has no `fn other` for {action:?}"))),
            false => Ok(()),
        }
    }

    /// Runs an action of the service itself, which has no state: its start ([`Action::Started`]), a
    /// datagram ([`Framing::Datagrams`]), one of its timers, an entry that is over
    /// ([`Action::Expired`]), or a job that such a turn started. Effects that need a session (a
    /// subscription, a send but for an answer to a datagram) are refused.
    ///
    /// ```
    /// use greenroom_handler::testing::TestHost;
    /// use greenroom_handler::{Action, Handler, Result, Started, Table, Tables, Turn, handler};
    /// use std::time::Duration;
    ///
    /// /// Guests, each for a minute.
    /// const GUESTS: Table<u64> = Table::new("guests").hears_of_expiry();
    /// const HOUR: Duration = Duration::from_secs(3600);
    ///
    /// struct Door;
    /// #[handler]
    /// impl Handler for Door {
    ///     const SERVICE: &'static str = "door";
    ///     fn tables() -> Tables {
    ///         Tables::none().own(&GUESTS)
    ///     }
    ///     fn message(&self, turn: &mut Turn, name: &[u8]) -> Result {
    ///         turn.subscribe("door");
    ///         let (until, session) = (turn.wall() + Duration::from_secs(60), turn.session());
    ///         GUESTS.put_until(turn, name, &session, until)
    ///     }
    ///     fn handle_service(&self, turn: &mut Turn, action: Action) -> Result {
    ///         match action {
    ///             // The first turn of the service: the place for its first timer.
    ///             Action::Started(Started::Host) => turn.set_service_timer("hour", HOUR),
    ///             Action::Timer("hour") => {
    ///                 turn.broadcast_line("door", "an hour is over");
    ///                 turn.set_service_timer("hour", HOUR);
    ///             }
    ///             Action::Expired { key, .. } => {
    ///                 turn.broadcast_line("door", [key, b" must go"].concat());
    ///             }
    ///             _ => {}
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut host = TestHost::<Door>::new("{}").unwrap();
    /// host.turn(0, Action::Started(Started::Host)); // 0: the service itself
    /// let peer = host.open();
    /// host.line(peer, "ann");
    /// host.advance(HOUR);
    /// assert_eq!(host.output(peer), "ann must go\nan hour is over\n");
    /// ```
    fn handle_service(&self, turn: &mut Turn<'_, ()>, action: Action<'_>) -> Result<(), Fault> {
        let _ = turn;
        let what = match action {
            // Most services have nothing to do then.
            Action::Started(_) => return Ok(()),
            // Its bytes are a stranger's, and may be many.
            Action::Datagram { .. } => "a datagram".to_owned(),
            other => format!("{other:?}"),
        };
        Err(Fault::new(format!("the service has no handle_service for {what}")))
    }

    /// Runs a job that a turn started, by its name. It has a thread of its own and may block, to
    /// resolve a name ([`std::net::ToSocketAddrs`]), to read a file or to compute. It sees its
    /// input, and nothing of sessions and tables.
    ///
    /// ```
    /// use greenroom_handler::testing::TestHost;
    /// use greenroom_handler::{Action, Fault, Handler, Job, JobEnd, Result, Turn, handler};
    ///
    /// struct Sums;
    /// #[handler]
    /// impl Handler for Sums {
    ///     const SERVICE: &'static str = "sums";
    ///     fn message(&self, turn: &mut Turn, line: &[u8]) -> Result {
    ///         turn.start_job("sum", line);
    ///         Ok(())
    ///     }
    ///     fn job(&self, job: &Job) -> Result<Vec<u8>> {
    ///         let up_to: u64 = std::str::from_utf8(job.input)?.parse()?;
    ///         let mut sum = 0_u64;
    ///         for n in 1..=up_to {
    ///             if job.is_cancelled() {
    ///                 return Err(Fault::new("nobody waits any more"));
    ///             }
    ///             sum += n;
    ///         }
    ///         Ok(format!("{}: {sum}", job.name).into_bytes())
    ///     }
    ///     fn other(&self, turn: &mut Turn, action: Action) -> Result {
    ///         match action {
    ///             Action::Job { end: JobEnd::Done(result), .. } => turn.send_line(result),
    ///             Action::Job { end: JobEnd::Failed(why), .. } => turn.send_line(why),
    ///             // Its process has died, and it was started to run only once.
    ///             Action::Job { end: JobEnd::Lost(why), .. } => turn.send_line(why),
    ///             _ => {}
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut host = TestHost::<Sums>::new("{}").unwrap();
    /// let peer = host.open();
    /// assert_eq!(host.line(peer, "100"), "sum: 5050\n");
    /// assert_eq!(host.line(peer, "x"), "invalid digit found in string\n");
    /// ```
    fn job(&self, job: &Job<'_>) -> Result<Vec<u8>, Fault> {
        Err(Fault::new(format!("the service has no job {:?}", job.name)))
    }

    /// Returns the page of a path, for a plain GET or HEAD at a service of [`Framing::WebSocket`];
    /// `None`: there is none, and the peer gets status 404. The host speaks nothing else of HTTP.
    ///
    /// ```
    /// use greenroom_handler::{Framing, Handler, Page, handler};
    ///
    /// struct Site;
    /// #[handler]
    /// impl Handler for Site {
    ///     const SERVICE: &'static str = "site";
    ///     const FRAMING: Framing = Framing::WebSocket { bytes_max: 4096, protocols: &[] };
    ///     fn page(&self, path: &str) -> Option<Page> {
    ///         match path {
    ///             "/" => Some(Page::html("<script src=site.js></script>")),
    ///             "/site.js" => {
    ///                 let content_type = "text/javascript".into();
    ///                 Some(Page { content_type, bytes: b"hello()".into() })
    ///             }
    ///             _ => None,
    ///         }
    ///     }
    /// }
    ///
    /// assert_eq!(Site.page("/").unwrap().content_type, "text/html; charset=utf-8");
    /// assert_eq!(Site.page("/other"), None);
    /// ```
    fn page(&self, path: &str) -> Option<Page> {
        let _ = path;
        None
    }

    /// Migrations that take states of older versions to the next one.
    fn migrations() -> Migrations {
        Migrations::none()
    }

    /// Tables that this service owns. A table has one owner in a host; without an owner, its values
    /// are not checked.
    fn tables() -> Tables {
        Tables::none()
    }
}
