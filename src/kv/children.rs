//! The pages that continue a page, in an order that the caller knows.
//!
//! Most pages have one continuation or none, which takes no allocation: thousands of small ones,
//! made and dropped as prompts come and go, would pin the memory around them.

use super::PageId;

#[derive(Debug, Clone, Default)]
pub enum Children {
    #[default]
    None,
    One(PageId),
    /// At least two.
    Many(Vec<PageId>),
}

impl Children {
    pub fn pages(&self) -> &[PageId] {
        match self {
            Children::None => &[],
            Children::One(page) => std::slice::from_ref(page),
            Children::Many(pages) => pages,
        }
    }

    /// Puts a page at a place, at most the number of pages.
    pub fn insert(&mut self, at: usize, page: PageId) {
        match self {
            Children::None => *self = Children::One(page),
            Children::One(other) if at == 0 => *self = Children::Many(vec![page, *other]),
            Children::One(other) => *self = Children::Many(vec![*other, page]),
            Children::Many(pages) => pages.insert(at, page),
        }
    }

    pub fn remove(&mut self, page: PageId) {
        match self {
            Children::One(only) if *only == page => *self = Children::None,
            Children::Many(pages) => {
                pages.retain(|&p| p != page);
                if let &[last] = &pages[..] {
                    *self = Children::One(last);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_a_list_of_pages() {
        let (mut children, mut list) = (Children::default(), Vec::new());
        for (at, page) in [(0, 5), (0, 3), (1, 4), (3, 9), (1, 7)] {
            children.insert(at, page);
            list.insert(at, page);
            assert_eq!(children.pages(), list);
        }
        for page in [4, 1, 9, 3, 5, 5, 7] {
            children.remove(page);
            list.retain(|&p| p != page);
            assert_eq!(children.pages(), list);
        }
        assert!(matches!(children, Children::None));
    }
}
