//! Rows of 64 bytes of memory and who touched them, all of a row at once or word by word.
//!
//! A full warp that touches consecutive addresses leaves one record a row; everything else leaves
//! one a word. [`super::record`] says what is kept and what conflicts.

use super::record::{Look, ROW_BYTES, ROW_WORDS, Record, Set, Why};
use super::shadow::Proxy;

/// Records of 64 bytes: of all of them at once, or word by word.
#[derive(Debug, Default)]
pub struct Row {
    whole: Set,
    words: Option<Box<[Set; ROW_WORDS]>>,
    /// The last launch in which the words' records were the ones that hold; 0: the row's are.
    in_words: u8,
}

impl Row {
    #[inline]
    fn is_in_words(&self, look: &Look<'_>) -> bool {
        self.in_words != 0 && !look.forgotten(self.in_words)
    }

    /// Whether nothing here conflicts with an access to the whole row, as far as can be said
    /// without a look at words.
    #[inline]
    fn admits(&self, wrote: bool, new: &Record, look: &Look<'_>) -> bool {
        !self.is_in_words(look) && self.whole.admits(wrote, new, look)
    }

    /// The record of a word that an access conflicts with, its lane, and why.
    #[inline]
    fn clash(
        &self,
        word: usize,
        wrote: bool,
        new: &Record,
        look: &Look<'_>,
    ) -> Option<(Record, u32, Why)> {
        match &self.words {
            Some(words) if self.is_in_words(look) => words[word].clash(wrote, new, look),
            _ if self.whole.is_empty() => None,
            _ => {
                let parts = self.whole.iter().flat_map(|row| row.at_word(word as u32));
                parts.into_iter().find_map(|old| {
                    look.clash(&old, wrote, new, false).map(|(lane, why)| (old, lane, why))
                })
            }
        }
    }

    /// The records of the row's words, which hold from now on.
    fn words(&mut self, look: &Look<'_>) -> &mut [Set; ROW_WORDS] {
        let spread = !self.is_in_words(look);
        self.in_words = look.launch;
        let words = self.words.get_or_insert_default();
        if spread {
            for (n, set) in words.iter_mut().enumerate() {
                set.clear();
                let parts = self.whole.iter().flat_map(|row| row.at_word(n as u32));
                parts.filter(|p| p.launch != 0).for_each(|p| set.push(p));
            }
        }
        words
    }

    pub fn forget_all(&mut self) {
        self.whole.clear();
        self.in_words = 0;
    }

    /// Whether there is no record, as far as can be said without a look at words.
    fn is_empty(&self) -> bool {
        self.in_words == 0 && self.whole.is_empty()
    }

    /// The record of the whole row, which holds from now on.
    #[inline]
    fn whole(&mut self) -> &mut Set {
        if self.in_words != 0 {
            self.in_words = 0;
            self.whole.clear();
        }
        &mut self.whole
    }
}

/// The other party of a race: a thread of this cluster or of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rival {
    /// The lane that made the new access.
    pub lane: u32,
    pub cluster: u32,
    pub actor: u32,
    pub pc: u32,
    pub wrote: bool,
    /// The access was one of an earlier launch.
    pub earlier: bool,
    /// It is ordered before, but lacks this proxy's fence.
    pub unfenced: Option<Proxy>,
}

#[cold]
fn rival(new: &Record, old: &Record, lane: u32, why: Why, wrote: bool) -> Rival {
    Rival {
        lane: new.lanes.trailing_zeros(),
        cluster: old.cluster,
        actor: old.actor(lane),
        pc: old.pc,
        wrote,
        earlier: why == Why::Earlier,
        unfenced: if let Why::Unfenced(proxy) = why { Some(proxy) } else { None },
    }
}

/// Whether an access of a full warp at `at` is made of whole rows.
pub fn whole_rows(at: u64, width: u32, base: u32) -> bool {
    matches!(width, 2 | 4 | 8 | 16) && at.is_multiple_of(ROW_BYTES) && base.is_multiple_of(32)
}

/// The rows of an access of a full warp, each lane right after the one before, and the part of
/// the warp at each.
#[inline]
pub fn lanes_by_row(at: u64, width: u32, all: Record) -> impl Iterator<Item = (u64, Record)> {
    let lanes = ROW_BYTES as u32 / width.clamp(2, 64);
    let mask = (u64::MAX >> (64 - lanes)) as u32;
    (0..32 / lanes)
        .map(move |n| (at / ROW_BYTES + u64::from(n), Record { lanes: mask << (n * lanes), ..all }))
}

/// A range, row by row: the row, its first byte in the range and the one after the last.
#[inline]
pub fn parts(at: u64, bytes: u64) -> impl Iterator<Item = (u64, u64, u64)> {
    let (mut from, end) = (at, at + bytes);
    std::iter::from_fn(move || {
        let row = from / ROW_BYTES;
        let first = from % ROW_BYTES;
        let past = (first + end.checked_sub(from).filter(|left| *left > 0)?).min(ROW_BYTES);
        from += past - first;
        Some((row, first, past))
    })
}

/// The words of bytes `from..to` of a row, each with the mask of its bytes among them.
#[inline]
fn words(from: u64, to: u64) -> impl Iterator<Item = (usize, u8)> {
    let mut from = from;
    std::iter::from_fn(move || {
        let past = (from / 4 * 4 + 4).min(to);
        let mask = ((1u32 << past.checked_sub(from).filter(|n| *n > 0)?) - 1) << (from % 4);
        let word = from / 4;
        from = past;
        Some((word as usize, mask as u8))
    })
}

/// Rows next to each other; what nobody has touched may be missing.
pub struct Table<'a> {
    pub writes: Option<&'a mut [Row]>,
    pub reads: Option<&'a mut [Row]>,
}

