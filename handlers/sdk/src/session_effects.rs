//! Effects on other sessions, and the names that sessions hold.

use crate::topic_effects::Broadcast;
use crate::turn::Turn;

/// Other sessions: notes, wakes, sends, and names.
///
/// ```
/// use greenroom_handler::testing::Conversation;
/// use greenroom_handler::{Action, Broadcast, Handler, OrTell, Result, Turn, handler};
///
/// struct Page;
/// #[handler]
/// impl Handler for Page {
///     const SERVICE: &'static str = "page";
///     fn message(&self, turn: &mut Turn, line: &[u8]) -> Result {
///         let line = String::from_utf8_lossy(line);
///         let (verb, what) = line.split_once(' ').unwrap_or((&line, ""));
///         let of_name = |turn: &mut Turn| turn.whereis(what).or_tell("Nobody.");
///         match verb {
///             "I'm" => _ = turn.register(what),
///             "forget" => turn.unregister(what),
///             "who" => {
///                 let names = turn.names_from("", 100).into_iter().map(|(name, _)| name);
///                 turn.send_line(names.collect::<Vec<_>>().join(&b' '));
///             }
///             // The other session runs a turn over the bytes.
///             "call" => {
///                 let session = of_name(turn)?;
///                 turn.note(session, "Somebody calls.");
///             }
///             // The bytes go to its peer as they are, without a turn.
///             "poke" => {
///                 let session = of_name(turn)?;
///                 turn.send_line_to(session, "Poke.");
///             }
///             "kick" => {
///                 let session = of_name(turn)?;
///                 turn.close_session(session);
///             }
///             "all" => {
///                 for session in turn.sessions_from(0, 100) {
///                     turn.send_to_with(session, what, Broadcast::LINE | Broadcast::OTHERS);
///                     turn.wake(session);
///                 }
///             }
///             _ => turn.send_to(turn.session(), "?\n"),
///         }
///         Ok(())
///     }
///     fn other(&self, turn: &mut Turn, action: Action) -> Result {
///         match action {
///             Action::Note { bytes, .. } => turn.send_line(bytes),
///             Action::Woken => turn.send_line("awake"),
///             _ => {}
///         }
///         Ok(())
///     }
/// }
///
/// Conversation::<Page>::new("{}").plays("
///     ann opens
///     ann says I'm ann
///     bob opens
///     bob says I'm bob
///     bob says who
///     bob hears ann bob
///     bob says call ann
///     ann hears Somebody calls.
///     bob says poke ann
///     ann hears Poke.
///     bob says all Fire!
///     bob hears awake
///     ann hears Fire!
///     ann hears awake
///     bob says forget bob
///     ann says call bob
///     ann hears Nobody.
///     bob says kick ann
///     ann is closed
///     bob says ?
///     bob hears ?
/// ");
/// ```
impl<S> Turn<'_, S> {
    /// Sends a note to another session, which runs a turn over these bytes,
    /// [`crate::Action::Note`]. A note to this session itself comes before its next message.
    /// Nothing happens if the session is gone. A session learns its number from [`Turn::session`].
    pub fn note(&mut self, session: u64, bytes: impl AsRef<[u8]>) {
        let status = self.host.note(session, bytes.as_ref());
        self.note_refusal("a note", status);
    }

    /// Wakes a session of this library: it runs a turn of [`crate::Action::Woken`]. A wake is
    /// never dropped, as notes may be, and wakes that wait for one turn are one. So a queue in a
    /// table and a wake behind each entry lose nothing.
    ///
    /// A session that wakes itself has that turn in the next pass of the host, before its next
    /// message. So long work goes on in slices, and other sessions have their turns between them.
    pub fn wake(&mut self, session: u64) {
        let status = self.host.wake(session);
        self.note_refusal("a wake", status);
    }

    /// Wakes this session once its output is sent: the place to go on with output that is too much
    /// at once. A wake that waits already is that turn, and a takeover brings it earlier; so ask
    /// [`Turn::unsent`]. The session's messages come meanwhile.
    ///
    /// ```
    /// use greenroom_handler::testing::TestHost;
    /// use greenroom_handler::{Action, Handler, Result, Turn, handler};
    ///
    /// /// Sends ten pages, each when the one before is taken.
    /// struct Book;
    /// #[handler]
    /// impl Handler for Book {
    ///     const SERVICE: &'static str = "book";
    ///     type State = u32;
    ///     fn opened(&self, turn: &mut Turn<u32>) -> Result {
    ///         turn.wake_when_drained();
    ///         Ok(())
    ///     }
    ///     fn other(&self, turn: &mut Turn<u32>, action: Action) -> Result {
    ///         if action == Action::Woken && *turn.state < 10 {
    ///             if turn.unsent() == 0 {
    ///                 *turn.state += 1;
    ///                 turn.send_line(format!("page {}", *turn.state));
    ///             }
    ///             turn.wake_when_drained();
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut host = TestHost::<Book>::new("{}").unwrap();
    /// let peer = host.open();
    /// assert!(host.output(peer).ends_with("page 10\n"));
    /// ```
    pub fn wake_when_drained(&mut self) {
        let status = self.host.wake_when_drained();
        self.note_refusal("a wake", status);
    }

    /// Bytes of this session's output that the kernel had not taken when the batch began.
    pub fn unsent(&mut self) -> u64 {
        self.host.unsent()
    }

    /// First `max` open sessions of the service whose numbers are above `after`, in order.
    pub fn sessions_from(&mut self, after: u64, max: usize) -> Vec<u64> {
        let mut found = Vec::new();
        let mut last = after;
        while found.len() < max {
            last = self.host.session_next(last);
            match last {
                0 => break,
                id => found.push(id),
            }
        }
        found
    }

    /// Sends bytes to the peer of a session of this library. Nothing happens if the session is
    /// gone.
    pub fn send_to(&mut self, session: u64, bytes: impl AsRef<[u8]>) {
        self.send_to_with(session, bytes, Broadcast::ALL);
    }

    /// Sends a line to the peer of a session, as [`Turn::send_line`] does.
    pub fn send_line_to(&mut self, session: u64, line: impl AsRef<[u8]>) {
        self.send_to_with(session, line, Broadcast::LINE);
    }

    /// Sends bytes to the peer of a session, in the ways that `how` names.
    pub fn send_to_with(&mut self, session: u64, bytes: impl AsRef<[u8]>, how: Broadcast) {
        let status = self.host.send_to(session, bytes.as_ref(), how.0);
        self.note_refusal("a send", status);
    }

    /// Closes a session of this library, once the actions that wait for it have had their turns.
    /// Nothing happens if the session is gone.
    pub fn close_session(&mut self, session: u64) {
        let status = self.host.close_session(session);
        self.note_refusal("a close", status);
    }

    /// Gives a name to this session, and returns the session that held it before, if any. That one
    /// loses it. Each name has one holder in the service, and goes with its session, however that
    /// ends. Saved files hold no names. A session has at most `names_per_session_max` names.
    ///
    /// ```
    /// use greenroom_handler::Turn;
    ///
    /// /// Lets a client in by its name. A connection that it left behind is closed.
    /// fn enter(turn: &mut Turn<'_, ()>, client: &str) {
    ///     if let Some(before) = turn.register(client).filter(|s| *s != turn.session()) {
    ///         turn.close_session(before);
    ///     }
    /// }
    /// ```
    pub fn register(&mut self, name: impl AsRef<[u8]>) -> Option<u64> {
        self.host.register(name.as_ref()).unwrap_or_else(|status| {
            self.note_refusal("a name", status);
            None
        })
    }

    /// Gives up a name. Nothing happens if this session does not hold it.
    pub fn unregister(&mut self, name: impl AsRef<[u8]>) {
        let status = self.host.unregister(name.as_ref());
        self.note_refusal("a name", status);
    }

    /// Session that holds a name of the service.
    pub fn whereis(&mut self, name: impl AsRef<[u8]>) -> Option<u64> {
        self.host.whereis(name.as_ref())
    }

    /// First `max` names of the service that are not before `from`, in order, with the sessions
    /// that hold them. The next part begins behind the last one with a zero byte appended.
    pub fn names_from(&mut self, from: impl AsRef<[u8]>, max: usize) -> Vec<(Vec<u8>, u64)> {
        let mut next = from.as_ref().to_vec();
        let mut found = Vec::new();
        while found.len() < max
            && let Some((name, holder)) = self.host.name_next(&next)
        {
            next.clone_from(&name);
            next.push(0);
            found.push((name, holder));
        }
        found
    }
}
