//! Peers of a host in memory: what they send and hear, and what a test may bring about.

use super::host::TestHost;
use super::input::{kind, next};
use super::services::Runs as _;
use super::shared::{Peer, Silence};
use crate::action::{Action, Closed, JobEnd};
use crate::framing::Framing;
use crate::handler::Handler;

/// Lines of a transcript that a failure shows.
const SHOWN_MAX: usize = 40;

impl<H: Handler> TestHost<H> {
    /// Opens a session, and returns its number.
    #[track_caller]
    pub fn open(&mut self) -> u64 {
        self.open_by(H::SERVICE)
    }

    /// Opens a session by an endpoint of this kind (`line`, `telnet`, `ws`, …), or one of another
    /// service by its name, and returns its number. Panics if there is no such endpoint.
    #[track_caller]
    pub fn open_by(&mut self, by: &str) -> u64 {
        match self.try_open_by(by) {
            Ok(session) => session,
            Err(why) => panic!("{why}"),
        }
    }

    /// Opens a session as above. The error says which endpoints and services there are.
    #[track_caller]
    pub(super) fn try_open_by(&mut self, by: &str) -> Result<u64, String> {
        let (service, framing) = match self.others.iter().position(|other| other.name() == by) {
            Some(at) => (at + 1, None),
            None if by == H::SERVICE => (0, None),
            None => match self.service.framings().into_iter().find(|f| kind(f) == by) {
                Some(framing) => (0, Some(framing)),
                None => return Err(self.no_endpoint(by)),
            },
        };
        self.opened += 1;
        let id = self.opened;
        self.tell(format!("{id} opens {by}"));
        self.shared.sessions.insert(id, Peer { service, framing, ..Peer::default() });
        self.turn(id, Action::Opened);
        Ok(id)
    }

    /// Words for an endpoint that is not there.
    fn no_endpoint(&self, by: &str) -> String {
        let kinds = self.service.framings().iter().map(kind).collect::<Vec<_>>().join(", ");
        let others: String = self.others.iter().map(|other| format!(", {}", other.name())).collect();
        format!("there is no endpoint or service {by:?}; there are: {kinds}; {}{others}", H::SERVICE)
    }

    /// Sends bytes of a peer, which the framing of its endpoint cuts into messages: any piece of a
    /// message, or several. A session that is closed takes none.
    #[track_caller]
    pub fn send(&mut self, session: u64, bytes: impl AsRef<[u8]>) {
        self.tell(format!("{} > {:?}", self.name_of(session), String::from_utf8_lossy(bytes.as_ref())));
        let first = self.service_of(session).framings()[0];
        let Some(peer) = self.shared.sessions.get_mut(&session) else { return };
        peer.input.extend_from_slice(bytes.as_ref());
        let framing = peer.framing.unwrap_or(first);
        while let Some(peer) = self.shared.sessions.get_mut(&session).filter(|peer| !peer.closed) {
            match next(&framing, &mut peer.input, &mut peer.framing_state) {
                None => break,
                Some(Ok(message)) => self.message(session, &message),
                Some(Err(_)) => self.turn(session, Action::Closed(Closed::Limit)),
            }
        }
    }

    /// Runs one line, and returns the output since the last look. A line that is longer than
    /// [`Turn::frame_max`](crate::Turn::frame_max) says ends its session.
    #[track_caller]
    pub fn line(&mut self, session: u64, line: impl AsRef<[u8]>) -> String {
        self.say(session, line.as_ref());
        self.output(session)
    }

    /// Runs the turn of one message of a peer.
    #[track_caller]
    pub(super) fn say(&mut self, session: u64, message: &[u8]) {
        self.tell(format!("{} > {:?}", self.name_of(session), String::from_utf8_lossy(message)));
        self.message(session, message);
    }

    /// Whether a peer sends whole messages, not a stream that a framing cuts.
    pub(super) fn sends_messages(&self, session: u64) -> bool {
        let peer = self.shared.sessions.get(&session);
        let framing = peer.and_then(|p| p.framing).unwrap_or_else(|| self.service_of(session).framings()[0]);
        matches!(framing, Framing::WebSocket { .. } | Framing::Peer { .. } | Framing::Datagrams { .. })
    }

