//! Every page has one owner: the free list, the sequences that hold it, the prefix tree, or a
//! step in flight.
//!
//! | state  | references | in the tree | may be reused                                  |
//! |--------|------------|-------------|------------------------------------------------|
//! | free   | 0          | no          | yes                                            |
//! | held   | ≥ 1        | maybe       | no                                             |
//! | cached | 0          | yes         | by eviction, leaves first, oldest release first |
//! | parked | 0          | maybe       | when the last step that knows it has landed    |
//!
//! A fence keeps a page from being reused under a step that may still read or write it: whoever
//! lets go of a page names the last step that had it in a page table, the page remembers the
//! largest such number over all its holders, and it stays parked until that step has landed.

use std::collections::BTreeSet;

use super::PageId;
use super::planted::{Bug, Planted};
use super::tree::PrefixTree;
use crate::types::TokenId;

/// How many pages are in which state; the four add up to the total.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    pub free: usize,
    pub held: usize,
    /// Unreferenced and in the prefix tree, parked ones included.
    pub cached: usize,
    /// Unreferenced, in no tree, waiting for a step to land.
    pub fenced: usize,
}

/// The owner of all pages.
#[derive(Debug)]
pub struct PageCache {
    pages: Vec<Page>,
    free: Vec<PageId>,
    /// Pages with a holder.
    held: usize,
    parked: Vec<PageId>,
    /// Parked pages that nobody took up again.
    parked_idle: usize,
    tree: Option<PrefixTree>,
    /// Cached leaves that may be evicted, by the time they were let go.
    idle_leaves: BTreeSet<(u64, PageId)>,
    /// All cached pages that may be evicted, leaves or not.
    idle: usize,
    releases: u64,
    landed: u64,
    planted: Planted,
}

#[derive(Debug, Clone, Copy, Default)]
struct Page {
    references: u32,
    parked: bool,
    /// The last step that may touch the page.
    fence: u64,
    /// When it was last let go, in releases.
    released: u64,
}

impl PageCache {
    /// A pool of `pages` pages of `page_size` tokens, with or without a prefix tree.
    pub fn new(pages: usize, page_size: usize, prefix_cache: bool, planted: Planted) -> Self {
        assert!(page_size > 0 && pages < PageId::MAX as usize);
        PageCache {
            pages: vec![Page::default(); pages],
            free: (0..pages as PageId).rev().collect(),
            held: 0,
            parked: Vec::new(),
            parked_idle: 0,
            tree: prefix_cache.then(|| PrefixTree::new(pages, page_size, planted)),
            idle_leaves: BTreeSet::new(),
            idle: 0,
            releases: 0,
            landed: 0,
            planted,
        }
    }

    pub fn total(&self) -> usize {
        self.pages.len()
    }

    /// Pages that [`PageCache::allocate`] can give out now.
    pub fn available(&self) -> usize {
        self.free.len() + self.idle
    }

    /// Pages that become available when the steps in flight have landed.
    pub fn coming(&self) -> usize {
        self.parked_idle
    }

    /// Holders of a page.
    pub fn references(&self, page: PageId) -> u32 {
        self.pages[page as usize].references
    }

    /// The page stands in the prefix tree, so its content must not change.
    pub fn is_published(&self, page: PageId) -> bool {
        self.tree.as_ref().is_some_and(|t| t.contains(page))
    }

    /// [`PageCache::allocate`] might give it out now: it is free or evictable.
    pub fn may_be_reused(&self, page: PageId) -> bool {
        let state = &self.pages[page as usize];
        state.references == 0 && !state.parked
    }

    /// Counts towards [`PageCache::available`], so taking it up costs a page.
    pub fn is_idle(&self, page: PageId) -> bool {
        let state = &self.pages[page as usize];
        state.references == 0 && !state.parked && self.is_published(page)
    }

