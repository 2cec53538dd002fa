//! Readers of messages against random JSON: none panics, and what it reads can be written, and is
//! read as the same again.

use crate::page::examples;
use crate::requests::{command, piece, spoil, spoil_value, value};
use crate::{seed, variants};
use fastrand::Rng;
use greenroom::protocol::admin::{AdminCommand, Piece, Reply};
use greenroom::protocol::handshaker::{FromHandshaker, ToHandshaker};
use greenroom::protocol::keeper::{Hello, ToKeeper, ToWorker};
use greenroom::protocol::metrics::Metrics;
use greenroom::protocol::observer::{FromObserver, ToObserver};
use greenroom::protocol::status::Status;
use greenroom::protocol::watch::{RecordHead, RecordedTurn};
use greenroom_state::parse::parse;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Texts that a type is tried with.
const ROUNDS: usize = 3000;

/// Reads a text as a type. What can be read comes back the same. Returns whether it could.
#[track_caller]
fn read<T: Serialize + DeserializeOwned>(text: &[u8]) -> bool {
    let Ok(first) = parse::<T>(text) else { return false };
    let written = serde_json::to_vec(&first).expect("what is read can be written");
    let again: T = parse(&written).unwrap_or_else(|e| {
        panic!("{}: {e}: {}", std::any::type_name::<T>(), String::from_utf8_lossy(&written))
    });
    let both = [first, again].map(|of| serde_json::to_value(of).expect("JSON"));
    assert_eq!(both[0], both[1], "{}", String::from_utf8_lossy(text));
    true
}

/// Tries a type with spoiled texts of these values. Returns how many could be read.
#[track_caller]
fn try_with<T: Serialize + DeserializeOwned>(rng: &mut Rng, from: &[Value]) -> usize {
    let mut texts = 0;
    for round in 0..ROUNDS {
        let mut of = from[rng.usize(..from.len())].clone();
        (0..round % 4).for_each(|_| spoil_value(rng, &mut of));
        let mut text = of.to_string().into_bytes();
        if rng.bool() {
            spoil(rng, &mut text);
        }
        texts += usize::from(read::<T>(&text));
    }
    texts
}

/// Values that have the name of each variant of an enum, around random ones.
fn around<T: DeserializeOwned>(rng: &mut Rng) -> Vec<Value> {
    let names = variants::<T>();
    let mut all: Vec<_> = names.iter().map(|name| json!(name)).collect();
    all.extend((0..names.len() * 4).map(|n| json!({ names[n % names.len()].clone(): value(rng, 3) })));
    all
}

#[test]
fn no_text_panics_its_reader_and_what_is_read_comes_back() {
    let rng = &mut Rng::with_seed(seed());
    let of_page = |section| -> Vec<Value> {
        examples(section).iter().map(|text| serde_json::from_str(text).expect("JSON")).collect()
    };
    let names = variants::<AdminCommand>();
    let commands: Vec<_> = (0..500).map(|n| command(rng, &names[n % names.len()])).collect();
    let pieces: Vec<_> = (0..200).map(|_| piece(rng)).collect();
    // As many as this can be read although they were spoiled: the others are not all the same.
    let read = [
        try_with::<AdminCommand>(rng, &[of_page("Commands"), commands].concat()),
        try_with::<Piece>(rng, &[of_page("Pieces"), pieces].concat()),
        try_with::<Reply>(rng, &of_page("Replies")),
    ];
    assert!(read.iter().all(|n| (ROUNDS / 20..ROUNDS).contains(n)), "{read:?}");

    let inside = |name: &str| {
        let found = of_page("Replies").into_iter().find_map(|mut reply| reply.get_mut(name).map(Value::take));
        [found.unwrap_or_else(|| panic!("no {name}"))]
    };
    try_with::<Status>(rng, &inside("status"));
    try_with::<Metrics>(rng, &inside("metrics"));
    try_with::<RecordHead>(rng, &inside("record-head"));
    try_with::<RecordedTurn>(rng, &inside("record"));
    let words = around::<ToWorker>(rng);
    try_with::<ToWorker>(rng, &words);
    let words = around::<ToKeeper>(rng);
    try_with::<ToKeeper>(rng, &words);
    let words = around::<ToHandshaker>(rng);
    try_with::<ToHandshaker>(rng, &words);
    let words = around::<FromHandshaker>(rng);
    try_with::<FromHandshaker>(rng, &words);
    let words = around::<ToObserver>(rng);
    try_with::<ToObserver>(rng, &words);
    let words = around::<FromObserver>(rng);
    try_with::<FromObserver>(rng, &words);
    let words: Vec<_> = (0..100).map(|_| value(rng, 4)).collect();
    try_with::<Hello>(rng, &words);
}
