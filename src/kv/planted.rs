//! Deliberate mistakes, so that the simulation can prove that it would notice them.
//!
//! Outside test builds [`Planted`] is empty and [`Planted::has`] is `false` at compile time, so
//! every `if planted.has(…)` disappears from the product.

/// A mistake that a test can switch on. The first fourteen are of kinds that other schedulers had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Cancelling with a step in flight keeps the pages for ever.
    LeakOnCancel,
    /// A page goes on the free list twice.
    DoubleFree,
    /// Pages are free again although a step in flight may still write them.
    FreeBeforeLanding,
    /// Preemption forgets the tokens generated so far.
    PreemptDropsOutput,
    /// A preempted sequence queues behind everybody.
    PreemptedToBack,
    /// A request larger than the pool is queued.
    AdmitUnservable,
    /// The page table grows one token too late.
    ShortTable,
    /// The prefix tree compares a page's tokens but not what came before.
    PrefixWithoutParent,
    /// A cached page that is hit stays evictable.
    HitStaysIdle,
    /// The terminal event is sent twice.
    FinishTwice,
    /// Prefill chunks are not cut to the step budget.
    BudgetIgnored,
    /// A queue that once did not fit is not looked at again until the next arrival.
    NoWakeUp,
    /// A cancelled request stays in the queue.
    CancelledStaysQueued,
    /// A preempted sequence is put in no queue.
    PreemptedLost,
    /// Parallel samples share the partly filled page instead of copying it.
    ForkSharesTail,
    /// The copy of the partly filled page is one token short.
    CopyOneShort,
    /// Tenants share cached prefixes.
    SaltIgnored,
    /// Cached pages are used where prompt log-probabilities are wanted.
    CacheHidesLogprobs,
    /// A prompt that is cached to the last token computes nothing.
    FullHitComputesNothing,
    /// Longest-prefix-match never gives way to those it passed over.
    UnboundedBypass,
    /// Pages are offered to others before the step that fills them has come back.
    PublishUncommitted,
    /// The last one to let go of a shared page decides its fence.
    FenceOfLastHolder,
    /// There is no limit on how often one sequence is preempted.
    UnlimitedPreemption,
    /// Prefill goes before decode.
    PrefillFirst,
    /// The token sampled by a step that was in flight at a preemption is thrown away.
    InFlightTokenLost,
    /// An admission that got too few pages keeps them.
    PartialAdmission,
    /// Results that come a second time are taken a second time.
    CommitTwice,
}

impl Bug {
    /// Every planted mistake, in the order of the list above.
    pub const ALL: [Bug; 27] = [
        Bug::LeakOnCancel,
        Bug::DoubleFree,
        Bug::FreeBeforeLanding,
        Bug::PreemptDropsOutput,
        Bug::PreemptedToBack,
        Bug::AdmitUnservable,
        Bug::ShortTable,
        Bug::PrefixWithoutParent,
        Bug::HitStaysIdle,
        Bug::FinishTwice,
        Bug::BudgetIgnored,
        Bug::NoWakeUp,
        Bug::CancelledStaysQueued,
        Bug::PreemptedLost,
        Bug::ForkSharesTail,
        Bug::CopyOneShort,
        Bug::SaltIgnored,
        Bug::CacheHidesLogprobs,
        Bug::FullHitComputesNothing,
        Bug::UnboundedBypass,
        Bug::PublishUncommitted,
        Bug::FenceOfLastHolder,
        Bug::UnlimitedPreemption,
        Bug::PrefillFirst,
        Bug::InFlightTokenLost,
        Bug::PartialAdmission,
        Bug::CommitTwice,
    ];
}

/// At most one planted mistake, and allocations that fail; always neither in the product.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Planted {
    #[cfg(test)]
    bug: Option<Bug>,
    #[cfg(test)]
    refusals: Refusals,
}

/// One allocation of a page in `every` is refused (0 none), among the first `until`.
#[cfg(test)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refusals {
    pub every: u64,
    pub until: u64,
    asked: u64,
    refused: u64,
}

#[cfg(test)]
impl Refusals {
    pub fn new(every: u64, until: u64) -> Self {
        Refusals { every, until, ..Refusals::default() }
    }
}

impl Planted {
    #[cfg(test)]
    pub fn new(bug: Option<Bug>) -> Self {
        Planted { bug, refusals: Refusals::default() }
    }

    /// The same, with allocations that fail.
    #[cfg(test)]
    pub fn refusing(self, refusals: Refusals) -> Self {
        Planted { refusals, ..self }
    }

    /// Counts an allocation, and says whether it is to fail.
    #[cfg(test)]
    pub fn refuses(&mut self) -> bool {
        let r = &mut self.refusals;
        r.asked += 1;
        let refused = r.every > 0 && r.asked <= r.until && r.asked % r.every == 0;
        r.refused += u64::from(refused);
        refused
    }

    #[cfg(not(test))]
    #[inline(always)]
    pub const fn refuses(&mut self) -> bool {
        false
    }

    /// Allocations refused so far.
    #[cfg(test)]
    pub fn refused(self) -> u64 {
        self.refusals.refused
    }

    #[cfg(test)]
    #[inline(always)]
    pub fn has(self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    #[cfg(not(test))]
    #[inline(always)]
    pub const fn has(self, _: Bug) -> bool {
        false
    }
}