    /// Takes a free page, or else the cached page that was let go longest ago.
    pub fn allocate(&mut self) -> Option<PageId> {
        if self.planted.refuses() {
            return None;
        }
        let page = self.free.pop().or_else(|| self.evict())?;
        self.pages[page as usize] = Page { references: 1, ..Page::default() };
        self.held += 1;
        Some(page)
    }

    /// Allocations that were refused although there were pages.
    #[cfg(test)]
    pub fn refused(&self) -> u64 {
        self.planted.refused()
    }

    /// One more holder of a page that is held or cached.
    pub fn share(&mut self, page: PageId) {
        if self.is_idle(page) && !self.planted.has(Bug::HitStaysIdle) {
            self.idle -= 1;
            self.idle_leaves.remove(&(self.pages[page as usize].released, page));
        }
        let state = &mut self.pages[page as usize];
        if state.references == 0 && state.parked {
            self.parked_idle -= 1;
        }
        self.held += usize::from(state.references == 0);
        state.references += 1;
    }

    /// One holder less. `last_step` is the last step that had the page in this holder's table.
    /// A sequence lets go of its last page first, so that prefixes outlive what continues them.
    pub fn release(&mut self, page: PageId, last_step: u64) {
        self.releases += 1;
        let forgets = self.planted.has(Bug::FenceOfLastHolder);
        let state = &mut self.pages[page as usize];
        state.fence = if forgets { last_step } else { state.fence.max(last_step) };
        state.released = self.releases;
        state.references -= 1;
        if state.references > 0 {
            return;
        }
        self.held -= 1;
        if state.parked {
            self.parked_idle += 1;
        } else if state.fence > self.landed && !self.planted.has(Bug::FreeBeforeLanding) {
            state.parked = true;
            self.parked.push(page);
            self.parked_idle += 1;
        } else {
            self.settle(page);
        }
    }

    /// Steps up to `step` have landed: nothing that they touched is touched any more.
    pub fn landed(&mut self, step: u64) {
        self.landed = self.landed.max(step);
        let mut parked = std::mem::take(&mut self.parked);
        parked.retain(|&page| {
            let state = &mut self.pages[page as usize];
            if state.references == 0 && state.fence > self.landed {
                return true;
            }
            state.parked = false;
            if state.references == 0 {
                self.parked_idle -= 1;
                self.settle(page);
            }
            false
        });
        self.parked = parked;
    }

    /// Appends to `found` the cached pages of the longest prefix of `tokens`, at most `most`.
    pub fn find(&self, salt: u64, tokens: &[TokenId], most: usize, found: &mut Vec<PageId>) {
        if let Some(tree) = &self.tree {
            tree.find(salt, tokens, most, found);
        }
    }

    /// Offers a full page to others: `tokens` after the prefix that ends with `parent`. The
    /// caller holds `page` and `parent`. If the tree has such a page already, the caller's hold
    /// moves over to that one, which is returned; `last_step` fences the page it gives up.
    pub fn publish(
        &mut self,
        salt: u64,
        parent: Option<PageId>,
        tokens: &[TokenId],
        page: PageId,
        last_step: u64,
    ) -> PageId {
        let Some(tree) = &mut self.tree else { return page };
        if let Some(known) = tree.child(salt, parent, tokens) {
            if known != page {
                self.share(known);
                self.release(page, last_step);
            }
            return known;
        }
        tree.insert(salt, parent, tokens, page);
        page
    }

    /// Empties the prefix tree of all that nobody holds; returns how many pages stay in it.
    pub fn flush(&mut self) -> usize {
        while let Some(page) = self.evict() {
            self.free.push(page);
        }
        self.tree.as_ref().map_or(0, PrefixTree::len)
    }

    /// Counts pages by state; costs as much as there are parked pages.
    pub fn census(&self) -> Census {
        let unheld = self.parked.iter().filter(|&&p| self.references(p) == 0);
        let fenced = unheld.filter(|&&p| !self.is_published(p)).count();
        let (free, held) = (self.free.len(), self.held);
        let cached = self.pages.len().saturating_sub(free + held + fenced);
        Census { free, held, cached, fenced }
    }

