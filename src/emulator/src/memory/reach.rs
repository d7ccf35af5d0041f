//! What threads know beyond what barriers tell them: accesses that fences, and acquire and release
//! operations, have ordered through flags in memory.
//!
//! A release operation publishes at its address all that its thread knows; so does a relaxed,
//! volatile or atomic write for what a fence before it covered. Who reads the address by an
//! acquire operation learns that at once, who reads it by another strong operation learns it at
//! the next fence (PTX ISA, memory consistency model: release and acquire patterns). Fences and
//! operations reach as far as their scopes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use super::shadow::{Clock, Proxy, join_epochs};
use crate::isa::Scope;

/// A cluster's threads, and the proxy whose fences have covered their epochs, if it is not the
/// epochs as such.
type Known = (u32, Option<Proxy>);

/// Epochs known, by cluster and thread. Copies share their content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View(Arc<BTreeMap<Known, Arc<[u32]>>>);

impl View {
    /// Epochs known of a cluster's threads.
    pub fn cluster(&self, cluster: u32) -> Option<&[u32]> {
        self.0.get(&(cluster, None)).map(|epochs| &**epochs)
    }

    /// Those of them that a proxy's fences have covered.
    pub fn covered(&self, cluster: u32, proxy: Proxy) -> Option<&[u32]> {
        self.0.get(&(cluster, Some(proxy))).map(|epochs| &**epochs)
    }

    pub fn set(&mut self, cluster: u32, epochs: Arc<[u32]>) {
        Arc::make_mut(&mut self.0).insert((cluster, None), epochs);
    }

    /// A fence of a proxy covers all that is known.
    pub fn cover(&mut self, proxy: Proxy) {
        let seen = self.0.iter().filter(|(known, _)| known.1.is_none());
        let fresh: Vec<_> = seen.map(|(k, epochs)| ((k.0, Some(proxy)), epochs.clone())).collect();
        if !fresh.is_empty() {
            Arc::make_mut(&mut self.0).extend(fresh);
        }
    }

    /// Learns what `other` has; says whether that was anything new.
    pub fn join(&mut self, other: &Self) -> bool {
        if Arc::ptr_eq(&self.0, &other.0) || other.0.is_empty() {
            return false;
        }
        let mut fresh = Vec::new();
        for (known, theirs) in other.0.iter() {
            match self.0.get(known) {
                None => fresh.push((*known, theirs.clone())),
                Some(mine) if Arc::ptr_eq(mine, theirs) => {}
                Some(mine) if knows(mine, theirs) => {}
                Some(mine) => {
                    let mut most = mine.to_vec();
                    join_epochs(&mut most, theirs);
                    let most = most.into();
                    fresh.push((*known, most));
                }
            }
        }
        let changed = !fresh.is_empty();
        if changed {
            Arc::make_mut(&mut self.0).extend(fresh);
        }
        changed
    }
}

/// Whether one list has all that the other one has.
fn knows(mine: &[u32], theirs: &[u32]) -> bool {
    mine.len() >= theirs.len() && mine.iter().zip(theirs).all(|(a, b)| a >= b)
}

/// One view for each scope.
pub type Views = [View; Scope::ALL.len()];

/// The part of a clock that has to do with flags.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// Known of other clusters.
    pub seen: View,
    /// What a strong write at a scope publishes: known when a fence of that scope was passed.
    pub fenced: Views,
    /// What strong reads at a scope found: known from the next fence of that scope on.
    pub found: Views,
}

impl Reach {
    pub fn join(&mut self, other: &Self) {
        self.seen.join(&other.seen);
        for (mine, theirs) in self.fenced.iter_mut().zip(&other.fenced) {
            mine.join(theirs);
        }
        for (mine, theirs) in self.found.iter_mut().zip(&other.found) {
            mine.join(theirs);
        }
    }
}

impl Clock {
    /// Learns a view, as a thread of `cluster`.
    pub fn learn_view(&mut self, view: &View, cluster: u32) {
        if let Some(near) = view.cluster(cluster) {
            join_epochs(&mut self.seen, near);
        }
        for proxy in Proxy::ALL {
            if let Some(near) = view.covered(cluster, proxy) {
                self.cover(proxy, near);
            }
        }
        self.reach.get_or_insert_default().seen.join(view);
    }

    /// The last epochs known of the threads of another cluster.
    pub fn far_cluster(&self, cluster: u32) -> &[u32] {
        self.reach.as_ref().and_then(|r| r.seen.cluster(cluster)).unwrap_or(&[])
    }

    /// Those of them that a proxy's fences have covered.
    pub fn far_proxied(&self, cluster: u32, proxy: Proxy) -> &[u32] {
        self.reach.as_ref().and_then(|r| r.seen.covered(cluster, proxy)).unwrap_or(&[])
    }

    /// All that is known, told to whoever may ask.
    pub fn view(&self, cluster: u32) -> View {
        let mut view = self.reach.as_ref().map_or_else(View::default, |r| r.seen.clone());
        view.set(cluster, self.seen.as_slice().into());
        for proxy in Proxy::ALL {
            let covered = self.proxied(proxy);
            if !covered.is_empty() {
                Arc::make_mut(&mut view.0).insert((cluster, Some(proxy)), covered.into());
            }
        }
        view
    }
}

/// An address as one of those sees it who share a scope: the scope, the number of the block or
/// cluster (0 for the device), the address.
pub type FlagKey = (Scope, u64, u64);

/// What has been published, by address.
#[derive(Debug, Default)]
pub struct Flags(Mutex<HashMap<FlagKey, View>>);

impl Flags {
    /// A strong write: a read-modify-write adds to what was published there, another one
    /// replaces it.
    pub fn publish(&self, key: FlagKey, view: Option<&View>, adds: bool) {
        let mut flags = self.0.lock().unwrap_or_else(|e| e.into_inner());
        match view {
            Some(view) if adds => {
                flags.entry(key).or_default().join(view);
            }
            Some(view) => {
                flags.insert(key, view.clone());
            }
            None if adds => {}
            None => {
                flags.remove(&key);
            }
        }
    }

    /// What was published at an address.
    pub fn find(&self, key: FlagKey) -> Option<View> {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).get(&key).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(cluster: u32, epochs: &[u32]) -> View {
        let mut v = View::default();
        v.set(cluster, epochs.into());
        v
    }

    #[test]
    fn views_keep_the_latest_of_each_thread() {
        let mut a = view(0, &[3, 1]);
        assert!(a.join(&view(0, &[2, 5])));
        assert_eq!(a.cluster(0), Some(&[3, 5][..]));
        assert!(!a.join(&view(0, &[3, 4])), "nothing new");
        assert!(a.join(&view(7, &[1])));
        assert_eq!((a.cluster(7), a.cluster(8)), (Some(&[1][..]), None));
    }

    #[test]
    fn atomics_go_on_where_a_plain_write_begins_anew() {
        let flags = Flags::default();
        let key = (Scope::Device, 0, 64);
        flags.publish(key, Some(&view(1, &[1])), false);
        flags.publish(key, Some(&view(2, &[2])), true);
        flags.publish(key, None, true);
        let both = flags.find(key).unwrap();
        assert!(both.cluster(1).is_some() && both.cluster(2).is_some());
        flags.publish(key, Some(&view(3, &[3])), false);
        assert!(flags.find(key).unwrap().cluster(1).is_none());
        flags.publish(key, None, false);
        assert!(flags.find(key).is_none());
    }
}
