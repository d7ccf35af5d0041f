//! The scheduler by example; the simulation (`tests/scheduler_sim`) is the thorough test.

use super::*;

/// Token number n of every sequence is n.
fn outputs(step: &Step) -> Vec<Output> {
    let sampling = step.sequences.iter().filter(|s| s.sample.is_some());
    sampling.map(|s| Output { token: (s.past + s.len) as u32, finish: None }).collect()
}

fn request(id: u64, prompt: usize, max_new_tokens: usize) -> Request {
    let prompt = (0..prompt as u32).collect();
    Request { id, prompt, max_new_tokens, choices: 1, ..Request::default() }
}

fn limits() -> Limits {
    Limits { pages: 16, page_size: 4, step_tokens: 8, ..Limits::default() }
}

/// Plans and commits until nothing is left; returns each step's `(id, len)` and all events.
fn run(s: &mut Scheduler) -> (Vec<Vec<(u64, usize)>>, Vec<Event>) {
    let (mut step, mut steps, mut events) = (Step::default(), Vec::new(), Vec::new());
    while s.plan(&mut step) {
        steps.push(step.sequences.iter().map(|q| (q.id, q.len)).collect());
        let pages: usize = step.sequences.iter().map(|q| q.pages_len).sum();
        assert_eq!(step.pages.len(), pages, "nothing is left of the step before");
        let rows: usize = step.sequences.iter().map(|q| q.len).sum();
        let logits: usize = step.sequences.iter().map(|q| q.logits).sum();
        assert_eq!((step.tokens.len(), step.logit_rows.len()), (rows, logits));
        s.commit(step.number, &outputs(&step), &mut events).expect("commit");
        s.audit().expect("audit");
    }
    assert!(s.idle());
    (steps, events)
}

fn tokens(events: &[Event], id: u64, choice: u32) -> Vec<u32> {
    let of_choice = events.iter().filter(|e| (e.id, e.choice) == (id, choice));
    of_choice.filter_map(|e| e.token).collect()
}

#[test]
fn decode_goes_on_while_a_long_prompt_is_prefilled_in_chunks() {
    let mut s = Scheduler::new(limits()).expect("limits");
    s.submit(&request(1, 3, 4)).expect("fits");
    s.submit(&request(2, 12, 1)).expect("fits");
    let (steps, events) = run(&mut s);
    assert_eq!(steps, [vec![(1, 3), (2, 5)], vec![(1, 1), (2, 7)], vec![(1, 1)], vec![(1, 1)]]);
    assert_eq!(tokens(&events, 1, 0), [3, 4, 5, 6]);
    assert_eq!(tokens(&events, 2, 0), [12]);
    let end = events.last().and_then(|e| e.end).expect("request 1 ends last");
    assert_eq!((end.reason, end.prompt_tokens, end.output_tokens), (Finish::Length, 3, 4));
    assert_eq!(s.metrics().prefill_tokens_total, 3 + 12);
}

#[test]
fn a_prompt_beside_decodes_comes_in_smaller_chunks() {
    let limits = Limits { mixed_prefill_tokens: 3, ..limits() };
    let mut s = Scheduler::new(limits).expect("limits");
    s.submit(&request(1, 3, 3)).expect("fits");
    s.submit(&request(2, 14, 1)).expect("fits");
    let (steps, _) = run(&mut s);
    let mixed = vec![(1, 1), (2, 3)];
    assert_eq!(steps, [vec![(1, 3), (2, 5)], mixed.clone(), mixed, vec![(2, 3)]]);
}

#[test]
fn the_longest_cached_prefix_goes_first_if_asked_for() {
    for (policy, first) in [(Policy::Fcfs, vec![(2, 8)]), (Policy::Lpm, vec![(3, 4), (2, 4)])] {
        let mut s = Scheduler::new(Limits { policy, ..limits() }).expect("limits");
        s.submit(&request(1, 8, 1)).expect("fits");
        run(&mut s);
        s.submit(&Request { prompt: (100..108).collect(), ..request(2, 0, 1) }).expect("fits");
        s.submit(&request(3, 12, 1)).expect("fits");
        assert_eq!(run(&mut s).0[0], first, "{policy:?}");
    }
}

#[test]
fn a_static_batch_prefills_together_and_decodes_in_lockstep() {
    let limits = Limits { policy: Policy::Static, prefix_cache: false, ..limits() };
    let mut s = Scheduler::new(limits).expect("limits");
    for id in 1..=2 {
        s.submit(&request(id, 6, 2)).expect("fits");
    }
    let (steps, _) = run(&mut s);
    assert_eq!(steps, [vec![(1, 6), (2, 2)], vec![(2, 4)], vec![(1, 1), (2, 1)]]);
}

