//! What the shadow of global memory lets pass, and what it finds.

use super::*;

fn who(actor: u32, pc: u32) -> Access {
    let (base, lane) = (actor / 32 * 32, actor % 32);
    Access { actor, base, lane, epoch: 1, pc, store: pc as u16, atomic: false, generic: true }
}

fn origin(launch: u8, cluster: u32) -> Origin<'static> {
    Origin { launch, cluster, open: [&[], &[]], flags: false }
}

/// A clock of 256 threads that knows these of its cluster up to epoch 1.
fn knows(actors: impl IntoIterator<Item = usize>) -> Clock {
    let mut clock = Clock::new(256);
    actors.into_iter().for_each(|a| clock.learn(a, 1));
    clock
}

#[test]
fn conflicts_need_the_same_bytes_and_launch() {
    let shadow = GlobalShadow::new(64);
    let clock = Clock::new(64);
    let go = |at, bytes, actor, cluster, launch, write| {
        shadow.pass(origin(launch, cluster), write).access(at, bytes, &who(actor, actor), &clock)
    };
    assert_eq!(go(0, 2, 0, 0, 1, true), Ok(()));
    assert_eq!(go(2, 2, 40, 0, 1, true), Ok(()), "other bytes of the word");
    assert!(go(2, 2, 0, 0, 1, true).is_err(), "unordered threads of a cluster");
    assert!(go(0, 4, 0, 1, 1, true).is_err(), "another cluster");
    assert_eq!(go(0, 4, 0, 1, 2, true), Ok(()), "another launch");
    assert_eq!(go(8, 8, 0, 0, 2, false), Ok(()));
    assert_eq!(go(8, 8, 40, 0, 2, false), Ok(()), "readers do not conflict");
    let rival = go(12, 4, 1, 0, 2, true).unwrap_err();
    assert!(!rival.wrote);
}

/// What a warp leaves as rows is found word by word, and the other way round.
#[test]
fn rows_and_words_agree() {
    for width in [2u32, 4, 8, 16] {
        let shadow = GlobalShadow::new(1 << 20);
        let at = 16384 - 64;
        let pass = |launch, write| shadow.pass(origin(launch, 0), write);
        let clock = Clock::new(256);
        assert_eq!(pass(1, true).run(at, width, &who(32, 7), &clock), Ok(()));
        for lane in 0..32u64 {
            let own = at + lane * u64::from(width);
            let mine = who(32 + lane as u32, 8);
            assert_eq!(pass(1, false).access(own, width, &mine, &clock), Ok(()), "{width}");
            let rival = pass(1, false).access(own, width, &who(3, 9), &clock).unwrap_err();
            assert_eq!((rival.actor, rival.pc, rival.wrote), (32 + lane as u32, 7, true));
        }
        // Another warp cannot take the rows over, unless it knows of the first one's accesses.
        let rival = pass(1, true).run(at, width, &who(64, 7), &clock).unwrap_err();
        assert_eq!((rival.lane, rival.actor), (0, 32));
        assert_eq!(pass(1, true).run(at, width, &who(64, 7), &knows(32..64)), Ok(()));
        assert_eq!(pass(2, false).run(at, width, &who(64, 7), &clock), Ok(()), "a new launch");
        let rival = pass(2, true).access(at, 1, &who(0, 1), &clock).unwrap_err();
        assert_eq!((rival.actor, rival.wrote), (64, false));
    }
}

/// Three warps read; a writer that is ordered after two of them races with the third, whichever
/// it is and however they read.
#[test]
fn every_reader_is_kept() {
    let everyone: Vec<usize> = (0..96).collect();
    for words in [[false; 3], [true; 3], [true, false, true], [false, true, false]] {
        for left_out in 0..3usize {
            let shadow = GlobalShadow::new(4096);
            let nothing = Clock::new(256);
            for (warp, by_words) in words.into_iter().enumerate() {
                let mut pass = shadow.pass(origin(1, 0), false);
                let base = 32 * warp as u32;
                match by_words {
                    false => pass.run(0, 4, &who(base, 5), &nothing).unwrap(),
                    true => (0..32).for_each(|lane| {
                        pass.access(4 * lane, 4, &who(base + lane as u32, 5), &nothing).unwrap();
                    }),
                }
            }
            let known = everyone.iter().copied().filter(|a| a / 32 != left_out);
            let mut write = shadow.pass(origin(1, 0), true);
            let rival = write.run(0, 4, &who(96, 6), &knows(known)).unwrap_err();
            assert_eq!((rival.actor as usize / 32, rival.wrote), (left_out, false), "{words:?}");
            let all = knows(everyone.iter().copied());
            assert_eq!(write.run(0, 4, &who(96, 6), &all), Ok(()), "{words:?}");
        }
    }
}

