//! Actions copied out of the store for one call of a handler.
//!
//! The copy lets a batch write to the store while its actions are lent to the handler. The
//! memory is kept from batch to batch. A batch has at most `BATCH_ACTIONS_MAX` actions, and from
//! the second action on at most `BATCH_BYTES` of data.

use greenroom_state::abi::Action;

/// Actions of one session and one kind, oldest first.
#[derive(Debug, Default)]
pub(crate) struct ActionBuffer {
    /// Name and data of each action, one behind the other.
    bytes: Vec<u8>,
    actions: Vec<CopiedAction>,
}

/// An action whose name and data lie in [`ActionBuffer`]'s bytes.
#[derive(Debug)]
struct CopiedAction {
    kind: u32,
    detail: u32,
    from: u64,
    /// End of the name in the bytes. The name begins where the previous action ends.
    name_end: usize,
    /// End of the data, which begin where the name ends.
    data_end: usize,
}

impl ActionBuffer {
    /// Forgets all actions. The memory is kept.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.actions.clear();
    }

    /// Kind of the first action; 0: there is none.
    pub(crate) fn kind(&self) -> u32 {
        self.actions.first().map_or(0, |a| a.kind)
    }

    /// Number of actions.
    pub(crate) fn len(&self) -> usize {
        self.actions.len()
    }

    /// Appends an action. O(bytes of name and data).
    pub(super) fn add(&mut self, (kind, detail): (u32, u32), from: u64, name: &[u8], data: &[u8]) {
        self.bytes.extend_from_slice(name);
        let name_end = self.bytes.len();
        self.bytes.extend_from_slice(data);
        self.actions.push(CopiedAction { kind, detail, from, name_end, data_end: self.bytes.len() });
    }

    /// The actions, oldest first. Allocates one vector.
    pub(crate) fn actions(&self) -> Vec<Action<'_>> {
        let mut start = 0;
        let action = |a: &CopiedAction| {
            let (name, data) = (&self.bytes[start..a.name_end], &self.bytes[a.name_end..a.data_end]);
            start = a.data_end;
            Action { kind: a.kind, detail: a.detail, data: data.into(), name: name.into(), from: a.from }
        };
        self.actions.iter().map(action).collect()
    }

    /// Name of the first action; empty: it has none, or there is no action.
    pub(crate) fn first_name(&self) -> &[u8] {
        self.actions.first().map_or(&[], |a| &self.bytes[..a.name_end])
    }

    /// Number that names the turn of the first action: a hash of sender, generation and name.
    /// `None`: there is no action.
    ///
    /// The session of a service's own turns has no record, so its turns are not counted across
    /// workers. Deaths of the worker are compared by this number instead, together with the kind
    /// of the action.
    pub(crate) fn turn_name(&self, generation: u64) -> Option<u64> {
        let a = self.actions.first()?;
        let name = &self.bytes[..a.name_end];
        let parts = [&a.from.to_le_bytes()[..], &generation.to_le_bytes(), name];
        // FNV-1a. The shift leaves the upper bit free, so that counting turns on can't overflow.
        let step = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
        Some(parts.into_iter().flatten().fold(0xcbf2_9ce4_8422_2325, step) >> 1)
    }
}
