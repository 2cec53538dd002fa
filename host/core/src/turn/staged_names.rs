//! Names that sessions will hold when the batch is applied.
//!
//! Changes of a batch follow its effects, as [`super::staged_entries::StagedEntries`] does.

use super::effect::Effect;
use std::collections::BTreeMap;
use std::ops::Bound;

/// Changes of names by the effects so far.
#[derive(Debug, Default)]
pub(super) struct StagedNames {
    /// Effects that are covered, counted from the first one.
    covered: usize,
    /// Holder of each name that effects change; `None`: nobody.
    changed: BTreeMap<Box<[u8]>, Option<u64>>,
    /// Names that the session will hold beside those that it holds; negative: fewer.
    more: isize,
}

impl StagedNames {
    /// Takes in the effects that came since the last call. `holder` finds the holder of a name,
    /// without this batch. `own` is the session's number.
    pub(super) fn cover(
        &mut self,
        arena: &[u8],
        effects: &[Effect],
        own: u64,
        holder: impl Fn(&[u8]) -> Option<u64>,
    ) {
        for effect in &effects[self.covered..] {
            let (name, takes) = match effect {
                Effect::Register(name) => (name, true),
                Effect::Unregister(name) => (name, false),
                _ => continue,
            };
            let name = &arena[name.clone()];
            let before = self.changed.get(name).copied().unwrap_or_else(|| holder(name));
            let held = before == Some(own);
            if held != takes {
                self.more += isize::from(takes) - isize::from(held);
                self.changed.insert(name.into(), takes.then_some(own));
            }
        }
        self.covered = effects.len();
    }

    /// Holder of a name; `None`: this batch does not change it.
    pub(super) fn holder(&self, name: &[u8]) -> Option<Option<u64>> {
        self.changed.get(name).copied()
    }

    /// First name that is not before `from` and will have another holder.
    pub(super) fn next(&self, from: &[u8]) -> Option<(&[u8], u64)> {
        let after = self.changed.range::<[u8], _>((Bound::Included(from), Bound::Unbounded));
        after.filter_map(|(name, holder)| Some((&**name, (*holder)?))).next()
    }

    /// Number of names that the session will hold, of `own` that it holds.
    pub(super) fn count(&self, own: usize) -> usize {
        own.saturating_add_signed(self.more)
    }
}
