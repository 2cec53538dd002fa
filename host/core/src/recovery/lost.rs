//! Words for records that were lost.

use crate::ids::service_of_number;
use crate::store::kind::Kind;
use crate::store::recover::Erased;

/// Returns what an erased record held, and why it was erased, in words. The key is as it was
/// read, and may be damaged itself.
pub(super) fn describe(erased: &Erased) -> String {
    let Erased { kind, key, is_later } = *erased;
    let of_session = |part: &str| format!("session {key}: {part}");
    let what = match Kind::from_number(kind) {
        Some(Kind::Session) => of_session("the record"),
        Some(Kind::State) => of_session("the state"),
        Some(Kind::Input | Kind::InputTail) => of_session("input"),
        Some(Kind::Framing) => of_session("the state of the framing"),
        Some(Kind::Output | Kind::Shared) => of_session("output"),
        Some(Kind::Tls | Kind::TlsInput | Kind::TlsFacts | Kind::TlsDue) => of_session("its part of TLS"),
        Some(Kind::Socket) => of_session("its stream of WebSocket"),
        Some(Kind::Topics | Kind::Subscription) => of_session("the topics"),
        Some(Kind::Name) => of_session("a name that it holds"),
        Some(Kind::Undo) => "what the last change of an operator replaced".into(),
        Some(Kind::Birth) => "the secret of the host".into(),
        Some(Kind::Terms) => format!("terms of session {key}"),
        Some(Kind::Quarantine) => of_session("the quarantine"),
        Some(Kind::Waits) => of_session("what it waits for"),
        Some(Kind::Action | Kind::Timer | Kind::Job | Kind::Connect) => match service_of_number(key) {
            Some(service) => {
                format!("service {}: a timer, a job or a connection of its own", service.0)
            }
            None => of_session("an action, a timer, a job or a connection"),
        },
        Some(Kind::Entry) => "an entry of a table".into(),
        Some(Kind::Library) => format!("the builds of library {key}"),
        Some(Kind::Payload) => "a message for several sessions".into(),
        Some(Kind::Config) => "the configuration in force".into(),
        Some(Kind::HeldFile) => "the content of a file in settings".into(),
        Some(Kind::Ports) => "the list of ports".into(),
        Some(Kind::Ledger) => format!("line {key} of the ledger"),
        Some(Kind::Served) => "the number of the last connection".into(),
        Some(Kind::Service) => format!("the name of service {key}"),
        Some(Kind::Expiring) => "an entry of a table".into(),
        Some(Kind::Drop) => "the drop of a table's prefix".into(),
        Some(Kind::Framings) => format!("the framings of service {key}"),
        None => "a block".into(),
    };
    match is_later {
        true => format!("{what} is of a later version than this build reads"),
        false => format!("{what} is damaged"),
    }
}
