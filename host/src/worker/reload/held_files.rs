//! Held files: the content of files in settings, as the store has it.
//!
//! Records of configurations and builds hold settings without the content of files. Each content
//! is a record of its own, by the first 64 bits of its hash: builds that were built with the same
//! content share it. It goes with the last record that needs it, and is written in the same
//! commit as the first one.

use greenroom_core::core::Core;
use greenroom_core::store::kind::Kind;
use greenroom_state::settings_file::{READ_FILE, put_contents_back, take_contents};
use serde_json::Value;
use std::collections::BTreeSet;

/// Takes the content of files out of settings, and writes what the store lacks. If the store has no
/// room, an error is logged: a successor could not build this generation again.
pub(super) fn hold(core: &mut Core, settings: &mut Value) {
    take_contents(settings, &mut |hash, bytes| {
        let Some(key) = key_of(&hash).filter(|key| held(core, *key).is_none()) else { return };
        if !core.put_host_record(Kind::HeldFile, key, &bytes) {
            tracing::error!("no room to hold a file of settings with hash {hash}");
        }
    });
}

/// Puts the content of files back into settings.
pub(super) fn put_back(core: &Core, settings: &mut Value) {
    put_contents_back(settings, &|hash| held(core, key_of(hash)?));
}

/// Takes the content of files out of settings in JSON, as [`hold`] does.
pub(super) fn hold_in(core: &mut Core, json: &mut String) {
    in_json(json, |settings| hold(core, settings));
}

/// Puts the content of files back into settings in JSON.
pub(super) fn put_back_in(core: &Core, json: &mut String) {
    in_json(json, |settings| put_back(core, settings));
}

/// Changes settings in JSON that name a file; others are not even read.
fn in_json(json: &mut String, change: impl FnOnce(&mut Value)) {
    if json.contains(READ_FILE)
        && let Ok(mut settings) = serde_json::from_str(json)
    {
        change(&mut settings);
        *json = settings.to_string();
    }
}

/// Keys of the files that settings in JSON need.
pub(super) fn needed(json: &str) -> BTreeSet<u64> {
    let mut keys = BTreeSet::new();
    in_json(&mut json.to_owned(), |settings| {
        take_contents(settings, &mut |hash, _| keys.extend(key_of(&hash)));
    });
    keys
}

/// Whether the content of a file is held.
pub(super) fn any(core: &Core) -> bool {
    !core.host_records_from(Kind::HeldFile, 0, 1).is_empty()
}

/// Deletes the contents that no record needs. O(contents held), and a copy of them.
pub(super) fn forget_others(core: &mut Core, needed: &BTreeSet<u64>) {
    let held: Vec<_> = core.host_records(Kind::HeldFile).into_iter().map(|(key, _)| key).collect();
    for key in held.into_iter().filter(|key| !needed.contains(key)) {
        core.delete_host_record(Kind::HeldFile, key);
    }
}

/// Content of a key.
fn held(core: &Core, key: u64) -> Option<Vec<u8>> {
    let found = core.host_records_from(Kind::HeldFile, key, 1).into_iter().next();
    found.filter(|(found, _)| *found == key).map(|(_, bytes)| bytes)
}

/// Key of a hash: its first 64 bits. `None`: it is none.
fn key_of(hash: &str) -> Option<u64> {
    u64::from_str_radix(hash.get(..16)?, 16).ok()
}