/// Halves of a word by different threads, and atomics, are all kept too.
#[test]
fn every_writer_is_kept() {
    let shadow = GlobalShadow::new(64);
    let nothing = Clock::new(256);
    let mut write = shadow.pass(origin(1, 0), true);
    write.access(0, 2, &who(0, 1), &nothing).unwrap();
    write.access(2, 2, &who(40, 1), &nothing).unwrap();
    for n in [0, 40, 80] {
        write.access(8, 4, &Access { atomic: true, ..who(n, 2) }, &nothing).unwrap();
    }
    drop(write);
    let mut read = shadow.pass(origin(1, 0), false);
    for (at, bytes, missing) in [(0, 2, 0), (2, 2, 40), (0, 4, 0), (8, 4, 0), (8, 4, 40)] {
        let clock = knows([0usize, 40, 80].into_iter().filter(|a| *a != missing));
        let rival = read.access(at, bytes, &who(100, 3), &clock).unwrap_err();
        assert_eq!((rival.actor as usize, rival.wrote), (missing, true));
        assert_eq!(read.access(at, bytes, &who(100, 3), &knows([0, 40, 80])), Ok(()));
    }
}

/// Where flags order clusters, a reader of each counts; where nothing does, two are enough.
#[test]
fn readers_of_many_clusters() {
    for flags in [false, true] {
        let shadow = GlobalShadow::new(64);
        let nothing = Clock::new(256);
        let from = |cluster| Origin { flags, ..origin(1, cluster) };
        for cluster in 0..5 {
            shadow.pass(from(cluster), false).access(0, 4, &who(cluster, 1), &nothing).unwrap();
        }
        let mut known = Clock::new(256);
        let mut view = crate::memory::reach::View::default();
        (0..4).for_each(|c| view.set(c, [1; 8].as_slice().into()));
        known.learn_view(&view, 9);
        let wrote = shadow.pass(from(9), true).access(0, 4, &who(0, 2), &known);
        match flags {
            true => assert_eq!(wrote.unwrap_err().cluster, 4),
            // No such clock can be: the two that are kept are both known.
            false => assert_eq!(wrote, Ok(())),
        }
        assert!(shadow.pass(from(0), true).access(0, 4, &who(0, 2), &nothing).is_err());
    }
}

/// Records of an earlier launch that may still run count until a thread has waited.
#[test]
fn launches_that_overlap() {
    for words in [false, true] {
        let shadow = GlobalShadow::new(4096);
        let mut clock = Clock::new(64);
        let mut first = shadow.pass(origin(1, 0), true);
        match words {
            true => first.access(0, 64, &who(3, 7), &clock).unwrap(),
            false => first.run(0, 4, &who(0, 7), &clock).unwrap(),
        }
        drop(first);
        let second = Origin { open: [&[1], &[]], ..origin(2, 0) };
        for (at, write) in [(0, false), (60, true)] {
            let go = |c: &Clock| shadow.pass(second, write).access(at, 4, &who(3, 9), c);
            assert!(go(&clock).unwrap_err().earlier);
        }
        assert!(shadow.pass(second, false).run(0, 2, &who(0, 9), &clock).is_err());
        clock.waited = true;
        assert_eq!(shadow.pass(second, false).access(0, 4, &who(3, 9), &clock), Ok(()));
    }
}

/// A copy by the asynchronous engine needs order and a fence for what threads wrote.
#[test]
fn copies_need_their_proxys_fence() {
    let shadow = GlobalShadow::new(4096);
    let nothing = Clock::new(256);
    shadow.pass(origin(1, 0), true).run(0, 4, &who(0, 7), &nothing).unwrap();
    let engine = Access { generic: false, ..who(200, 9) };
    let go = |clock: &Clock| shadow.pass(origin(1, 0), false).access(0, 128, &engine, clock);
    assert_eq!(go(&nothing).unwrap_err().unfenced, None);
    let mut ordered = knows(0..32);
    assert_eq!(go(&ordered).unwrap_err().unfenced, Some(Proxy::AsyncGlobal));
    ordered.fence(Proxy::AsyncShared);
    assert_eq!(go(&ordered).unwrap_err().unfenced, Some(Proxy::AsyncGlobal));
    ordered.fence(Proxy::AsyncGlobal);
    assert_eq!(go(&ordered), Ok(()));
    let map = |clock: &Clock| shadow.pass(origin(1, 0), false).map(0, 128, &who(64, 9), clock);
    assert_eq!(map(&ordered).unwrap_err().unfenced, Some(Proxy::TensorMap));
    ordered.fence(Proxy::TensorMap);
    assert_eq!(map(&ordered), Ok(()));
    // A later launch needs none.
    let later = shadow.pass(origin(2, 0), false).access(0, 128, &engine, &nothing);
    assert_eq!(later, Ok(()));
}

#[test]
fn large_allocations_are_tracked_where_they_are_touched() {
    let shadow = GlobalShadow::new(1 << 33);
    let clock = Clock::new(64);
    let at = (1 << 33) - 8;
    assert_eq!(shadow.pass(origin(1, 0), true).access(at, 8, &who(0, 1), &clock), Ok(()));
    let read = shadow.pass(origin(1, 1), false).access(at + 4, 4, &who(0, 2), &clock);
    let rival = read.unwrap_err();
    assert_eq!((rival.cluster, rival.wrote), (0, true));
}
