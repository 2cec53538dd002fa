//! First turns of services under the build that serves from here on.

use crate::effects::action_record::{Data, PendingAction};
use crate::effects::running_batch::RunningBatch;
use crate::host_state::HostState;
use crate::host_state::deliver::deliver;
use crate::ids::Slot;
use greenroom_state::abi::{action, started};

/// Services by name, each with the reason of its first turn under another build. Asked before that
/// serves: a service that no build has served in this host begins with the host.
pub(super) fn starts_of<'a>(host: &HostState, names: impl Iterator<Item = &'a str>) -> Vec<(String, u32)> {
    let served = |name: &str| host.services.number(name).is_some_and(|n| host.services[n].build.is_some());
    let why = |name: &str| if served(name) { started::GENERATION } else { started::HOST };
    names.map(|name| (name.to_owned(), why(name))).collect()
}

/// Has each service run its first turn under its build. The action is in the commit of the build,
/// so it runs once, whatever dies.
pub(super) fn tell_started(host: &mut HostState, starts: Vec<(String, u32)>) {
    for (name, why) in starts {
        let Some(service) = host.services.number(&name) else { continue };
        let (kind, detail, data) = (action::STARTED, why as u16, Data::Own(&[]));
        // A library may be too old for it.
        if !host.services[service].code.knows(kind) {
            continue;
        }
        let told = PendingAction { kind, detail, from: 0, depth: 0, name: b"", data };
        deliver(host, Slot::of_service(service), &told, &RunningBatch::default());
    }
}
