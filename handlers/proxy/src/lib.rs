//! Service `proxy`: asks for a password, connects to its target, and relays both ways.
//!
//! `proxy-out` is the far side of each session. The two sides are sessions of their own and
//! pass data to each other as notes.
//!
//! | stage of the near side | input | leaves the stage by |
//! | --- | --- | --- |
//! | asking | lines are passwords | the right password; three wrong ones close |
//! | connecting | held by the host | the outcome of the connection |
//! | relaying | noted to the far side | a close of either side |
//!
//! Input of one side is not read faster than the other side's peer takes it. If one side
//! closes, so does the other one, after its output was taken. All of it is state, so a reload
//! or a takeover in the middle of a transfer loses no byte.
#![forbid(unsafe_code)]

use greenroom_handler::{Action, Fault, Framing, Handler, Job, JobEnd, NoConfig, Turn, export};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::{SocketAddr, ToSocketAddrs};

export!(Proxy, Far);

/// Passwords that a peer may try before the session is closed.
const TRIES: u32 = 3;
/// Bytes that a peer may send before a password's line ends. Bounds the state.
const LINE_MAX: usize = 1024;
/// Framing of both sides: bytes as they come, at most 16 KiB at once. What comes with the
/// password is kept in the state, so a message must fit there.
const FRAMING: Framing = Framing::Raw { bytes_max: 16 * 1024 };
/// Note that tells one side that the other is closed. No data looks like that: what is relayed
/// is never empty.
const CLOSED: &[u8] = b"";

// Settings of the service.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// Password that lets a peer through; none: no peer gets through.
    password: Option<String>,
    /// Target of the connections: HOST:PORT. A host name is resolved for each session.
    target: String,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { password: None, target: "127.0.0.1:4002".into() }
    }
}

// Stage of a near session's life.
#[derive(Default, PartialEq, Serialize, Deserialize, JsonSchema)]
enum Stage {
    /// Waits for the password.
    #[default]
    Asking,
    /// Has the password; the address is looked up, or the connection is being made.
    Connecting,
    /// Number of the far session.
    Relaying(u64),
}

// State of a near session.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Near {
    /// Stage of the session.
    stage: Stage,
    /// Wrong passwords so far.
    tries: u32,
    /// Bytes that came before there was a far session to take them.
    early: Vec<u8>,
}

/// Service `proxy`, the near side, with its settings.
struct Proxy(Settings);

impl Handler for Proxy {
    const SERVICE: &'static str = "proxy";
    const PORT: u16 = 4003;
    const FRAMING: Framing = FRAMING;
    type State = Near;
    type Config = Settings;

    /// Refuses a target that is not HOST:PORT. Whether the host exists is found out for each
    /// session.
    fn new(settings: Settings) -> Result<Self, String> {
        match settings.target.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(Proxy(settings)),
            _ => Err(format!("target {:?} is not HOST:PORT", settings.target)),
        }
    }

    /// Runs an action of the near side. Bytes go to the far side or into the state, never
    /// anywhere else.
    fn handle(&self, turn: &mut Turn<'_, Near>, action: Action<'_>) -> Result<(), Fault> {
        let far = if let Stage::Relaying(far) = turn.state.stage { Some(far) } else { None };
        match (action, far) {
            // A proxy without a password would be open to everybody, so a missing setting
            // closes and not opens.
            (Action::Opened, _) if self.0.password.is_none() => {
                turn.send_line("proxy: nobody is let through: set service.proxy.settings.password");
                turn.close();
            }
            (Action::Opened, _) => turn.send("password: "),
            (Action::Message(bytes), Some(far)) => {
                turn.note(far, bytes);
                // After the note: from here on input waits while the far peer leaves its output
                // untaken.
                turn.wait_for(far);
            }
            (Action::Message(bytes), None) => {
                turn.state.early.extend_from_slice(bytes);
                // A raw message is cut anywhere: it may hold several lines, or a password and
                // the data behind it.
                while turn.state.stage == Stage::Asking
                    && let Some(end) = turn.state.early.iter().position(|b| *b == b'\n')
                {
                    let line: Vec<u8> = turn.state.early.drain(..=end).collect();
                    self.said(turn, line.trim_ascii_end());
                }
                // Without this a peer that sends no line end would fill the state.
                if turn.state.stage == Stage::Asking && turn.state.early.len() > LINE_MAX {
                    turn.send_line("proxy: that is no password");
                    turn.close();
                }
            }
            (Action::Job { end, .. }, _) => match end {
                JobEnd::Done(addr) => self.connect(turn, std::str::from_utf8(addr)?.parse()?),
                JobEnd::Failed(why) | JobEnd::Lost(why) => give_up(turn, why),
            },
            (Action::Connect { result: Ok(far), .. }, _) => {
                turn.state.stage = Stage::Relaying(far);
                // Input goes on after this turn, so it follows the early bytes that are noted
                // below.
                turn.go_on();
                let early = std::mem::take(&mut turn.state.early);
                if !early.is_empty() {
                    turn.note(far, early);
                }
            }
            (Action::Connect { result: Err(why), .. }, _) => give_up(turn, why),
            // Closing flushes first, so the peer gets everything that the far side had sent
            // before.
            (Action::Note { bytes: CLOSED, .. }, _) => turn.close(),
            (Action::Note { bytes, .. }, _) => turn.send(bytes),
            // Without a far session nothing is told: the host drops a connection that its
            // session waits for.
            (Action::Closed(_), Some(far)) => turn.note(far, CLOSED),
            _ => {}
        }
        Ok(())
    }

    /// Job `resolve`: the address of the target. A lookup may block for seconds, so no turn
    /// does it. Fails if the name has no address; the first address counts.
    fn job(&self, job: &Job<'_>) -> Result<Vec<u8>, Fault> {
        let name = std::str::from_utf8(job.input)?;
        let found = name.to_socket_addrs()?.next();
        let addr = found.ok_or_else(|| Fault::new(format!("{name} has no address")))?;
        Ok(addr.to_string().into_bytes())
    }
}