    /// Runs the turn of one message.
    #[track_caller]
    fn message(&mut self, session: u64, message: &[u8]) {
        let now = self.shared.now;
        let mut fits = true;
        if let Some(peer) = self.shared.sessions.get_mut(&session) {
            fits = peer.frame_max == 0 || message.len() <= peer.frame_max;
            peer.silence = peer.silence.map(|s| Silence { at: Some(now + s.after), ..s });
        }
        match fits {
            true => self.turn(session, Action::Message(message)),
            false => self.turn(session, Action::Closed(Closed::Limit)),
        }
    }

    /// Ends a session as its peer would, unless it is closed already.
    #[track_caller]
    pub fn hang_up(&mut self, session: u64) {
        self.tell(format!("{} hangs up", self.name_of(session)));
        if !self.is_closed(session) {
            self.turn(session, Action::Closed(Closed::Peer));
        }
    }

    /// Output of a session since the last look.
    pub fn output(&mut self, session: u64) -> String {
        self.taken(session, usize::MAX)
    }

    /// Takes the next line of a session's output; without an end, all that there is.
    pub(super) fn next_line(&mut self, session: u64) -> String {
        let output = self.shared.sessions.get(&session).map(|p| &p.output[..]).unwrap_or_default();
        let end = output.iter().position(|byte| *byte == b'\n');
        self.taken(session, end.map_or(usize::MAX, |end| end + 1))
    }

    /// Takes at most so many bytes of a session's output.
    fn taken(&mut self, session: u64, bytes: usize) -> String {
        let peer = self.shared.sessions.get_mut(&session);
        let taken = peer.map(|p| p.output.drain(..bytes.min(p.output.len())).collect::<Vec<_>>());
        let output = String::from_utf8_lossy(&taken.unwrap_or_default()).into_owned();
        if !output.is_empty() {
            self.tell(format!("{} < {output:?}", self.name_of(session)));
        }
        output
    }

    /// Name of a session in the transcript: that of a conversation, or its number.
    fn name_of(&self, session: u64) -> String {
        self.named.get(&session).cloned().unwrap_or_else(|| session.to_string())
    }

    /// Takes a session's output, which must be this text. Panics with the transcript if not.
    ///
    /// ```should_panic
    /// # use greenroom_handler::{Handler, export, handler, testing::TestHost};
    /// # struct Quiet;
    /// # #[handler] impl Handler for Quiet { const SERVICE: &'static str = "quiet"; }
    /// # export!(Quiet);
    /// let mut host = TestHost::<Quiet>::new("{}").unwrap();
    /// let peer = host.open();
    /// host.send(peer, "hello\n");
    /// host.expect(peer, "hello\n");
    /// ```
    #[track_caller]
    pub fn expect(&mut self, session: u64, text: &str) {
        let output = self.output(session);
        if output != text {
            panic!("session {session} was sent {output:?}, and not {text:?}\n{}", self.transcript());
        }
    }

    /// Has jobs wait for [`TestHost::end_job`], from the next one on.
    pub fn hold_jobs(&mut self) {
        self.holds_jobs = true;
    }

    /// Numbers and names of the jobs that wait.
    pub fn jobs(&self) -> Vec<(u64, String)> {
        self.jobs.iter().map(|(_, number, name, _)| (*number, name.clone())).collect()
    }

    /// Ends a job that waits with a result, or a failure in words. Panics if there is no such job,
    /// or if the turn of its end fails.
    #[track_caller]
    pub fn end_job(&mut self, number: u64, result: Result<&[u8], &str>) {
        let at = self.jobs.iter().position(|(_, n, ..)| *n == number);
        let Some(at) = at else { panic!("no job {number} waits: {:?}", self.jobs()) };
        let (owner, _, name, _) = self.jobs.remove(at);
        self.tell(format!("-- job {number} {name} ends"));
        let end = match result {
            Ok(bytes) => JobEnd::Done(bytes),
            Err(why) => JobEnd::Failed(why),
        };
        self.turn(owner, Action::Job { number, name: &name, end });
    }

    /// Adds a line to the transcript.
    pub(super) fn tell(&mut self, line: String) {
        self.told.push(line);
    }

    /// Last lines of what peers have sent and heard so far.
    pub fn transcript(&self) -> String {
        let from = self.told.len().saturating_sub(SHOWN_MAX);
        self.told[from..].iter().map(|line| format!("  {line}\n")).collect()
    }
}
