//! Protocol of the admin socket: the page that describes it, and requests at random.
//!
//! | file | subject |
//! |---|---|
//! | `page.rs` | `host/PROTOCOL.md` has each command, reply and piece, with an example |
//! | `parse.rs` | random JSON panics no reader, and what is read can be written |
//! | `requests.rs` | requests and data at random, right ones and spoiled ones |
//! | `caller.rs` | callers: those who read, and those who do not |
//! | `fuzz.rs` | a real host with sessions, which goes on whatever is asked |
//!
//! `GREENROOM_SEED=N cargo test -p greenroom-tests --test protocol` runs another seed than the
//! usual one. Sequence and content of requests follow from the seed; their times do not.

mod caller;
mod fuzz;
mod page;
mod parse;
mod requests;

use serde::de::DeserializeOwned;

/// Seed of this run.
fn seed() -> u64 {
    std::env::var("GREENROOM_SEED").map_or(27, |seed| seed.parse().expect("a number"))
}

/// Names of the variants of an enum, as its reader tells them.
fn variants<T: DeserializeOwned>() -> Vec<String> {
    let error = serde_json::from_str::<T>("\"?\"").err().expect("no variant has this name").to_string();
    let names = error.split_once(", expected ").expect("a list").1;
    names.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}
