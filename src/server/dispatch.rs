//! From what a connection says to its handler, and from what the handler says to an answer.

use std::time::Instant;

use super::answer::{self, Streamed};
use super::auth::{Access, check_origin};
use super::conn::{Busy, Conn};
use super::event_loop::{Flush, Notice, Server};
use super::generate::{Generation, Plan};
use super::pool::{self, Worked};
use super::routes::{self, Call, Reply, Route};
use super::timers::Slice;
use super::timing::{self, Timing};
use crate::http::api::Abort;
use crate::http::framing::Framing;
use crate::http::response::CONTINUE;
use crate::http::{Event as Heard, Exchange, Head, Refused, Response};
use crate::profile::clock;
use crate::profile::recorder::{Event, Recorder};

impl Server {
    /// Takes what a connection's bytes amount to.
    pub(super) fn heard(&mut self, key: usize, event: Heard) {
        match event {
            Heard::Head(head) => self.head(key, head),
            Heard::Continue => {
                if let Some(conn) = self.conns.get_mut(key) {
                    conn.out.extend_from_slice(CONTINUE);
                }
            }
            Heard::Body(body) => self.request(key, body),
            Heard::Refused(refused) => self.refuse_broken(key, &refused),
        }
    }

    /// Decides on a request before its body is let in.
    fn head(&mut self, key: usize, head: Box<Head>) {
        let log = self.context.options.log_requests;
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.exchange = Exchange::of(&head);
        conn.received = Instant::now();
        conn.timing.wanted = head.field(timing::HEADER).is_some();
        conn.line = if log { format!("{} {}", head.method, head.path) } else { String::new() };
        conn.route = "other";
        let admitted = self.admit(key, &head);
        let Some(conn) = self.conns.get_mut(key) else { return };
        match admitted {
            Ok(route) => {
                conn.route = route.path;
                conn.busy = Busy::Body(route, head);
                conn.input.accept();
            }
            Err(refused) => {
                let mut response = Response::from(&refused);
                if refused.status == 405 {
                    response = response.with("Allow", routes::allowed(&head.path));
                }
                if head.framing == Framing::Length(0) {
                    // The request is whole, so the connection may go on.
                    conn.input.accept();
                    let _ = conn.input.poll();
                } else {
                    conn.exchange.keep_alive = false;
                    conn.rude = true;
                }
                self.respond(key, &response);
            }
        }
    }

