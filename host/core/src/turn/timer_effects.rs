//! Set and cancel timers, of the turn's own session or of its service.
//!
//! A name stands for one timer of its owner: setting it again replaces the deadline. Limits
//! count timers that are not due.

use super::staging::Staging;
use crate::limits::names::Limit;
use crate::turn::context::TurnContext;
use crate::turn::effect::Effect;

impl Staging<'_> {
    /// Sets a timer, or sets it again. The timer fires once, `after_ns` nanoseconds after the
    /// beginning of the pass. `service`: the timer is the service's, not this session's. Refused
    /// over the limit of names or of the owner's timers.
    pub fn set_timer(&mut self, name: &str, after_ns: u64, service: bool) -> u32 {
        let TurnContext { limits, now_ns, .. } = *self.context;
        if name.len() > limits.timer_name_bytes_max {
            return self.refuse(Limit::TimerNameBytesMax);
        }
        let (max, limit) = match service {
            true => (limits.timers_per_service_max, Limit::TimersPerServiceMax),
            false => (limits.timers_per_session_max, Limit::TimersPerSessionMax),
        };
        // The first condition is cheap, and counts every effect as a new timer. Only near the
        // limit are the effects looked at one by one.
        let before = self.context.timers_of(service);
        if before + self.buffers.effects.len() >= max && self.timers_after(service, name) > max {
            return self.refuse(limit);
        }
        self.acts_on(service);
        // A deadline beyond the range of the clock never comes.
        let deadline_ns = now_ns.saturating_add(after_ns);
        self.stage(|s| Some(Effect::SetTimer { service, name: s.copy(name.as_bytes())?, deadline_ns }))
    }

    /// Timers of an owner with this one and those staged so far.
    fn timers_after(&mut self, service: bool, name: &str) -> usize {
        let context = self.context;
        let is_set = |service, name: &str| context.has_timer(service, name);
        let b = &mut *self.buffers;
        b.is_indexed = true;
        b.timers.cover(&b.bytes, &b.effects, is_set);
        b.timers.with(service, name, context.timers_of(service), is_set)
    }

    /// Takes a timer off, even one that is due. If there is none, nothing happens.
    pub fn cancel_timer(&mut self, name: &str, service: bool) -> u32 {
        self.acts_on(service);
        self.stage(|s| Some(Effect::CancelTimer { service, name: s.copy(name.as_bytes())? }))
    }

    /// Ends the batch if the timer may be among the actions that follow. A due timer that is
    /// replaced or cancelled must not have its turn.
    fn acts_on(&mut self, service: bool) {
        let own = !service || self.context.session.is_service();
        self.buffers.on_itself |= own && !self.context.depths.is_empty();
    }
}
