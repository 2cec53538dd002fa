//! Conversion of states and tables' values from one version to another.
//!
//! The host asks for conversions in a rehearsal, before a previous build reads data of a newer
//! one, and for sessions without traffic. A conversion sees one value and nothing else: no
//! turn, no table. So it can be repeated, and a crash in the middle leaves the stored value.

use crate::bounds::HasSchema as _;
use crate::carried::try_samples;
use crate::encode::{read, stored};
use crate::handler::Handler;
use crate::migrate::Migrations;
use crate::run::has_state;
use greenroom_state::abi::table::KEY_OF;
use greenroom_state::schema::RENAMED_FROM;
use serde_json::Value;

/// Converts a value, as [`greenroom_state::abi::Service::convert`] has it. `which`: 0 for a
/// state, n for the n-th table of [`crate::Handler::tables`], and [`KEY_OF`] added for a key of it.
///
/// Fails if a step is missing or fails, or if the result cannot be read as this build's own
/// type. The reason reaches the operator.
pub(crate) fn convert<H: Handler>(which: u32, from: u32, to: u32, value: &[u8]) -> Result<Vec<u8>, String> {
    if which == 0 {
        if !has_state::<H>() {
            return Err("the service keeps no state".into());
        }
        let value = H::migrations().run(from, to, value)?;
        if to != H::STATE_VERSION {
            return Ok(value);
        }
        // Read and written again: data that this build cannot read must be found here, not in a
        // later turn. Fields with defaults are added by the way.
        let state: H::State = read(&value)?;
        return stored(&state);
    }
    let tables = H::tables().owned;
    let number = (which & !KEY_OF) as usize;
    let table =
        number.checked_sub(1).and_then(|at| tables.get(at)).ok_or("the service owns no such table")?;
    if which & KEY_OF != 0 {
        return table.reads_key.map_or(Ok(()), |reads| reads(value)).map(|()| Vec::new());
    }
    let value = table.migrations.run(from, to, value)?;
    if to == table.version { (table.again)(&value) } else { Ok(value) }
}

/// Refuses steps that contradict each other, in states and tables, and types whose default or whose
/// samples could not be read again. Runs when the library is loaded, so such a build never serves.
pub(crate) fn check<H: Handler>() -> Result<(), String> {
    H::migrations().check()?;
    if has_state::<H>() {
        stored(&H::State::default()).map_err(|e| format!("its default state can't be stored: {e}"))?;
        try_samples::<H::State>(&H::State::schema()).map_err(|e| format!("its state can't be kept: {e}"))?;
    }
    H::tables().owned.iter().try_for_each(|table| {
        let fine = table.migrations.check().and_then(|()| (table.tries)());
        fine.map_err(|e| format!("table {}: {e}", table.name))
    })
}

/// Writes a schema as text, with the old names of its fields. The host compares fields by both
/// names: without them a renamed field would count as one removed and one added.
pub(crate) fn schema_text(mut schema: Value, migrations: &Migrations) -> String {
    for (old, new) in migrations.renamings() {
        if let Some(Value::Object(field)) = schema.get_mut("properties").and_then(|p| p.get_mut(new)) {
            field.insert(RENAMED_FROM.to_owned(), Value::from(*old));
        }
    }
    schema.to_string()
}
