//! Addresses at which the host serves, as the author was told of them.
//!
//! A change of the source or of the configuration may open and close some: then the difference is
//! told, as it is after the start.

use crate::admin::client::call;
use crate::protocol::admin::{AdminCommand, Reply};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Addresses that the author knows, each as `SERVICE on ADDRESS`.
#[derive(Clone, Default)]
pub(super) struct ToldAddresses(Arc<Mutex<BTreeSet<String>>>);

impl ToldAddresses {
    /// Begins with the lines that a host prints at its start.
    pub(super) fn begin(&self, lines: &[String]) {
        // Behind the address it may say which stacks it takes.
        let short = |line: &String| line.splitn(4, ' ').take(3).collect::<Vec<_>>().join(" ");
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = lines.iter().map(short).collect();
    }

    /// Asks the host, and returns a line for each address that has come or gone. A host that does
    /// not answer has none.
    pub(super) fn changes(&self, runtime: &Path) -> Vec<String> {
        let mut now = None;
        let asked = call(runtime, &AdminCommand::Status, |reply| {
            if let Reply::Status(status) = reply {
                let of = |name: &str, at: &String| format!("{name} on {at}");
                let services = status.services.iter();
                now = Some(services.flat_map(|s| s.listen.iter().map(|at| of(&s.name, at))).collect());
            }
        });
        let (Ok(()), Some(now)) = (asked, now) else { return Vec::new() };
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changes = differences(&told, &now);
        *told = now;
        changes
    }
}

/// Lines for what has come and gone.
fn differences(before: &BTreeSet<String>, now: &BTreeSet<String>) -> Vec<String> {
    let come = now.difference(before).cloned();
    let gone = before.difference(now).map(|line| line.replacen(" on ", " no longer on ", 1));
    come.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_comes_or_goes_is_told_once() {
        let told = ToldAddresses::default();
        told.begin(&["a on tcp://127.0.0.1:1".into(), "b on tcp://[::]:2 (IPv4, too)".into()]);
        let before = told.0.lock().unwrap().clone();
        let now = ["b on tcp://[::]:2", "b on udp://127.0.0.1:3"].map(str::to_owned).into();
        assert_eq!(
            differences(&before, &now),
            ["b on udp://127.0.0.1:3", "a no longer on tcp://127.0.0.1:1"]
        );
        assert!(differences(&now, &now).is_empty());
    }
}