    fn admit(&self, key: usize, head: &Head) -> Result<&'static Route, Refused> {
        let Some(conn) = self.conns.get(key) else {
            return Err(Refused::new(500, "the connection is gone"));
        };
        check_origin(Access::Open, head, self.context.bound)?;
        let found = routes::find(&head.method, &head.path);
        // Who has no key does not learn which routes there are.
        let access = found.as_ref().map_or(Access::User, |route| route.access);
        self.context.options.keys.check(access, head, conn.peer.ip())?;
        let route = found?;
        check_origin(route.access, head, self.context.bound)?;
        if self.draining() && route.access != Access::Open {
            return Err(Refused::new(503, "the server is shutting down"));
        }
        Ok(route)
    }

    fn request(&mut self, key: usize, body: Vec<u8>) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Busy::Body(route, head) = std::mem::replace(&mut conn.busy, Busy::Free) else {
            return;
        };
        conn.received = Instant::now();
        conn.timing.received_ns = clock::now_ns();
        let mut call = Call {
            head: &head,
            body,
            context: &self.context,
            stats: &self.stats,
            connections: self.conns.len(),
            draining: self.draining(),
        };
        let done = match pool::guarded(|| (route.handle)(&mut call)) {
            Ok(reply) => self.reply(key, reply),
            Err(refused) => Err(refused),
        };
        if let Err(refused) = done {
            self.respond(key, &Response::from(&refused));
        }
    }

    fn reply(&mut self, key: usize, reply: Reply) -> Result<(), Refused> {
        let Some(ticket) = self.ticket(key) else { return Ok(()) };
        match reply {
            Reply::Now(response) => {
                self.respond(key, &response);
                return Ok(());
            }
            Reply::Work(job) => self.pool.submit(ticket, job)?,
            Reply::Slow(job) => self.pool.submit_slow(ticket, job, &self.context)?,
            Reply::Flush(wait) => {
                let tag = self.next_id;
                self.next_id += 1;
                self.context.engine.flush_cache(tag)?;
                let until = Instant::now() + wait;
                self.flushes.insert(tag, Flush { ticket, until, again: None });
            }
            Reply::Abort(whom) => {
                let count = self.abort(&whom);
                let body = serde_json::json!({ "success": true, "aborted": count });
                self.respond(key, &Response::json(200, &body));
                return Ok(());
            }
        }
        if let Some(conn) = self.conns.get_mut(key) {
            conn.busy = Busy::Working;
        }
        Ok(())
    }

    /// Ends requests by their id; a batch's have `_0`, `_1`, … behind it.
    fn abort(&self, whom: &Abort) -> usize {
        let named = |rid: &str| match whom {
            Abort::All => true,
            Abort::Id(id) => rid.strip_prefix(id.as_str()).is_some_and(|rest| {
                let digits = rest.strip_prefix('_').unwrap_or("x");
                rest.is_empty()
                    || (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
            }),
        };
        let mut count = 0;
        for (_, conn) in &self.conns {
            let Busy::Generating(generation) = &conn.busy else { continue };
            for running in generation.running.iter().filter(|r| named(&r.rid)) {
                // The client hears of it by the engine's last update.
                self.context.engine.cancel(running.id);
                count += 1;
            }
        }
        count
    }

    /// What workers have finished.
    pub(super) fn take_results(&mut self) {
        let slice = Slice::begin();
        while let Some(((key, serial), outcome)) = self.pool.done() {
            let waits = |c: &&mut Conn| c.serial == serial && matches!(c.busy, Busy::Working);
            if self.conns.get_mut(key).filter(waits).is_none() {
                continue;
            }
            match outcome {
                Ok(Worked::Respond(response)) => self.respond(key, &response),
                Ok(Worked::Generate(plan)) => self.start(key, *plan),
                Err(refused) => self.respond(key, &Response::from(&refused)),
            }
            self.drive(key);
            if slice.over() {
                self.more = true;
                return;
            }
        }
    }

    /// Hands a request to the engine.
    fn start(&mut self, key: usize, plan: Plan) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let (mut generation, requests) = Generation::new(plan, self.next_id, conn.received);
        let (made, submitted_ns) = (generation.timing.made, clock::now_ns());
        generation.timing = Timing { made, submitted_ns, ..conn.timing };
        self.next_id += requests.len() as u64;
        self.stats.requests += requests.len() as u64;
        let (now, age) = (self.recorder.now(), conn.received.elapsed().as_nanos() as u64);
        for request in requests {
            self.owners.insert(request.id, key);
            let id = request.id as u32;
            self.recorder.record(Event::Parse, id, 0, now.saturating_sub(age), now);
            if made.tokenised_ns > 0 {
                let tokens = request.prompt.len() as u64;
                let (from, to) = (made.parsed_ns, made.tokenised_ns);
                self.recorder.record(Event::Tokenise, id, tokens, from, to);
            }
            self.recorder.record(Event::Submit, id, 0, now, now);
            if let Err(error) = self.context.engine.submit(request) {
                self.forget(generation.ids());
                self.respond(key, &Response::from(&Refused::from(error)));
                return;
            }
        }
        if let Some(conn) = self.conns.get_mut(key) {
            conn.busy = Busy::Generating(Box::new(generation));
        }
    }

    /// Tells a client more of its generation, if there is more and it has room; true if something
    /// was done.
    pub(super) fn progress(&mut self, key: usize) -> bool {
        let Some(conn) = self.conns.get_mut(key) else { return false };
        if !conn.has_room() {
            return false;
        }
        let Busy::Generating(generation) = &mut conn.busy else { return false };
        let over = generation.complete() || generation.failed.is_some();
        let begun = generation.stream.is_some();
        if generation.wants_stream && (begun || generation.failed.is_none()) {
            let start = self.recorder.now();
            let streamed =
                answer::stream(generation, &mut conn.exchange, &self.date.1, &mut conn.out);
            if streamed != Streamed::Waiting {
                if !begun {
                    generation.timing.told_ns = clock::now_ns();
                }
                told(&mut self.recorder, generation, begun, start);
            }
            if streamed == Streamed::Ended {
                self.close_generation(key);
                self.answered(key, 200);
            }
            return streamed != Streamed::Waiting;
        }
        if over {
            let response = answer::whole(generation);
            self.close_generation(key);
            self.respond(key, &response);
        }
        over
    }

    /// Counts a generation that has ended, and ends what is left of it in the engine.
    fn close_generation(&mut self, key: usize) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let busy = std::mem::replace(&mut conn.busy, Busy::Free);
        if let Busy::Generating(generation) = busy {
            self.stats.finished(&generation);
            if generation.complete() {
                generation.ids().for_each(|id| _ = self.owners.remove(&id));
            } else {
                self.forget(generation.ids());
            }
        }
    }

    /// Writes a whole response.
    pub(super) fn respond(&mut self, key: usize, response: &Response) {
        let draining = self.draining();
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.busy = Busy::Free;
        conn.exchange.keep_alive &= !draining;
        response.write(&conn.exchange, &self.date.1, &mut conn.out);
        self.answered(key, response.status);
    }

    /// The answer is written: the next request may come, or the connection ends.
    fn answered(&mut self, key: usize, status: u16) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        self.stats.response(conn.route, status);
        if !conn.line.is_empty() {
            let (line, peer) = (std::mem::take(&mut conn.line), conn.peer);
            let took = conn.received.elapsed().as_secs_f64() * 1e3;
            self.notices.push(Notice::Request(format!("{line} {status} {took:.1} ms {peer}")));
        }
        if conn.exchange.keep_alive {
            conn.input.answered();
            conn.rests();
        } else {
            conn.input.close();
            conn.closing = true;
        }
    }

    /// Answers bytes that are no request, and closes.
    pub(super) fn refuse_broken(&mut self, key: usize, refused: &Refused) {
        let log = self.context.options.log_requests;
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.line = if log { "- -".into() } else { String::new() };
        conn.received = Instant::now();
        conn.exchange = Exchange::broken();
        conn.rude = true;
        conn.route = "malformed";
        self.respond(key, &Response::from(refused));
    }
}

/// Records that news of a generation were written from `start_ns` on.
fn told(recorder: &mut Recorder, generation: &Generation, begun: bool, start_ns: u64) {
    if !recorder.is_on() {
        return;
    }
    let now = recorder.now();
    let received = now.saturating_sub(generation.received.elapsed().as_nanos() as u64);
    let first = generation.running.first().map_or(0, |r| r.id as u32);
    recorder.record(Event::Respond, first, 0, start_ns, now);
    if !begun {
        for running in &generation.running {
            recorder.record(Event::FirstToken, running.id as u32, 0, received, now);
        }
    }
    if generation.complete() {
        for running in &generation.running {
            recorder.record(Event::Request, running.id as u32, 0, received, now);
        }
    }
}
