//! Actions copied out of the store for one call of a handler.

use greenroom_state::abi::Action;

/// Actions copied out of the store for one call of a handler.
#[derive(Debug, Default)]
pub(crate) struct ActionBuffer {
    bytes: Vec<u8>,
    actions: Vec<CopiedAction>,
}

#[derive(Debug)]
struct CopiedAction {
    kind: u32,
    detail: u32,
    from: u64,
    /// End in the bytes. The action begins where the one before it ends.
    name_end: usize,
    data_end: usize,
}

impl ActionBuffer {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.actions.clear();
    }

    pub(super) fn kind(&self) -> u32 {
        self.actions.first().map_or(0, |a| a.kind)
    }

    pub(super) fn add(&mut self, (kind, detail): (u32, u32), from: u64, name: &[u8], data: &[u8]) {
        self.bytes.extend_from_slice(name);
        let name_end = self.bytes.len();
        self.bytes.extend_from_slice(data);
        self.actions.push(CopiedAction { kind, detail, from, name_end, data_end: self.bytes.len() });
    }

    /// The actions, oldest first.
    pub(crate) fn actions(&self) -> Vec<Action<'_>> {
        let mut start = 0;
        let action = |a: &CopiedAction| {
            let (name, data) = (&self.bytes[start..a.name_end], &self.bytes[a.name_end..a.data_end]);
            start = a.data_end;
            Action { kind: a.kind, detail: a.detail, data: data.into(), name: name.into(), from: a.from }
        };
        self.actions.iter().map(action).collect()
    }

    /// Number that names the turn of the first action, by what the action is and by the generation
    /// that runs it. A service's own turns are not counted from process to process, so a death is
    /// blamed on such a name.
    pub(crate) fn turn_name(&self, generation: u64) -> Option<u64> {
        let a = self.actions.first()?;
        let name = &self.bytes[..a.name_end];
        let parts = [&a.from.to_le_bytes()[..], &generation.to_le_bytes(), name];
        // FNV-1a. Half of its values, so that counting on can't overflow.
        let step = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
        Some(parts.into_iter().flatten().fold(0xcbf2_9ce4_8422_2325, step) >> 1)
    }
}
