//! Allow, random, stats: tokens, numbers that no peer can tell, numbers of the host.
//!
//! A turn that runs again gets the same random numbers, and takes its tokens once. Numbers of the
//! host are those of the moment: a turn that runs again may be told others.

use super::effect::Effect;
use super::host_numbers::HostNumbers;
use super::staging::{Buffers, Staging};
use crate::limits::budget::ROW_NS;
use greenroom_state::abi::status;

impl Staging<'_> {
    /// Takes a token of a key's bucket in the service. A bucket holds `burst` tokens, and gets one
    /// back each `interval_ns`. [`status::ABSENT`]: none is left. Buckets of other rates are
    /// others. O(1).
    pub fn allow(&mut self, key: &[u8], interval_ns: u64, burst: u32) -> u32 {
        if interval_ns == 0 || burst == 0 {
            return status::INVALID;
        }
        self.work(ROW_NS);
        let (bucket, stored_ns) = self.context.bucket(key, interval_ns, burst);
        let now_ns = self.context.now_ns;
        let Buffers { effects, buckets: staged, is_indexed, .. } = &mut *self.buffers;
        *is_indexed = true;
        staged.cover(effects);
        let full_at_ns = staged.full_at_ns(bucket).unwrap_or(stored_ns);
        let full_at_ns = full_at_ns.max(now_ns).saturating_add(interval_ns);
        if full_at_ns - now_ns > interval_ns.saturating_mul(burst.into()) {
            return status::ABSENT;
        }
        self.stage(|_| Some(Effect::Take { bucket, full_at_ns }))
    }

    /// Number that no peer can tell before: the next one of this turn.
    pub fn random(&mut self) -> u64 {
        let turn = self.context.session.turns + self.buffers.done as u64;
        self.buffers.randoms += 1;
        self.context.random(turn, self.buffers.randoms)
    }

    /// Numbers of the host, as the batch found them.
    pub fn host_numbers(&mut self) -> HostNumbers {
        self.work(ROW_NS);
        self.context.numbers()
    }
}
