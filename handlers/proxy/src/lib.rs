//! `proxy`: asks for a password, connects to its target, and relays both ways. What one side sends
//! isn't read faster than the other takes it; when one side closes, so does the other, once it has
//! everything. `proxy-out` is the far side of each.
#![forbid(unsafe_code)]

use greenroom_handler::{Action, Fault, Framing, Handler, Job, JobEnd, NoConfig, Turn, export};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::{SocketAddr, ToSocketAddrs};

export!(Proxy, Far);

/// Passwords that a peer may try.
const TRIES: u32 = 3;
/// Bytes that a peer may send before it has said a password.
const LINE_MAX: usize = 1024;
/// A message that is longer becomes several. What comes with the password must fit into the state.
const FRAMING: Framing = Framing::Raw { bytes_max: 16 * 1024 };
/// What tells one side that the other is closed: what is relayed is never empty.
const CLOSED: &[u8] = b"";

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// Whoever says it is let through; without one, nobody is.
    password: Option<String>,
    /// Where to: HOST:PORT.
    target: String,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { password: None, target: "127.0.0.1:4002".into() }
    }
}

#[derive(Default, PartialEq, Serialize, Deserialize, JsonSchema)]
enum Stage {
    #[default]
    Asking,
    Connecting,
    /// With the session of the far side.
    Relaying(u64),
}

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Near {
    stage: Stage,
    tries: u32,
    /// What came before there was somebody to give it to.
    early: Vec<u8>,
}

struct Proxy(Settings);

impl Handler for Proxy {
    const SERVICE: &'static str = "proxy";
    const PORT: u16 = 4003;
    const FRAMING: Framing = FRAMING;
    type State = Near;
    type Config = Settings;

    fn new(settings: Settings) -> Result<Self, String> {
        match settings.target.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(Proxy(settings)),
            _ => Err(format!("target {:?} is not HOST:PORT", settings.target)),
        }
    }

    fn handle(&self, turn: &mut Turn<'_, Near>, action: Action<'_>) -> Result<(), Fault> {
        let far = if let Stage::Relaying(far) = turn.state.stage { Some(far) } else { None };
        match (action, far) {
            (Action::Opened, _) if self.0.password.is_none() => {
                turn.send_line("proxy: nobody is let through: set service.proxy.settings.password");
                turn.close();
            }
            (Action::Opened, _) => turn.send("password: "),
            (Action::Message(bytes), Some(far)) => {
                turn.note(far, bytes);
                turn.wait_for(far);
            }
            (Action::Message(bytes), None) => {
                turn.state.early.extend_from_slice(bytes);
                while turn.state.stage == Stage::Asking
                    && let Some(end) = turn.state.early.iter().position(|b| *b == b'\n')
                {
                    let line: Vec<u8> = turn.state.early.drain(..=end).collect();
                    self.said(turn, line.trim_ascii_end());
                }
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
                turn.go_on();
                let early = std::mem::take(&mut turn.state.early);
                if !early.is_empty() {
                    turn.note(far, early);
                }
            }
            (Action::Connect { result: Err(why), .. }, _) => give_up(turn, why),
            (Action::Note { bytes: CLOSED, .. }, _) => turn.close(),
            (Action::Note { bytes, .. }, _) => turn.send(bytes),
            (Action::Closed(_), Some(far)) => turn.note(far, CLOSED),
            _ => {}
        }
        Ok(())
    }

    /// The one job: what address the target has.
    fn job(&self, job: &Job<'_>) -> Result<Vec<u8>, Fault> {
        let name = std::str::from_utf8(job.input)?;
        let found = name.to_socket_addrs()?.next();
        let addr = found.ok_or_else(|| Fault::new(format!("{name} has no address")))?;
        Ok(addr.to_string().into_bytes())
    }
}

impl Proxy {
    fn said(&self, turn: &mut Turn<'_, Near>, line: &[u8]) {
        if self.0.password.as_ref().is_some_and(|p| p.as_bytes() == line) {
            turn.state.stage = Stage::Connecting;
            // Until there is somebody to give it to.
            turn.hold();
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
            turn.state.early.clear();
            turn.send_line("proxy: no");
            turn.close();
        }
    }

    fn connect(&self, turn: &mut Turn<'_, Near>, addr: SocketAddr) {
        turn.connect(Far::SERVICE, addr, CLOSED);
    }
}

fn give_up(turn: &mut Turn<'_, Near>, why: &str) {
    turn.send_line(format!("proxy: {why}"));
    turn.close();
}

/// The far side's: the session that it is the far side of.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Of {
    near: Option<u64>,
}

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

    fn handle(&self, turn: &mut Turn<'_, Of>, action: Action<'_>) -> Result<(), Fault> {
        if let Action::Dialed { by, .. } = action {
            turn.state.near = by;
        }
        let Some(near) = turn.state.near else { return Ok(()) };
        match action {
            Action::Message(bytes) => {
                turn.note(near, bytes);
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