impl Proxy {
    /// Checks one password. The right one begins the connection, the last wrong one closes the
    /// session.
    fn said(&self, turn: &mut Turn<'_, Near>, line: &[u8]) {
        if self.0.password.as_ref().is_some_and(|p| p.as_bytes() == line) {
            turn.state.stage = Stage::Connecting;
            // Until there is a far session that takes the input.
            turn.hold();
            // A numeric address needs no lookup, and so no job.
            match self.0.target.parse() {
                Ok(addr) => self.connect(turn, addr),
                Err(_) => _ = turn.start_job("resolve", &self.0.target),
            }
            return;
        }
        turn.state.tries += 1;
        if turn.state.tries < TRIES {
            turn.send("password: ");
        } else {
            // Passwords that wait behind the last wrong one must not be tried.
            turn.state.early.clear();
            turn.send_line("proxy: no");
            turn.close();
        }
    }

    /// Asks for the far session. The outcome comes as an action, in a later turn.
    fn connect(&self, turn: &mut Turn<'_, Near>, addr: SocketAddr) {
        turn.connect(Far::SERVICE, addr, CLOSED);
    }
}

/// Tells the peer why there is no far side, and closes the session.
fn give_up(turn: &mut Turn<'_, Near>, why: &str) {
    turn.send_line(format!("proxy: {why}"));
    turn.close();
}

// State of a far session: its near session, known from the dial on.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Of {
    /// Number of the near session; none before the dial.
    near: Option<u64>,
}

/// Service `proxy-out`, the far side: sessions that `proxy` asks for. Has no port of its own.
struct Far;

impl Handler for Far {
    const SERVICE: &'static str = "proxy-out";
    const PORT: u16 = 0;
    const DIALS: bool = true;
    const FRAMING: Framing = FRAMING;
    type State = Of;
    type Config = NoConfig;

    fn new(_: NoConfig) -> Result<Self, String> {
        Ok(Far)
    }

    /// Runs an action of the far side. A far session relays from its dial on, so it has no
    /// stages.
    fn handle(&self, turn: &mut Turn<'_, Of>, action: Action<'_>) -> Result<(), Fault> {
        if let Action::Dialed { by, .. } = action {
            turn.state.near = by;
        }
        // A session that was not dialed has no near side: an operator has given this service an
        // address.
        let Some(near) = turn.state.near else { return Ok(()) };
        match action {
            Action::Message(bytes) => {
                turn.note(near, bytes);
                // The target's data waits in the kernel while the near peer is slow.
                turn.wait_for(near);
            }
            Action::Note { bytes: CLOSED, .. } => turn.close(),
            Action::Note { bytes, .. } => turn.send(bytes),
            Action::Closed(_) => turn.note(near, CLOSED),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenroom_handler::testing::TestHost;

    fn proxy(settings: &str) -> TestHost<Proxy> {
        TestHost::new(settings).unwrap()
    }

    #[test]
    fn asks_connects_and_relays() {
        let mut host = proxy(r#"{"password": "open", "target": "127.0.0.1:9"}"#);
        let peer = host.open();
        assert_eq!(host.output(peer), "password: ");
        assert_eq!(host.line(peer, "wrong\nop"), "password: ");
        assert_eq!(host.line(peer, "en\r\nearly"), "");
        let (by, service, addr, _) = &host.connects()[0];
        assert_eq!((*by, &service[..], &addr[..]), (peer, "proxy-out", "127.0.0.1:9"));
        host.turn(peer, Action::Connect { number: 1, result: Ok(7) });
        assert!(host.state(peer).early.is_empty());
        host.turn(peer, Action::Note { from: Some(7), bytes: b"answer" });
        assert_eq!(host.output(peer), "answer");
        host.turn(peer, Action::Note { from: Some(7), bytes: CLOSED });
        assert!(host.is_closed(peer));
    }

    #[test]
    fn lets_nobody_through_without_a_password_or_after_three_tries() {
        let mut host = proxy("{}");
        let peer = host.open();
        assert!(host.is_closed(peer) && host.output(peer).contains("set service.proxy.settings.password"));
        let mut host = proxy(r#"{"password": "open"}"#);
        let peer = host.open();
        assert_eq!(host.line(peer, "a\nb\nc\nopen\n"), "password: password: password: proxy: no\n");
        assert!(host.is_closed(peer) && host.connects().is_empty());
        assert!(TestHost::<Proxy>::new(r#"{"target": "nowhere"}"#).is_err());
    }

    #[test]
    fn a_name_is_resolved_by_a_job() {
        let mut host = proxy(r#"{"password": "open", "target": "localhost:9"}"#);
        let peer = host.open();
        host.line(peer, "open\n");
        assert!(host.connects()[0].2.ends_with(":9"), "{:?}", host.connects());
        host.turn(peer, Action::Connect { number: 1, result: Err("refused") });
        assert_eq!(host.output(peer), "proxy: refused\n");
        assert!(host.is_closed(peer));
    }
}
