//! Held files: the content of files in settings, as the store has it.
//!
//! Records of configurations and builds hold settings with hashes alone. Each content is a record
//! of its own, by the first 64 bits of its hash: builds that were built with the same content share
//! it. It goes with the last record that needs it, and is written in the same commit as the first
//! one.

use crate::config::file_contents::{FileContents, hashes};
use greenroom_core::core::Core;
use greenroom_core::store::kind::Kind;
use std::collections::{BTreeMap, BTreeSet};

/// Writes what the store lacks of these contents. If the store has no room, an error is logged: a
/// successor could not build this generation again.
pub(super) fn hold(core: &mut Core, files: &FileContents) {
    for (sha256, bytes) in files.iter() {
        let Some(key) =
            key_of(sha256).filter(|key| core.host_record_keys(Kind::HeldFile).all(|held| held != *key))
        else {
            continue;
        };
        if !core.put_host_record(Kind::HeldFile, key, bytes) {
            tracing::error!("no room to hold a file of settings with hash {sha256}");
        }
    }
}

/// Contents that some services' settings need, from the store. `read` has those that were read
/// before, so that builds share them. O(settings + contents).
pub(super) fn of(core: &Core, settings: &BTreeMap<String, String>, read: &mut FileContents) -> FileContents {
    for sha256 in hashes(settings) {
        let Some(key) = key_of(&sha256).filter(|_| read.get(&sha256).is_none()) else { continue };
        let found = core.host_records_from(Kind::HeldFile, key, 1).pop();
        if let Some((_, bytes)) = found.filter(|(found, _)| *found == key) {
            read.insert(sha256, bytes.into());
        }
    }
    read.needed_by(settings)
}

/// Whether the content of a file is held.
pub(super) fn any(core: &Core) -> bool {
    core.host_record_keys(Kind::HeldFile).next().is_some()
}

/// Deletes the contents that none of `needed` has. O(contents held).
pub(super) fn forget_others<'a>(core: &mut Core, needed: impl Iterator<Item = &'a FileContents>) {
    let needed: BTreeSet<_> = needed.flat_map(FileContents::iter).filter_map(|(h, _)| key_of(h)).collect();
    let others: Vec<_> = core.host_record_keys(Kind::HeldFile).filter(|key| !needed.contains(key)).collect();
    for key in others {
        core.delete_host_record(Kind::HeldFile, key);
    }
}

/// Key of a hash: its first 64 bits. `None`: it is none.
fn key_of(hash: &str) -> Option<u64> {
    u64::from_str_radix(hash.get(..16)?, 16).ok()
}
