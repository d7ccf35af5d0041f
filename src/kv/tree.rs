//! A prefix tree over full pages: from the tokens of a prompt to the pages that hold them.
//!
//! A node is a page, so nodes are numbered by [`PageId`] and need no allocation of their own, but
//! for the list of a fork's children. A child is found by its exact token ids, never by a hash
//! alone, and only under the right parent: equal pages after different prefixes are different
//! nodes. Each salt (tenant) has a root of its own.

use std::collections::BTreeMap;

use super::PageId;
use super::children::Children;
use super::planted::{Bug, Planted};
use crate::types::TokenId;

/// Which pages are cached, and the prefix that each of them ends.
#[derive(Debug)]
pub struct PrefixTree {
    page_size: usize,
    nodes: Vec<Node>,
    /// `[pages, page_size]`: the tokens of each page in the tree.
    tokens: Vec<TokenId>,
    /// First pages, by salt, each list in the order of their tokens.
    roots: BTreeMap<u64, Vec<PageId>>,
    len: usize,
    planted: Planted,
}

#[derive(Debug, Clone, Default)]
struct Node {
    present: bool,
    salt: u64,
    parent: Option<PageId>,
    /// In the order of their tokens.
    children: Children,
}

impl PrefixTree {
    pub fn new(pages: usize, page_size: usize, planted: Planted) -> Self {
        PrefixTree {
            page_size,
            nodes: vec![Node::default(); pages],
            // Not zero, so that the memory is taken here: a pool whose pages come into use one
            // after the other must not look like a leak.
            tokens: vec![TokenId::MAX; pages * page_size],
            roots: BTreeMap::new(),
            len: 0,
            planted,
        }
    }

    /// Pages in the tree.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn contains(&self, page: PageId) -> bool {
        self.nodes[page as usize].present
    }

    /// The page stands in the tree and no other page continues it.
    pub fn is_leaf(&self, page: PageId) -> bool {
        let node = &self.nodes[page as usize];
        node.present && node.children.pages().is_empty()
    }

    pub fn parent(&self, page: PageId) -> Option<PageId> {
        self.nodes[page as usize].parent
    }

    /// Appends to `found` the cached pages of the longest prefix of `tokens`, at most `most`.
    pub fn find(&self, salt: u64, tokens: &[TokenId], most: usize, found: &mut Vec<PageId>) {
        let mut parent = None;
        for page_tokens in tokens.chunks_exact(self.page_size).take(most) {
            let Some(page) = self.child(salt, parent, page_tokens) else { return };
            found.push(page);
            parent = Some(page);
        }
    }

    /// The page that continues `parent` (`None`: that begins a prompt) with `tokens`.
    pub fn child(&self, salt: u64, parent: Option<PageId>, tokens: &[TokenId]) -> Option<PageId> {
        if self.planted.has(Bug::PrefixWithoutParent) {
            return (0..self.nodes.len() as PageId)
                .find(|&p| self.contains(p) && self.page_tokens(p) == tokens);
        }
        let siblings = self.siblings(self.root(salt), parent);
        let at = self.position(siblings, tokens).ok()?;
        Some(siblings[at])
    }

    /// Adds `page` under `parent`. The caller has checked that no such child is there.
    pub fn insert(&mut self, salt: u64, parent: Option<PageId>, tokens: &[TokenId], page: PageId) {
        debug_assert!(!self.contains(page) && tokens.len() == self.page_size);
        let salt = self.root(salt);
        let start = page as usize * self.page_size;
        self.tokens[start..start + self.page_size].copy_from_slice(tokens);
        let siblings = self.siblings(salt, parent);
        let at = self.position(siblings, tokens).unwrap_or_else(|at| at);
        match parent {
            Some(parent) => self.nodes[parent as usize].children.insert(at, page),
            None => self.roots.entry(salt).or_default().insert(at, page),
        }
        let node = &mut self.nodes[page as usize];
        (node.present, node.salt, node.parent) = (true, salt, parent);
        self.len += 1;
    }

    /// Takes a leaf out and returns its parent.
    pub fn remove(&mut self, page: PageId) -> Option<PageId> {
        debug_assert!(self.is_leaf(page));
        let Node { salt, parent, .. } = self.nodes[page as usize];
        match parent {
            Some(parent) => self.nodes[parent as usize].children.remove(page),
            None => {
                if let Some(root) = self.roots.get_mut(&salt) {
                    root.retain(|&p| p != page);
                    if root.is_empty() {
                        self.roots.remove(&salt);
                    }
                }
            }
        }
        let node = &mut self.nodes[page as usize];
        (node.present, node.parent) = (false, None);
        self.len -= 1;
        parent
    }

    fn root(&self, salt: u64) -> u64 {
        if self.planted.has(Bug::SaltIgnored) { 0 } else { salt }
    }

    fn siblings(&self, salt: u64, parent: Option<PageId>) -> &[PageId] {
        match parent {
            Some(parent) => self.nodes[parent as usize].children.pages(),
            None => self.roots.get(&salt).map_or(&[], Vec::as_slice),
        }
    }

    fn position(&self, siblings: &[PageId], tokens: &[TokenId]) -> Result<usize, usize> {
        siblings.binary_search_by(|&page| self.page_tokens(page).cmp(tokens))
    }

    fn page_tokens(&self, page: PageId) -> &[TokenId] {
        let start = page as usize * self.page_size;
        &self.tokens[start..start + self.page_size]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> PrefixTree {
        PrefixTree::new(8, 2, Planted::default())
    }

    fn find(tree: &PrefixTree, salt: u64, tokens: &[TokenId]) -> Vec<PageId> {
        let mut found = Vec::new();
        tree.find(salt, tokens, usize::MAX, &mut found);
        found
    }

    #[test]
    fn a_page_is_found_only_after_its_own_prefix() {
        let mut t = tree();
        t.insert(0, None, &[1, 2], 5);
        t.insert(0, Some(5), &[3, 4], 6);
        assert_eq!(find(&t, 0, &[1, 2, 3, 4, 9]), [5, 6]);
        assert_eq!(find(&t, 0, &[1, 2, 3]), [5], "half a page is no page");
        assert_eq!(find(&t, 0, &[7, 7, 3, 4]), [0; 0], "same middle page, other prefix");
        assert_eq!(find(&t, 1, &[1, 2, 3, 4]), [0; 0], "other tenant");
    }

    #[test]
    fn siblings_are_told_apart_and_leaves_removed() {
        let mut t = tree();
        for (page, token) in [(0, 9), (1, 4), (2, 6)] {
            t.insert(0, None, &[token, token], page);
        }
        t.insert(0, Some(1), &[0, 0], 3);
        assert_eq!(find(&t, 0, &[4, 4, 0, 0]), [1, 3]);
        assert!(!t.is_leaf(1));
        assert_eq!(t.remove(3), Some(1));
        assert!(t.is_leaf(1) && t.len() == 3);
        assert_eq!(t.remove(1), None);
        assert_eq!(find(&t, 0, &[4, 4]), [0; 0]);
        assert_eq!(find(&t, 0, &[6, 6]), [2]);
    }

    #[test]
    fn a_tenant_that_has_nothing_left_takes_no_room() {
        let mut t = tree();
        for salt in 0..100 {
            t.insert(salt, None, &[1, 2], 0);
            assert!(!t.is_empty());
            t.remove(0);
        }
        assert!(t.is_empty() && t.roots.is_empty());
    }
}
