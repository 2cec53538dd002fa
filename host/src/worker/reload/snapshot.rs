//! Live data that a candidate is rehearsed with: a pinned epoch, and what describes it.

use crate::plugin::live::LiveState;
use crate::plugin::trial::Snapshot;
use crate::worker::shell::Shell;
use greenroom_core::limits::per_service::AllLimits;
use greenroom_core::reload::request::{LibraryId, Want};
use greenroom_core::service::registry::Service;

/// Pins an epoch that a candidate is rehearsed with; `None`: no build of its library runs, or the
/// memory file cannot be opened again. Then the trial has no rehearsal.
///
/// The pin is released with the trial's answer ([`ReloadDriver::tried`]). Counts are those of now,
/// and the epoch is the last commit's; they limit the time of the trial. O(services + tables).
pub(super) fn snapshot_for(shell: &mut Shell, id: LibraryId, limits: AllLimits) -> Option<Snapshot> {
    let core = &shell.core;
    let library = core.reloads.libraries()[id.0].current.as_ref()?.library.clone();
    // Sessions of a service that no build offers may become the candidate's.
    let mine = |s: &&Service| {
        s.build.as_ref().is_some_and(|b| b.library == library) || (s.build.is_none() && s.sessions > 0)
    };
    let services: Vec<_> = core.services().iter().filter(mine).collect();
    let sessions: usize = services.iter().map(|s| s.sessions).sum();
    // Tables of the library, and tables without an owner: the candidate may come to own those.
    let owners = core.owners();
    let owned_by = |t: &str| owners.get(t).map(|o| &core.services()[usize::from(o.service.0)]);
    let tables = core.table_names().into_iter().filter(|t| owned_by(t).as_ref().is_none_or(mine));
    let entries = tables.map(|t| (t.clone(), core.tables().counts(&t))).collect();
    let offers = services.iter().map(|s| s.offer.clone()).collect();
    // Before the pin: a failure behind it would leave the epoch pinned.
    let records = shell.saver.records().ok()?;
    let back = core.reloads.under_way(id).is_some_and(|r| matches!(r.want, Want::RollBack(_)));
    // A rollback rehearses the way back: the build that runs downgrades what the earlier one reads.
    let serving = shell.builds.get(id).map(|r| (r.current.copy.clone(), r.current.entry.clone()));
    let newer = serving.clone().filter(|_| back);
    let live = LiveState {
        epoch: shell.core.pin(),
        limits: limits.host,
        service_limits: limits.services,
        offers,
        newer,
        serving,
        sessions: sessions as u64,
        entries,
        dropped: shell.core.tables().dropped(),
    };
    Some(Snapshot { records, live })
}