    fn settle(&mut self, page: PageId) {
        let Some(tree) = self.tree.as_ref().filter(|t| t.contains(page)) else {
            self.free.push(page);
            if self.planted.has(Bug::DoubleFree) && page % 4 == 3 {
                self.free.push(page);
            }
            return;
        };
        self.idle += 1;
        if tree.is_leaf(page) {
            self.idle_leaves.insert((self.pages[page as usize].released, page));
        }
    }

    fn evict(&mut self) -> Option<PageId> {
        let (_, page) = self.idle_leaves.pop_first()?;
        self.idle = self.idle.saturating_sub(1);
        let tree = self.tree.as_mut()?;
        if let Some(parent) = tree.remove(page)
            && tree.is_leaf(parent)
            && self.is_idle(parent)
        {
            self.idle_leaves.insert((self.pages[parent as usize].released, parent));
        }
        Some(page)
    }

    /// Recounts everything against the page tables of all holders; names what is wrong.
    pub fn audit<'a>(&self, tables: impl Iterator<Item = &'a [PageId]>) -> Result<(), String> {
        let mut holders = vec![0u32; self.pages.len()];
        for &page in tables.flatten() {
            let count =
                holders.get_mut(page as usize).ok_or(format!("page {page} does not exist"))?;
            *count += 1;
        }
        let mut free = vec![false; self.pages.len()];
        for &page in &self.free {
            if std::mem::replace(&mut free[page as usize], true) {
                return Err(format!("page {page} is on the free list twice"));
            }
        }
        let mut counted = Counts::default();
        for (page, (&holders, &free)) in holders.iter().zip(&free).enumerate() {
            self.audit_page(page as PageId, holders, free, &mut counted)?;
        }
        let Census { free, held, cached, fenced } = self.census();
        let kept = Counts {
            free,
            held,
            cached,
            fenced,
            idle: self.idle,
            idle_leaves: self.idle_leaves.len(),
            parked: self.parked_idle,
        };
        if kept != counted {
            return Err(format!("kept {kept:?}, recounted {counted:?}"));
        }
        Ok(())
    }

    fn audit_page(
        &self,
        page: PageId,
        holders: u32,
        free: bool,
        counted: &mut Counts,
    ) -> Result<(), String> {
        let state = &self.pages[page as usize];
        if state.references != holders {
            let count = state.references;
            return Err(format!("page {page} counts {count} holders, {holders} tables name it"));
        }
        let parked = holders == 0 && state.parked;
        let owners = [free, holders > 0, parked, self.is_idle(page)];
        if owners.iter().filter(|&&owns| owns).count() != 1 {
            return Err(format!("page {page} is free, held, parked, idle: {owners:?}"));
        }
        if state.parked != self.parked.contains(&page) {
            return Err(format!("page {page} is parked and not listed, or listed and not parked"));
        }
        let published = self.is_published(page);
        counted.free += usize::from(free);
        counted.held += usize::from(holders > 0);
        counted.cached += usize::from(holders == 0 && published);
        counted.fenced += usize::from(parked && !published);
        counted.idle += usize::from(self.is_idle(page));
        counted.idle_leaves += usize::from(self.is_idle(page) && self.is_leaf(page));
        counted.parked += usize::from(parked);
        let Some(parent) = self.tree.as_ref().and_then(|t| t.parent(page)) else { return Ok(()) };
        if !self.is_published(parent) || (holders > 0 && self.references(parent) == 0) {
            return Err(format!("page {page} continues page {parent}, which is not kept for it"));
        }
        Ok(())
    }

    fn is_leaf(&self, page: PageId) -> bool {
        self.tree.as_ref().is_some_and(|t| t.is_leaf(page))
    }
}

