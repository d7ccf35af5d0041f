//! Flags in memory: what strong writes publish, what strong reads find, and what fences make of
//! both; see [`crate::memory::reach`].

use std::sync::Arc;

use super::access::Target;
use super::cluster::Ctx;
use super::warp::{V64, lanes};
use crate::isa::{Order, Scope, Space};
use crate::memory::reach::{FlagKey, View};
use crate::memory::shadow::Clock;

/// Shared addresses are told from global ones by this bit.
const SHARED_FLAG: u64 = 1 << 63;

impl Ctx<'_> {
    /// Whether threads may order memory by flags.
    pub fn uses_flags(&self) -> bool {
        self.env.k.orders_memory && self.env.checks.races
    }

    /// The keys of an address at the scopes that an operation covers.
    fn flag_keys(&self, space: Space, scope: Scope, address: u64, lane: u32) -> Vec<FlagKey> {
        let cluster = u64::from(self.cl.number);
        let at = match self.resolve(space, address, lane) {
            Ok(Target::Global(at)) => at,
            Ok(Target::Shared(rank, at)) => {
                SHARED_FLAG | cluster << 36 | (rank as u64) << 32 | u64::from(at)
            }
            _ => return Vec::new(),
        };
        let within = Scope::ALL.into_iter().filter(|s| *s <= scope);
        let owner = |s: Scope| match s {
            Scope::Block => cluster << 4 | self.warp.rank as u64,
            Scope::Cluster => cluster,
            Scope::Device => 0,
        };
        within.map(|s| (s, owner(s), at)).collect()
    }

    /// A strong write by the executing lanes, which is about to happen.
    pub fn publish(
        &mut self,
        space: Space,
        (order, scope): (Order, Scope),
        at: &V64,
        read_modify_write: bool,
    ) {
        if !order.strong() || !self.uses_flags() {
            return;
        }
        let mask = self.warp.mask;
        for lane in lanes(mask) {
            let all = order.releases().then(|| {
                let known = self.warp.knowledge(1 << lane);
                known.view(self.cl.number)
            });
            for key in self.flag_keys(space, scope, at[lane as usize], lane) {
                let reach = self.warp.clock(lane).reach.as_ref();
                let view = all.as_ref().or(reach.map(|r| &r.fenced[key.0 as usize]));
                self.env.flags.publish(key, view, read_modify_write);
            }
        }
        if order.releases() {
            self.warp.advance(mask);
        }
    }

    /// A strong read by the executing lanes, which has happened.
    pub fn observe(&mut self, space: Space, (order, scope): (Order, Scope), at: &V64) {
        if !order.strong() || !self.uses_flags() {
            return;
        }
        let mut rest = self.warp.mask;
        while rest != 0 {
            let lane = rest.trailing_zeros();
            let address = at[lane as usize];
            let alike = lanes(rest).filter(|l| at[*l as usize] == address);
            let same = alike.fold(0, |m, l| m | 1 << l);
            rest &= !same;
            let keys = self.flag_keys(space, scope, address, lane);
            let found: Vec<(Scope, View)> =
                keys.into_iter().filter_map(|k| Some((k.0, self.env.flags.find(k)?))).collect();
            if !found.is_empty() {
                self.learn_flags(same, &found, order.acquires());
            }
        }
    }

    fn learn_flags(&mut self, mask: u32, found: &[(Scope, View)], acquires: bool) {
        let cluster = self.cl.number;
        self.change_clocks(mask, |clock, _| {
            let mut changed = false;
            for (scope, view) in found {
                let reach = clock.reach.get_or_insert_default();
                if reach.found[*scope as usize].join(view) {
                    changed = true;
                }
                if acquires {
                    let known = clock.clone();
                    clock.learn_view(view, cluster);
                    changed |= known != *clock;
                }
            }
            changed
        });
    }

    /// A fence by the executing lanes. The lanes of one clock pass it together.
    pub fn memory_fence(&mut self, scope: Scope) {
        if !self.uses_flags() {
            return;
        }
        let (cluster, base, epochs) = (self.cl.number, self.warp.base, self.warp.epochs);
        let mask = self.warp.mask;
        self.change_clocks(mask, |clock, group| {
            let within = || Scope::ALL.into_iter().filter(|s| *s <= scope).map(|s| s as usize);
            let mut reach = clock.reach.take().unwrap_or_default();
            let found: Vec<View> = within().map(|s| std::mem::take(&mut reach.found[s])).collect();
            clock.reach = Some(reach);
            found.iter().for_each(|view| clock.learn_view(view, cluster));
            let mut told = clock.clone();
            for lane in lanes(group) {
                told.learn((base + lane) as usize, epochs[lane as usize]);
            }
            let view = told.view(cluster);
            let reach = clock.reach.get_or_insert_default();
            within().for_each(|s| reach.fenced[s] = view.clone());
            true
        });
        self.warp.advance(mask);
    }

    /// Gives the lanes of a mask what `change` makes of their clocks, unless it says that nothing
    /// changed; it is told the clock and which of the lanes have it.
    pub fn change_clocks(&mut self, mask: u32, mut change: impl FnMut(&mut Clock, u32) -> bool) {
        let groups: Vec<_> =
            self.warp.clocks.iter().filter(|(lanes, _)| lanes & mask != 0).cloned().collect();
        for (lanes, known) in groups {
            let mut clock = (*known).clone();
            if change(&mut clock, lanes & mask) {
                self.warp.set_knowledge(lanes & mask, Arc::new(clock));
            }
        }
    }
}
