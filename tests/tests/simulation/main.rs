//! Simulation of the whole core in one thread, from one seed.
//!
//! Reads are cut, writes are short, readers are slow, turns fail, peers reset, the process is
//! killed, and builds are reloaded, at any step. After every step the invariants are checked.
//! A seed that fails is printed, and `GREENROOM_SEED=N cargo test -p greenroom-tests --test
//! simulation` replays it.
//!
//! The model of a session is the list of lines that its peer wrote. The number of turns that the
//! core ran determines what state, table entries and output must be: nothing more, nothing less,
//! once and in order.
//!
//! `GREENROOM_TRACE=FILE` writes a line for each seed to `FILE.script` and `FILE.tally`: the seed,
//! its steps, and its two hashes (see `trace.rs`). `GREENROOM_SEEDS=1000..1400` runs other seeds
//! than the usual ones.
//!
//! | file | subject |
//! |---|---|
//! | `main.rs` | seeds and budget |
//! | `world.rs` | the host and its peers in virtual time, the passes of the loop |
//! | `steps.rs` | random steps, and the end of a run |
//! | `peers.rs` | peers and their connections |
//! | `reloads.rs` | reloads, probations and rollbacks |
//! | `canaries.rs` | candidates that run some sessions, and their laws |
//! | `operator.rs` | configurations, states taken away and put back |
//! | `faults.rs` | a peer's reset, a kill and its takeover |
//! | `framings.rs` | framings of the services, and what peers make of them |
//! | `roads.rs` | roads that sessions come by: TCP, Unix, UDP, PROXY headers, TLS |
//! | `dialogues.rs` | a service that asks its peers, its builds, and the laws of its answers |
//! | `datagrams.rs` | datagrams of peers, and of the service itself |
//! | `script.rs`, `verbs.rs` | the scripted service, and what each verb of a line does |
//! | `model.rs` | what a session must be, computed apart from the host |
//! | `invariants.rs` | laws of the host, one function each |
//! | `mortals.rs` | entries with a deadline, and their laws |
//! | `received.rs` | laws of what a peer receives, one function each |
//! | `damage.rs` | stores that a wild write hit |
//! | `counts.rs` | what a run must at least bring about |
//! | `recorded.rs` | recordings, replayed by the same code and by a changed one |
//! | `trace.rs` | hash of everything that a seed brings about |

mod canaries;
mod counts;
mod damage;
mod datagrams;
mod dialogues;
mod faults;
mod framings;
mod invariants;
mod model;
mod mortals;
mod operator;
mod peers;
mod received;
mod recorded;
mod reloads;
mod roads;
mod script;
mod steps;
mod trace;
mod verbs;
mod world;

use crate::counts::Counts;
use crate::model::Subject;
use crate::trace::Trace;
use crate::world::World;
use std::ops::Range;

/// Random steps of a seed.
const STEPS: usize = 1800;

/// Seeds of a usual run.
const SEEDS: Range<u64> = 0..60;

/// Seeds of a usual run of dialogues.
const SEEDS_OF_DIALOGUES: Range<u64> = 0..4;

#[test]
fn scripted_turns_survive_everything() {
    run_seeds(Subject::Script);
}

#[test]
fn the_shipped_tally_survives_everything_through_the_abi() {
    run_seeds(Subject::Tally);
}

#[test]
fn dialogues_see_the_answers_that_were_given_through_everything() {
    run_seeds(Subject::Asks);
}

fn run_seeds(subject: Subject) {
    let usual = if subject == Subject::Asks { SEEDS_OF_DIALOGUES } else { SEEDS };
    let seeds = seeds(&usual);
    let (mut counts, mut lines) = (Counts::default(), String::new());
    for seed in seeds.clone() {
        let Ok((of_seed, trace)) = std::panic::catch_unwind(|| run_seed(seed, subject)) else {
            panic!("seed {seed} fails; replay it with GREENROOM_SEED={seed}")
        };
        counts += of_seed;
        let Trace { steps, all, words } = trace;
        lines += &format!("{} {seed} {steps} {all:016x} {words:016x}\n", subject.name());
    }
    println!("{counts}");
    if let Ok(file) = std::env::var("GREENROOM_TRACE") {
        std::fs::write(format!("{file}.{}", subject.name()), lines).expect("the trace is written");
    }
    if seeds == usual {
        counts.assert_enough(subject);
    }
}

fn run_seed(seed: u64, subject: Subject) -> (Counts, Trace) {
    let mut world = World::new(seed, subject);
    for _ in 0..STEPS {
        world.step();
    }
    world.drain();
    (world.counts, world.trace)
}

/// Seeds that the environment asks for, or the usual ones.
fn seeds(usual: &Range<u64>) -> Range<u64> {
    let var = |name: &str| std::env::var(name).ok();
    let one = var("GREENROOM_SEED").map(|s| s.parse::<u64>().expect("GREENROOM_SEED is a number"));
    let range = var("GREENROOM_SEEDS").map(|s| {
        let (from, to) = s.split_once("..").expect("GREENROOM_SEEDS is FROM..TO");
        from.parse().expect("a seed")..to.parse().expect("a seed")
    });
    one.map(|seed| seed..seed + 1).or(range).unwrap_or(usual.clone())
}
