//! The invariants. Each says what is wrong in words, and stops the seed.

use crate::mirror::Mirror;
use crate::scheduler::{Event, Finish, Metrics, Policy, Refusal, Request, State, Step};
use crate::world::World;

/// Why a request must be refused, from what is known when it arrives: prompt, lengths, limits.
pub fn refusal(world: &World, request: &Request) -> Option<Refusal> {
    let (limits, prompt) = (&world.scenario.limits, request.prompt.len());
    let tokens = prompt + request.max_new_tokens;
    let capacity = limits.pages * limits.page_size;
    let metrics = world.scheduler.metrics();
    if prompt == 0 {
        return Some(Refusal::EmptyPrompt);
    }
    if request.choices == 0 {
        return Some(Refusal::NoChoices);
    }
    if world.mirrors.values().any(|m| m.id == request.id && m.live()) {
        return Some(Refusal::DuplicateId(request.id));
    }
    if let Some(start) = request.logprob_start.filter(|&start| start >= prompt) {
        return Some(Refusal::LogprobStart { start, prompt });
    }
    if tokens > limits.context {
        return Some(Refusal::ExceedsContext { tokens, context: limits.context });
    }
    // The last token is never computed.
    if prompt + request.max_new_tokens.saturating_sub(1) > capacity {
        return Some(Refusal::ExceedsCache { tokens, capacity });
    }
    let queued = metrics.queued + request.choices as usize;
    if queued > limits.max_queued_requests {
        return Some(Refusal::QueueFull { limit: limits.max_queued_requests });
    }
    let tokens = metrics.queued_tokens + prompt * request.choices as usize;
    let limit = limits.max_queued_tokens;
    (tokens > limit).then_some(Refusal::QueueTokensFull { limit })
}

/// Ticks that all live choices may still need when every one runs alone, each preemption redoing
/// everything.
pub fn work_left(world: &World) -> u64 {
    let again = u64::from(world.scenario.limits.max_preemptions) + 2;
    let live = world.mirrors.values().filter(|m| m.live());
    let tokens: u64 = live.map(|m| (m.prompt_len + m.max_new + 2) as u64).sum();
    tokens * again
}

/// The world as a plan finds it.
pub struct Before {
    metrics: Metrics,
    /// Decode rows that need no new page: they must be planned.
    ready: Vec<(u64, u32)>,
    preempted: Vec<(u64, u32)>,
    refused: u64,
}

impl Before {
    /// An allocation has been refused since.
    pub fn refused(&self, world: &World) -> bool {
        world.scheduler.pages().refused() > self.refused
    }
}

pub fn before_plan(world: &World) -> Before {
    let size = world.scenario.limits.page_size;
    let state = |m: &&Mirror| world.scheduler.state(m.id, m.choice);
    let ready = |m: &&Mirror| {
        m.live() && state(m) == Some(State::Running) && m.decodes() && m.planned % size != 0
    };
    let preempted = |m: &&Mirror| m.live() && state(m) == Some(State::Preempted);
    Before {
        metrics: world.scheduler.metrics(),
        ready: world.mirrors.values().filter(ready).map(Mirror::key).collect(),
        preempted: world.mirrors.values().filter(preempted).map(Mirror::key).collect(),
        refused: world.scheduler.pages().refused(),
    }
}

/// A step that has just been planned.
pub fn plan(world: &World, step: &Step, before: &Before) -> Result<(), String> {
    let limits = &world.scenario.limits;
    let batch = limits.policy == Policy::Static;
    let rows: usize = step.sequences.iter().map(|s| s.len).sum();
    let prefill: usize = step.sequences.iter().filter(|s| s.prefill).map(|s| s.len).sum();
    if rows != step.tokens.len() || prefill != step.prefill_tokens {
        return Err(format!("{rows} rows, {prefill} of them prefill, are counted wrongly"));
    }
    if rows > limits.step_tokens || prefill > limits.max_prefill_tokens {
        return Err(format!("{rows} rows, {prefill} of them prefill, exceed the budget"));
    }
    let decodes = step.sequences.iter().any(|s| !s.prefill);
    if !batch && decodes && prefill > limits.mixed_prefill_tokens {
        return Err(format!("{prefill} rows of prefill beside decodes exceed their share"));
    }
    if step.sequences.len() > limits.max_running || step.logit_rows.len() > limits.logit_rows {
        return Err("more sequences or rows of logits than allowed".to_owned());
    }
    for (at, s) in step.sequences.iter().enumerate() {
        let key = (s.id, s.choice);
        if step.sequences[..at].iter().any(|o| (o.id, o.choice) == key) {
            return Err(format!("{key:?} is planned twice"));
        }
        let mirror = world.named(s.id, s.choice).filter(|m| m.live());
        let mirror = mirror.ok_or(format!("{key:?} is planned and not live"))?;
        sequence(world, step, s, mirror)?;
    }
    if !batch {
        decodes_first(world, step, before)?;
        in_order(world, step, before)?;
        // A refused allocation holds up whoever needed the page, and that is all it does.
        if !before.refused(world) {
            work_conserving(world, step, before)?;
        }
    }
    Ok(())
}