#[test]
fn the_next_step_can_be_planned_before_the_last_one_is_known() {
    let mut s = Scheduler::new(limits()).expect("limits");
    s.submit(&request(1, 3, 3)).expect("fits");
    let (mut first, mut second, mut events) = (Step::default(), Step::default(), Vec::new());
    assert!(s.plan(&mut first) && s.plan(&mut second));
    assert_eq!(second.sequences[0].pending, first.sequences[0].sample);
    assert!(!s.plan(&mut Step::default()), "two steps are in flight");
    s.commit(first.number, &[Output { token: 9, finish: Some(Finish::Stop) }], &mut events)
        .expect("commit");
    assert!(s.pages().census().fenced > 0, "the second step still writes its page");
    s.commit(second.number, &[Output { token: 8, finish: None }], &mut events).expect("commit");
    assert_eq!(tokens(&events, 1, 0), [9]);
    assert!(s.idle() && s.pages().available() == 16);
}

#[test]
fn parallel_samples_share_the_prompt() {
    let mut s = Scheduler::new(limits()).expect("limits");
    s.submit(&Request { choices: 3, ..request(1, 7, 2) }).expect("fits");
    let mut step = Step::default();
    assert!(s.plan(&mut step));
    assert_eq!(step.sequences.len(), 1, "the first choice computes the prompt");
    s.commit(step.number, &outputs(&step), &mut Vec::new()).expect("commit");
    assert!(s.plan(&mut step));
    let lens: Vec<_> = step.sequences.iter().map(|q| (q.choice, q.past, q.len)).collect();
    assert_eq!(lens, [(0, 7, 1), (1, 6, 1), (2, 6, 1)]);
    assert_eq!(step.copies.iter().map(|c| c.tokens).collect::<Vec<_>>(), [2, 2]);
    let first: Vec<_> = step.sequences.iter().map(|q| step.table(q)[0]).collect();
    assert!(first.iter().all(|&page| page == first[0]));
    s.commit(step.number, &outputs(&step), &mut Vec::new()).expect("commit");
    assert!(s.plan(&mut step) || s.idle());
    assert!(step.copies.is_empty(), "each is copied once");
}

#[test]
fn a_cached_prompt_computes_its_last_token_and_wanted_logits() {
    let mut s = Scheduler::new(limits()).expect("limits");
    s.submit(&request(1, 8, 1)).expect("fits");
    run(&mut s);
    s.submit(&request(2, 8, 1)).expect("fits");
    s.submit(&Request { logprob_start: Some(5), ..request(3, 8, 0) }).expect("fits");
    let mut step = Step::default();
    assert!(s.plan(&mut step));
    let rows: Vec<_> = step.sequences.iter().map(|q| (q.past, q.len, q.logits)).collect();
    assert_eq!(rows, [(4, 4, 1), (4, 4, 3)]);
    assert_eq!(step.logit_rows, [3, 5, 6, 7]);
    assert_eq!(step.samples, 1, "request 3 only wants its prompt's logits");
    s.commit(step.number, &outputs(&step), &mut Vec::new()).expect("commit");
    assert!(s.idle());
    assert_eq!(s.metrics().hit_tokens_total, 8);
}

#[test]
fn refusals_say_why_and_leave_nothing_behind() {
    let caps = Limits { max_queued_requests: 2, max_queued_tokens: 20, ..limits() };
    let mut s = Scheduler::new(caps).expect("limits");
    assert_eq!(s.submit(&request(1, 0, 1)), Err(Refusal::EmptyPrompt));
    let capacity = Refusal::ExceedsCache { tokens: 66, capacity: 64 };
    assert_eq!(s.submit(&request(1, 60, 6)), Err(capacity));
    assert!(matches!(s.submit(&request(1, 9, usize::MAX)), Err(Refusal::ExceedsContext { .. })));
    let many = Request { choices: u32::MAX, ..request(1, 1, 1) };
    assert_eq!(s.submit(&many), Err(Refusal::QueueFull { limit: 2 }));
    s.submit(&request(1, 15, 1)).expect("fits");
    assert_eq!(s.submit(&request(1, 1, 1)), Err(Refusal::DuplicateId(1)));
    assert_eq!(s.submit(&request(2, 6, 1)), Err(Refusal::QueueTokensFull { limit: 20 }));
    assert!(s.cancel(1, &mut Vec::new()) && !s.cancel(1, &mut Vec::new()));
    assert!(s.idle());
}

#[test]
fn results_of_the_wrong_step_are_refused() {
    let mut s = Scheduler::new(limits()).expect("limits");
    s.submit(&request(1, 3, 1)).expect("fits");
    let mut step = Step::default();
    assert!(s.plan(&mut step));
    assert!(s.commit(step.number + 1, &outputs(&step), &mut Vec::new()).is_err());
    assert!(s.commit(step.number, &[], &mut Vec::new()).is_err());
    let mut events = Vec::new();
    assert!(s.fail(step.number + 1, true, &mut events).is_err() && events.is_empty());
    assert_eq!(s.in_flight(), 1);
    s.fail(step.number, true, &mut events).expect("fail");
    assert_eq!(events[0].end.map(|e| e.reason), Some(Finish::Failed));
    assert!(s.idle());
}

