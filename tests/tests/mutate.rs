//! Library files that were cut, flipped or grown at random, from one seed. The check refuses each
//! with a reason, or the file goes through the trial, which may end in anything but harm.
//!
//! `GREENROOM_SEED=N cargo test -p greenroom-tests --test mutate` replays.

use greenroom::plugin::inspect::{build_id, inspect};
use greenroom::plugin::trial::{self, Trial};
use greenroom_core::limits::host::Limits;
use greenroom_tests::built;
use std::collections::BTreeMap;
use std::fs::File;

const INSPECTED: usize = 2_000;
const TRIED: usize = 40;

fn mutate(rng: &mut fastrand::Rng, good: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    // Headers, section table and note decide most.
    let place = |rng: &mut fastrand::Rng, len: usize| match rng.u8(0..4) {
        0 => rng.usize(0..64.min(len)),
        1 => rng.usize(0..4096.min(len)),
        2 => len - 1 - rng.usize(0..4096.min(len)),
        _ => rng.usize(0..len),
    };
    for _ in 0..rng.usize(1..4) {
        let at = place(rng, bytes.len());
        match rng.u8(0..6) {
            0 => bytes.truncate(at.max(1)),
            1 => bytes[at] ^= 1 << rng.u8(0..8),
            2 => bytes[at] = [0, 0xff, 0x7f, 0x80][rng.usize(0..4)],
            3 => {
                // A number that is far too large, or a little wrong.
                let word = if rng.bool() { u64::MAX - rng.u64(0..16) } else { rng.u64(0..1 << 20) };
                let end = (at + 8).min(bytes.len());
                bytes[at..end].copy_from_slice(&word.to_le_bytes()[..end - at]);
            }
            4 => {
                let end = (at + rng.usize(1..5000)).min(bytes.len());
                bytes[at..end].fill(0);
            }
            _ => {
                let more: Vec<u8> = (0..rng.usize(1..3000)).map(|_| rng.u8(..)).collect();
                bytes.splice(at..at, more);
            }
        }
    }
    bytes
}

#[test]
fn damaged_libraries_are_refused_or_survived() {
    let seed = std::env::var("GREENROOM_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(7);
    println!("GREENROOM_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let library = built("libecho.so");
    let good = std::fs::read(&library).expect("the library");
    assert_eq!(inspect(&good, &library).expect("a good one").note.library, "echo");
    let binary = File::open(built("greenroom")).expect("the binary");
    let dir = tempfile::tempdir().expect("a directory");
    let limits = Limits { rehearsal_ms: 1000, ..Limits::default() };
    let (mut refused, mut tried, mut served) = (0, 0, 0);
    let (mut inspected, mut passed) = (0, Vec::new());

    while inspected < INSPECTED {
        let bytes = mutate(&mut rng, &good);
        if bytes == good {
            continue;
        }
        inspected += 1;
        let _ = build_id(&bytes);
        match inspect(&bytes, &library) {
            Err(why) => {
                assert!(!why.is_empty() && why.len() < 1000, "{why}");
                refused += 1;
            }
            Ok(inspected) => passed.push((bytes, inspected.note)),
        }
    }

    rng.shuffle(&mut passed);
    for (n, (bytes, note)) in passed.iter().take(TRIED).enumerate() {
        tried += 1;
        let copy = dir.path().join(format!("{n}.so"));
        std::fs::write(&copy, bytes).expect("a candidate");
        let settings = BTreeMap::new();
        let trial = Trial {
            copy: &copy,
            entry: &note.entry,
            settings: &settings,
            snapshot: None,
            recording: None,
            limits: &limits,
        };
        match trial::run(&binary, &trial, |_, _| {}) {
            Ok(_) => served += 1,
            Err(why) => assert!(!why.is_empty(), "a refusal has a reason"),
        }
    }

    println!(
        "{inspected} inspected, {refused} refused, {tried} of {} others tried, {served} would serve",
        passed.len()
    );
    assert!(refused > INSPECTED / 10 && tried == TRIED, "the mutations are of all kinds");

    // Nothing of them is left running: field 4 of a process's stat is its parent.
    let ours = std::process::id().to_string();
    let children = std::fs::read_dir("/proc").expect("/proc").flatten().filter(|p| {
        let stat = std::fs::read_to_string(p.path().join("stat")).unwrap_or_default();
        stat.split(' ').nth(3) == Some(&ours)
    });
    assert_eq!(children.count(), 0);
}