fn sequence(
    world: &World,
    step: &Step,
    s: &crate::scheduler::StepSequence,
    mirror: &Mirror,
) -> Result<(), String> {
    let (key, limits) = ((s.id, s.choice), &world.scenario.limits);
    let (end, size) = (s.past + s.len, limits.page_size);
    if s.first == mirror.ran {
        return Err(format!("{key:?} runs for the first time twice, or never"));
    }
    let fresh = mirror.planned == 0;
    if s.len == 0 || (!fresh && s.past != mirror.planned) || end > mirror.len().min(mirror.goal()) {
        return Err(format!("{key:?} runs {} from {} on, has {}", s.len, s.past, mirror.planned));
    }
    if s.past >= mirror.len() || (!s.prefill && s.len != 1) {
        return Err(format!("{key:?} computes nothing, or decodes {} tokens", s.len));
    }
    // Every token that exists has been computed when the next one is sampled.
    let samples = end == mirror.len() && mirror.max_new > 0;
    if s.sample.is_some() != samples {
        return Err(format!("{key:?}: sampling at {end} of {}", mirror.len()));
    }
    let table = step.table(s);
    if table.len() < end.div_ceil(size) {
        return Err(format!("{key:?}: {} pages for {end} tokens", table.len()));
    }
    for position in s.past..end {
        let page = table[position / size];
        if world.scheduler.pages().references(page) != 1 {
            return Err(format!("{key:?} writes page {page}, which others read"));
        }
        if world.scheduler.pages().is_published(page) {
            return Err(format!("{key:?} writes page {page}, which is in the prefix tree"));
        }
    }
    let wanted = match mirror.rows_from < mirror.prompt_len {
        true => end.saturating_sub(mirror.rows_from.max(s.past)),
        false => usize::from(samples),
    };
    let skipped = mirror.rows_from < mirror.prompt_len.min(s.past);
    if s.logits != wanted || skipped {
        return Err(format!("{key:?}: {} rows of logits, {wanted} wanted", s.logits));
    }
    Ok(())
}

/// A decode that needs no page is in the step, whatever prefills.
fn decodes_first(world: &World, step: &Step, before: &Before) -> Result<(), String> {
    let decodes = step.sequences.iter().filter(|s| !s.prefill).count();
    if decodes == world.scenario.limits.step_tokens {
        return Ok(());
    }
    for key in &before.ready {
        let running = world.scheduler.state(key.0, key.1) == Some(State::Running);
        if running && !step.sequences.iter().any(|s| (s.id, s.choice) == *key) {
            return Err(format!("{key:?} could decode and does not"));
        }
    }
    Ok(())
}

/// Nobody overtakes: not the preempted, and first come is first served.
fn in_order(world: &World, step: &Step, before: &Before) -> Result<(), String> {
    for s in step.sequences.iter().filter(|s| s.first) {
        let Some(newcomer) = world.named(s.id, s.choice) else { continue };
        for key in &before.preempted {
            let waits = world.scheduler.state(key.0, key.1) == Some(State::Preempted);
            if waits {
                return Err(format!("{:?} overtakes the preempted {key:?}", newcomer.key()));
            }
        }
        if world.scenario.limits.policy != Policy::Fcfs {
            continue;
        }
        let older = |m: &&Mirror| m.order < newcomer.order && m.choice == 0 && m.live();
        for m in world.mirrors.values().filter(older) {
            if world.scheduler.state(m.id, m.choice) == Some(State::Queued) {
                return Err(format!("{:?} overtakes {:?}", newcomer.key(), m.key()));
            }
        }
    }
    Ok(())
}

/// A queue whose head fits is not left standing.
fn work_conserving(world: &World, step: &Step, before: &Before) -> Result<(), String> {
    let (limits, after) = (&world.scenario.limits, world.scheduler.metrics());
    let queue =
        |m: &&Mirror| m.live() && world.scheduler.state(m.id, m.choice) == Some(State::Queued);
    let head = world.mirrors.values().filter(queue).min_by_key(|m| m.order);
    let Some(head) = head.filter(|m| m.choice == 0) else { return Ok(()) };
    let forced = limits.preempt_every > 0 && step.number % limits.preempt_every == 0;
    let short = after.preemptions_total > before.metrics.preemptions_total
        || before.metrics.preempted > 0
        || world.scheduler.pages().coming() > 0;
    let budget = step.tokens.len() < limits.step_tokens
        && step.prefill_tokens < limits.max_prefill_tokens.min(limits.mixed_prefill_tokens)
        && after.running < limits.max_running.min(limits.step_tokens).min(limits.logit_rows);
    let pages = head.prompt_len.div_ceil(limits.page_size);
    let headroom = (after.running + 1).min(limits.pages / 8);
    let fits = pages + headroom <= world.scheduler.pages().available();
    if limits.policy == Policy::Fcfs && !forced && !short && budget && fits {
        return Err(format!("{:?} waits although it fits", head.key()));
    }
    Ok(())
}

