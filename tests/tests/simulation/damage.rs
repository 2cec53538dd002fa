//! Damaged memory: records that a wild write hit are given up, and the rest is served.

use crate::model::Subject;
use crate::peers::PEERS_MAX;
use crate::reloads::{LIBRARY, offer};
use crate::roads::{SealedRecords, ciphers};
use crate::world::World;
use greenroom_core::core::Core;
use greenroom_core::core::Successor;
use greenroom_core::ids::Slot;
use greenroom_core::input::Input;
use greenroom_core::recovery::rebuild::Survivor;
use greenroom_core::recovery::reconcile::StreamCounts;
use greenroom_core::service::offer::Build;
use greenroom_core::store::memory::Plain;
use greenroom_core::store::records::Store;

/// Seeds whose stores are damaged.
const SEEDS: u64 = 40;

/// Copies of each store that are damaged, each in its own way.
const COPIES: u64 = 10;

/// A wild write may have hit anything. Nothing dies of it.
#[test]
fn damaged_records_are_given_up_and_the_rest_goes_on() {
    let (mut lost_all, mut kept_all) = (0, 0);
    for seed in 0..SEEDS {
        let world = crowded_world(seed);
        let image = world.host.core.store().image().to_vec();
        for copy in 0..COPIES {
            let mut rng = fastrand::Rng::with_seed(seed * 100 + copy);
            let damaged = overwrite(image.clone(), &mut rng);

            let Some((lost, kept)) = serve_from(&damaged, &world) else { continue };

            lost_all += lost;
            kept_all += kept;
        }
    }
    println!("{lost_all} records given up, {kept_all} sessions kept");
    assert!(lost_all > 100 && kept_all > 1000);
}

/// A world with as many peers as there may be, whose turns do not check their counters any more.
fn crowded_world(seed: u64) -> World {
    let mut world = World::new(seed, Subject::Script);
    while world.network.peers.len() < PEERS_MAX {
        world.step();
    }
    world.damaged = true;
    world
}

/// Overwrites up to 399 places with up to 31 random bytes each.
fn overwrite(mut image: Vec<u8>, rng: &mut fastrand::Rng) -> Vec<u8> {
    for _ in 0..rng.usize(1..400) {
        let at = rng.usize(0..image.len());
        let end = (at + rng.usize(1..32)).min(image.len());
        rng.fill(&mut image[at..end]);
    }
    image
}

/// Recovers a core from a damaged store, and has it serve: the numbers of records that are given
/// up and of sessions that are kept. `None` without the store's head, which recovery reports.
fn serve_from(image: &[u8], world: &World) -> Option<(usize, usize)> {
    let limits = world.host.core.limits().clone();
    let memory = Box::new(Plain::cut_after(image, None));
    let found = Store::recover(memory, limits.store_bytes_max).ok()?;
    let Successor { mut core, survivors, lost } = Core::recover(limits, found, world.host.now_ns);
    core.handle(Input::Ciphers(ciphers(&SealedRecords::default())));
    let serving = world.builds.serving;
    let build = Build { library: LIBRARY.into(), generation: serving.generation, hash: String::new() };
    core.adopt(&build, vec![(offer(world.subject, &serving), world.code(&build, None))]);
    let kept = reconcile(&mut core, &survivors, world);

    core.handle(Input::WallClock { unix_ns: world.host.wall_ns });
    core.handle(Input::PassBegins { now_ns: world.host.now_ns });
    for &slot in &kept {
        core.handle(Input::Received { slot, bytes: b"\nadd 1\n" });
    }
    core.handle(Input::Commit);
    core.handle(Input::PassBegins { now_ns: world.host.now_ns + 1 });
    core.handle(Input::Stop);
    core.handle(Input::Commit);
    Some((lost.len() + survivors.len() - kept.len(), kept.len()))
}

/// Slots of the sessions that agree with what the kernel counted. The others are given up, with
/// the session's number as the first words of the reason.
fn reconcile(core: &mut Core, survivors: &[Survivor], world: &World) -> Vec<Slot> {
    let mut kept = Vec::new();
    for s in survivors {
        let peer = world.network.peers.iter().find(|p| p.id == s.id);
        let (read, sent) = match core.sessions().get(s.slot) {
            // Nobody counts datagrams.
            Some(s) if s.udp_end().is_some() => (s.bytes_in, s.bytes_out),
            _ => peer.map_or((0, 0), |p| (p.read, p.sent)),
        };
        match core.reconcile(s.slot, StreamCounts::Kernel { read, sent: Some(sent) }) {
            Ok(_) => kept.push(s.slot),
            Err(why) => assert!(why.starts_with("session "), "{why}"),
        }
    }
    kept
}