impl Table<'_> {
    /// Checks and records an access of one thread, or of several lanes at one place, to bytes
    /// `from..to` of a row.
    pub fn part(
        &mut self,
        at: usize,
        (from, to): (u64, u64),
        new: &Record,
        look: &Look<'_>,
    ) -> Result<(), Rival> {
        if to - from == ROW_BYTES && new.lanes.is_power_of_two() {
            return self.row(at, new, look);
        }
        if from % 4 == 0 && to % 4 == 0 && new.bytes == 15 {
            return (from / 4..to / 4).try_for_each(|word| self.word(at, word as usize, new, look));
        }
        for (word, bytes) in words(from, to) {
            self.word(at, word, &Record { bytes, ..*new }, look)?;
        }
        Ok(())
    }

    /// Checks an access to bytes `from..to` of a row.
    pub fn check(
        &self,
        at: usize,
        (from, to): (u64, u64),
        new: &Record,
        look: &Look<'_>,
    ) -> Result<(), Rival> {
        if new.lanes.is_power_of_two() && self.admits(at, new, look) {
            return Ok(());
        }
        let mut words = words(from, to);
        words.try_for_each(|(word, bytes)| self.clash(at, word, &Record { bytes, ..*new }, look))
    }

    /// Records an access to bytes `from..to` of a row.
    pub fn record(&mut self, at: usize, (from, to): (u64, u64), new: &Record, look: &Look<'_>) {
        if to - from == ROW_BYTES && new.lanes.is_power_of_two() && !self.own_in_words(at, look) {
            return self.add_row(at, new, look);
        }
        for (word, bytes) in words(from, to) {
            self.add(at, word, &Record { bytes, ..*new }, look);
        }
    }

    /// Records a write that everything before it is ordered before, in place of all of that.
    pub fn replace(&mut self, at: usize, (from, to): (u64, u64), new: &Record, look: &Look<'_>) {
        let [writes, reads] = [&mut self.writes, &mut self.reads].map(|rows| rows.as_mut());
        let (Some(writes), Some(reads)) = (writes, reads) else { return };
        if to - from == ROW_BYTES {
            reads[at].forget_all();
            writes[at].forget_all();
            return writes[at].whole.push(*new);
        }
        for (word, bytes) in words(from, to) {
            let set = &mut writes[at].words(look)[word];
            set.clear();
            set.push(Record { bytes, ..*new });
            if !reads[at].is_empty() {
                reads[at].words(look)[word].clear();
            }
        }
    }

    /// Whether nothing conflicts with an access to a whole row, as far as can be said without a
    /// look at words.
    #[inline]
    fn admits(&self, at: usize, new: &Record, look: &Look<'_>) -> bool {
        let admit = |rows: &Option<&mut [Row]>, wrote| {
            rows.as_ref().is_none_or(|rows| rows[at].admits(wrote, new, look))
        };
        admit(&self.writes, true) && (!look.write || admit(&self.reads, false))
    }

    /// Checks and records an access to a whole row.
    #[inline]
    pub fn row(&mut self, at: usize, new: &Record, look: &Look<'_>) -> Result<(), Rival> {
        if !self.admits(at, new, look) || self.own_in_words(at, look) {
            return self.by_words(at, new, look);
        }
        self.add_row(at, new, look);
        Ok(())
    }

    /// Whether the records that a new access joins are word by word.
    #[inline]
    fn own_in_words(&self, at: usize, look: &Look<'_>) -> bool {
        let own = if look.write { &self.writes } else { &self.reads };
        own.as_ref().is_some_and(|own| own[at].is_in_words(look))
    }

    /// Records an access to a whole row.
    #[inline]
    fn add_row(&mut self, at: usize, new: &Record, look: &Look<'_>) {
        let own = if look.write { &mut self.writes } else { &mut self.reads };
        if let Some(own) = own {
            own[at].whole().add(new, look, true);
        }
        if look.write
            && let Some(reads) = &mut self.reads
        {
            reads[at].whole.forget(new, look, true);
        }
    }

    #[cold]
    fn by_words(&mut self, at: usize, new: &Record, look: &Look<'_>) -> Result<(), Rival> {
        for word in 0..ROW_WORDS {
            for part in new.at_word(word as u32) {
                if part.launch != 0 {
                    self.word(at, word, &part, look)?;
                }
            }
        }
        Ok(())
    }

    /// Checks and records an access to a word of a row.
    #[inline]
    fn word(&mut self, at: usize, word: usize, new: &Record, look: &Look<'_>) -> Result<(), Rival> {
        self.clash(at, word, new, look)?;
        self.add(at, word, new, look);
        Ok(())
    }

    /// Checks an access to a word of a row.
    #[inline]
    fn clash(&self, at: usize, word: usize, new: &Record, look: &Look<'_>) -> Result<(), Rival> {
        let rivals = [(&self.writes, true), (&self.reads, false)];
        for (rows, wrote) in rivals {
            let (Some(rows), true) = (rows, wrote || look.write) else { continue };
            if let Some((old, lane, why)) = rows[at].clash(word, wrote, new, look) {
                return Err(rival(new, &old, lane, why, wrote));
            }
        }
        Ok(())
    }

    /// Records an access to a word of a row.
    fn add(&mut self, at: usize, word: usize, new: &Record, look: &Look<'_>) {
        let own = if look.write { &mut self.writes } else { &mut self.reads };
        if let Some(own) = own {
            own[at].words(look)[word].add(new, look, false);
        }
        if look.write
            && let Some(reads) = &mut self.reads
            && reads[at].is_in_words(look)
        {
            reads[at].words(look)[word].forget(new, look, false);
        }
    }
}