/// Work that could go on goes on; a refused allocation may hold it up for this tick.
pub fn progress(world: &World, before: &Before, planned: bool) -> Result<(), String> {
    let refused = before.refused(world);
    if !planned && !refused && world.flying.is_empty() && !world.scheduler.idle() {
        let metrics = world.scheduler.metrics();
        return Err(format!("nothing in flight and nothing planned: {metrics:?}"));
    }
    Ok(())
}

pub fn every_tick(world: &World) -> Result<(), String> {
    let scheduler = &world.scheduler;
    scheduler.audit()?;
    let metrics = scheduler.metrics();
    let pages = metrics.pages;
    if pages.free + pages.held + pages.cached + pages.fenced != metrics.pages_total {
        return Err(format!("pages are lost: {pages:?}"));
    }
    for launched in &world.flying {
        if let Some(page) = launched.pages().find(|&p| scheduler.pages().may_be_reused(p)) {
            let step = launched.step.number;
            return Err(format!("page {page} may be reused although step {step} is in flight"));
        }
    }
    let mut counts = [0; 3];
    for m in world.newest.values().map(|order| &world.mirrors[order]) {
        let state = scheduler.state(m.id, m.choice);
        if state.is_some() != m.live() {
            return Err(format!("{:?} is {state:?}, its end was told: {}", m.key(), !m.live()));
        }
        // A sequence that was admitted may lose its pages before it runs.
        if state == Some(State::Queued) && (m.ran || m.preemptions > 0) {
            return Err(format!("{:?} is {state:?}, has run: {}", m.key(), m.ran));
        }
        if let Some(state) = state {
            counts[state as usize] += 1;
        }
        let most = world.scenario.limits.max_bypass;
        let lpm = world.scenario.limits.policy == Policy::Lpm;
        if lpm && m.choice == 0 && m.live() && !m.ran && m.bypassed > most {
            return Err(format!("{:?} was passed over {} times", m.key(), m.bypassed));
        }
    }
    if counts != [metrics.queued, metrics.running, metrics.preempted] {
        return Err(format!("{counts:?} queued, running, preempted; {metrics:?}"));
    }
    Ok(())
}

/// One event against the oracle.
pub fn event(mirror: &Mirror, event: &Event) -> Result<(), String> {
    let key = mirror.key();
    if !mirror.live() {
        return Err(format!("{key:?} goes on after its end"));
    }
    if let Some(token) = event.token {
        let expected = mirror.tokens.get(mirror.prompt_len + mirror.told);
        if expected != Some(&token) || mirror.told >= mirror.natural.0 {
            return Err(format!("{key:?}: token {token}, the oracle says {expected:?}"));
        }
        if !mirror.ran || mirror.rows_from < mirror.prompt_len {
            return Err(format!("{key:?}: a token before the prompt and its rows are done"));
        }
    }
    let told = mirror.told + usize::from(event.token.is_some());
    let natural = mirror.natural.0 == told;
    let Some(end) = event.end else {
        return if natural { Err(format!("{key:?} goes on past its end")) } else { Ok(()) };
    };
    let ends = matches!(end.reason, Finish::Stop | Finish::Length);
    if ends && (!natural || end.reason != mirror.natural.1) {
        return Err(format!("{key:?} ended with {end:?}, expected {:?}", mirror.natural));
    }
    let usage = (end.prompt_tokens, end.output_tokens, end.preemptions);
    if usage != (mirror.prompt_len, told, mirror.preemptions) {
        return Err(format!("{key:?}: {end:?}, counted {told} tokens, {mirror:?}"));
    }
    if end.cached_tokens > 0 && end.cached_tokens >= mirror.prompt_len + mirror.max_new {
        return Err(format!("{key:?}: {} cached tokens", end.cached_tokens));
    }
    Ok(())
}

pub fn at_the_end(world: &mut World) -> Result<(), String> {
    if let Some(m) = world.mirrors.values().find(|m| m.live()) {
        return Err(format!("{:?} was never told its end", m.key()));
    }
    let most = world.scenario.limits.max_preemptions;
    if let Some(m) = world.mirrors.values().find(|m| m.preemptions > most) {
        return Err(format!("{:?} was preempted {} times", m.key(), m.preemptions));
    }
    let metrics = world.scheduler.metrics();
    world.outcome.hit_tokens = metrics.hit_tokens_total;
    world.outcome.short = world.scheduler.pages().refused();
    let free = world.scheduler.pages().available();
    if !world.scheduler.idle() || free != metrics.pages_total || metrics.running > 0 {
        return Err(format!("not everything is free at the end: {metrics:?}"));
    }
    world.scheduler.flush_prefix_cache();
    if world.scheduler.metrics().pages.free != metrics.pages_total {
        return Err("a page stays in the prefix tree".to_owned());
    }
    world.scheduler.audit()
}
