//! End of a canary: its candidate leaves the services of its library.

use crate::host_state::HostState;
use crate::service::canary_counts::BothCounts;
use crate::service::offer::Build;
use crate::service::registry::LoadedBuild;
use crate::store::kind::Kind;

/// Ends the canary of a library whose services another build takes charge of. If that is the
/// candidate, its data are the new build's own; else the candidate converts them.
pub(super) fn end_for(host: &mut HostState, by: &Build) {
    let Some(candidate) = host.canaries.of(&by.library) else { return };
    let is_candidate = candidate.generation == by.generation;
    let mut retired = Vec::new();
    end(host, &by.library, |converters, candidate| match is_candidate {
        true => retired.push(candidate),
        false => converters.push(candidate),
    });
    host.services.retire(retired);
}

/// Takes the candidates of a library out of its services, and the records of their counts. `keep`
/// gets each with the converters of its service. Returns the counts of all services.
pub(super) fn end(
    host: &mut HostState,
    library: &str,
    mut keep: impl FnMut(&mut Vec<LoadedBuild>, LoadedBuild),
) -> BothCounts {
    let mut counts = BothCounts::default();
    let services: Vec<_> = host.services.with_canary(library).map(|(id, _)| id).collect();
    for id in services {
        host.host_records.delete(&mut host.store, Kind::Canary, u64::from(id.0));
        let service = &mut host.services[id];
        if let Some(canary) = service.canary.take() {
            counts.add(&canary.counts);
            keep(&mut service.converters, canary.build);
        }
    }
    host.canaries.remove(library);
    counts
}