/// What [`PageCache::audit`] recounts.
#[derive(Debug, Default, PartialEq)]
struct Counts {
    free: usize,
    held: usize,
    cached: usize,
    fenced: usize,
    idle: usize,
    idle_leaves: usize,
    parked: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(pages: usize) -> PageCache {
        PageCache::new(pages, 2, true, Planted::default())
    }

    fn check(cache: &PageCache, tables: &[&[PageId]]) {
        cache.audit(tables.iter().copied()).expect("audit");
    }

    #[test]
    fn a_page_in_flight_waits_for_its_last_holder_s_step() {
        let mut c = cache(1);
        let page = c.allocate().expect("one page");
        c.share(page);
        c.release(page, 7);
        c.release(page, 5);
        assert_eq!((c.available(), c.coming()), (0, 1));
        check(&c, &[]);
        c.landed(5);
        assert_eq!(c.allocate(), None, "step 7 may still read it");
        c.landed(7);
        assert_eq!(c.allocate(), Some(page));
    }

    #[test]
    fn eviction_takes_the_oldest_leaf_and_then_its_parent() {
        let mut c = cache(3);
        let pages: Vec<_> = (0..3).map(|_| c.allocate().expect("page")).collect();
        c.publish(0, None, &[1, 1], pages[0], 0);
        c.publish(0, Some(pages[0]), &[2, 2], pages[1], 0);
        c.publish(0, None, &[3, 3], pages[2], 0);
        check(&c, &[&pages]);
        c.release(pages[1], 0);
        c.release(pages[0], 0);
        c.release(pages[2], 0);
        assert_eq!(c.census(), Census { free: 0, held: 0, cached: 3, fenced: 0 });
        assert_eq!(c.allocate(), Some(pages[1]));
        assert_eq!(c.allocate(), Some(pages[0]));
        check(&c, &[&pages[..2]]);
        let mut found = Vec::new();
        c.find(0, &[3, 3], 9, &mut found);
        assert_eq!(found, [pages[2]]);
        assert_eq!(c.flush(), 0);
        assert_eq!(c.available(), 1);
    }

    #[test]
    fn what_was_let_go_first_is_evicted_first() {
        let mut c = cache(2);
        let pages: Vec<_> = (0..2).map(|_| c.allocate().expect("page")).collect();
        c.publish(0, None, &[1, 1], pages[0], 0);
        c.publish(0, None, &[2, 2], pages[1], 0);
        c.release(pages[1], 0);
        c.release(pages[0], 0);
        assert_eq!([c.allocate(), c.allocate()], [Some(pages[1]), Some(pages[0])]);
    }

    #[test]
    #[should_panic(expected = "page_size > 0")]
    fn a_page_holds_something() {
        PageCache::new(1, 0, true, Planted::default());
    }

    #[test]
    fn publishing_what_is_known_moves_the_hold() {
        let mut c = cache(2);
        let (a, b) = (c.allocate().expect("a"), c.allocate().expect("b"));
        assert_eq!(c.publish(0, None, &[1, 2], a, 1), a);
        assert_eq!(c.publish(0, None, &[1, 2], b, 1), a);
        assert_eq!((c.references(a), c.references(b), c.coming()), (2, 0, 1));
        check(&c, &[&[a], &[a]]);
    }

    #[test]
    fn a_parked_page_that_is_hit_again_is_not_freed() {
        let mut c = cache(2);
        let a = c.allocate().expect("a");
        c.publish(0, None, &[1, 2], a, 1);
        c.release(a, 1);
        c.share(a);
        c.landed(1);
        check(&c, &[&[a]]);
        c.release(a, 1);
        assert_eq!(c.available(), 2);
        check(&c, &[]);
    }

    #[test]
    fn the_audit_names_a_leak() {
        let mut c = cache(2);
        let a = c.allocate().expect("a");
        let complaint = c.audit(std::iter::empty()).expect_err("page a has no table");
        assert!(complaint.contains(&format!("page {a} counts 1 holders")), "{complaint}");
    }
}