#[test]
fn a_newcomer_leaves_pages_for_the_running_to_grow_into() {
    let wide = Limits { step_tokens: 100, ..limits() };
    // Of 15 pages that are free, two are kept: one for each that will run.
    for (prompt, rows) in [(52, vec![(1, 1), (2, 52)]), (53, vec![(1, 1)])] {
        let mut s = Scheduler::new(wide.clone()).expect("limits");
        let (mut step, mut events) = (Step::default(), Vec::new());
        s.submit(&request(1, 3, 2)).expect("fits");
        assert!(s.plan(&mut step));
        s.commit(step.number, &outputs(&step), &mut events).expect("commit");
        s.submit(&request(2, prompt, 1)).expect("fits");
        assert_eq!(run(&mut s).0[0], rows);
    }
    // Who runs alone may have them all, and so may a static batch.
    let mut s = Scheduler::new(wide.clone()).expect("limits");
    s.submit(&request(1, 64, 1)).expect("fits");
    assert_eq!(run(&mut s).0, [[(1, 64)]]);
    let batch = Limits { policy: Policy::Static, prefix_cache: false, ..wide };
    let mut s = Scheduler::new(batch).expect("limits");
    s.submit(&request(1, 32, 1)).expect("fits");
    s.submit(&request(2, 32, 1)).expect("fits");
    assert_eq!(run(&mut s).0, [[(1, 32), (2, 32)]]);
}

#[test]
fn who_is_preempted_by_its_own_growth_holds_up_nobody() {
    let few = Limits { pages: 5, step_tokens: 10, prefix_cache: false, ..limits() };
    let mut s = Scheduler::new(Limits { max_preemptions: 1, preempt_every: 3, ..few }).expect("ok");
    s.submit(&request(1, 5, 8)).expect("fits");
    s.submit(&request(2, 5, 8)).expect("fits");
    let (steps, events) = run(&mut s);
    // Step 3 preempts request 2, which then gets all the pages it will need. Request 1 finds none
    // in step 5 and may not take those.
    let begin = [vec![(1, 5), (2, 5)], vec![(1, 1), (2, 1)], vec![(1, 1)], vec![(1, 1), (2, 7)]];
    assert_eq!(steps[..4], begin);
    assert_eq!(steps[4..9], [[(2, 1)]; 5]);
    assert_eq!(steps[9..], [[(1, 9)], [(1, 1)], [(1, 1)], [(1, 1)]]);
    assert!(events.iter().filter_map(|e| e.end).all(|end| end.preemptions == 1));
}

#[test]
fn cached_tokens_are_those_of_the_first_run() {
    let mut s = Scheduler::new(Limits { preempt_every: 4, ..limits() }).expect("limits");
    s.submit(&request(1, 8, 1)).expect("fits");
    run(&mut s);
    s.submit(&request(2, 8, 4)).expect("fits");
    s.submit(&Request { prompt: (100..108).collect(), ..request(3, 0, 4) }).expect("fits");
    let (_, events) = run(&mut s);
    let mut ends: Vec<_> = events.iter().filter_map(|e| Some((e.id, e.end?))).collect();
    ends.sort_by_key(|&(id, _)| id);
    let ends: Vec<_> = ends.iter().map(|(_, e)| (e.cached_tokens, e.preemptions)).collect();
    assert_eq!(ends, [(4, 0), (0, 1)], "what a preempted one finds again was not cached before");
}

#[test]
fn lists_and_slots_are_used_again() {
    let mut s = Scheduler::new(limits()).expect("limits");
    for id in 0..5 {
        s.submit(&request(id, 3, 2)).expect("fits");
        assert_eq!(s.sequences.find(id, 0), Some(0));
        let mut step = Step::default();
        assert!(s.plan(&mut step) && s.spare.is_empty());
        s.commit(step.number, &outputs(&step), &mut Vec::new()).expect("commit");
        assert_eq!(s.spare.len(), 1);
        run(&mut s);
        assert_eq!(s.spare.len(), 1);
    }
    s.submit(&request(9, 3, 3)).expect("fits");
    let (mut first, mut second) = (Step::default(), Step::default());
    assert!(s.plan(&mut first) && s.plan(&mut second));
    s.fail(first.number, false, &mut Vec::new()).expect("fail");
    assert_eq!(s.spare.len(), 1);
    s.submit(&request(9, 3, 3)).expect("fits");
    assert!(s.plan(&mut first) && s.in_flight() == 2 && s.spare.is_empty());
    s.fail(second.number, true, &mut Vec::new()).expect("fail");
    assert_eq!((s.spare.len(), s.in_flight()), (2, 0));
}
